/*
 * This library is free software; you can redistribute it and/or
 * modify it under the terms of the GNU Lesser General Public
 * License as published by the Free Software Foundation;
 * version 2.1 of the License.
 *
 * This library is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU
 * Lesser General Public License for more details.
 *
 * You should have received a copy of the GNU Lesser General Public
 * License along with this library; If not, see <http://www.gnu.org/licenses/>.
 */

/* The operations: XEN_DOMCTL_pml_op, and mapping XENMEM_resource_pml_log. */
#define __XEN_TOOLS__ 1

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xencall.h>
#include <xenforeignmemory.h>
#include <xentoollog.h>

#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/memory.h>

#include "private.h"

#define PAGE 4096UL
#define CHUNK_PAGES 16UL
#define CHUNK_WORDS (CHUNK_PAGES * PAGE / sizeof(uint64_t))

struct xenpml_handle {
    xentoollog_logger *logger, *logger_tofree;
    xencall_handle *xcall;
    xenforeignmemory_handle *fmem;
    /* Hypercall buffers for bitmaps and for frames, kept between rounds. */
    uint8_t *bounce;
    size_t bounce_pages;
    uint64_t *chunk;
    /* The frames touched in a round, all chunks of them. */
    uint64_t *touched;
    size_t touched_room;
};

xenpml_handle *xenpml_open(struct xentoollog_logger *logger,
                           unsigned open_flags)
{
    xenpml_handle *h;

    if ( open_flags )
    {
        errno = EINVAL;
        return NULL;
    }

    h = calloc(1, sizeof(*h));
    if ( !h )
        return NULL;

    h->logger = logger;
    if ( !h->logger )
        h->logger = h->logger_tofree = (xentoollog_logger *)
            xtl_createlogger_stdiostream(stderr, XTL_PROGRESS, 0);
    if ( h->logger )
        h->xcall = xencall_open(h->logger, 0);
    if ( h->xcall )
        h->fmem = xenforeignmemory_open(h->logger, 0);
    if ( h->fmem )
        return h;

    {
        int saved = errno;

        xenpml_close(h);
        errno = saved;
    }

    return NULL;
}

static void free_bounce(xenpml_handle *h)
{
    if ( h->bounce )
        xencall_free_buffer_pages(h->xcall, h->bounce, h->bounce_pages);
    h->bounce = NULL;
    h->bounce_pages = 0;
}

int xenpml_close(xenpml_handle *h)
{
    if ( !h )
        return 0;

    free_bounce(h);
    if ( h->chunk )
        xencall_free_buffer_pages(h->xcall, h->chunk, CHUNK_PAGES);
    free(h->touched);
    xenforeignmemory_close(h->fmem);
    xencall_close(h->xcall);
    xtl_logger_destroy(h->logger_tofree);
    free(h);

    return 0;
}

static int pml_op(xenpml_handle *h, uint32_t domid,
                  struct xen_domctl_pml_op *op)
{
    struct xen_domctl *domctl;
    int rc;

    domctl = xencall_alloc_buffer(h->xcall, sizeof(*domctl));
    if ( !domctl )
        return -1;

    memset(domctl, 0, sizeof(*domctl));
    domctl->cmd = XEN_DOMCTL_pml_op;
    domctl->interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    domctl->domain = domid;
    domctl->u.pml_op = *op;

    rc = xencall1(h->xcall, __HYPERVISOR_domctl, (unsigned long)domctl);
    *op = domctl->u.pml_op;

    {
        int saved = errno;

        xencall_free_buffer(h->xcall, domctl);
        errno = saved;
    }

    return rc < 0 ? -1 : 0;
}

int xenpml_enable(xenpml_handle *h, uint32_t domid,
                  const struct xenpml_options *options, uint32_t *refusal)
{
    struct xen_domctl_pml_op op = { .cmd = XEN_DOMCTL_pml_enable };
    int rc;

    if ( options )
        op.u.enable = (struct xen_domctl_pml_enable){
            .flags = options->flags,
            .slots = options->slots,
            .buffers = options->buffers,
            .rearm = options->rearm,
            .rearm_every = options->rearm_every,
            .pad = options->reserved,
        };
    else
        op.u.enable.rearm = XEN_PML_REARM_ROUND;

    rc = pml_op(h, domid, &op);
    if ( refusal )
        *refusal = rc ? op.refusal : XENPML_REFUSED_NOT;

    return rc;
}

int xenpml_disable(xenpml_handle *h, uint32_t domid)
{
    struct xen_domctl_pml_op op = { .cmd = XEN_DOMCTL_pml_disable };

    return pml_op(h, domid, &op);
}

/* Zeroed room for `maps` bitmaps, each of so many bytes. */
static uint8_t *get_bounce(xenpml_handle *h, size_t bytes, unsigned int maps)
{
    size_t pages = bytes / PAGE * maps;

    if ( pages > h->bounce_pages )
    {
        free_bounce(h);
        h->bounce = xencall_alloc_buffer_pages(h->xcall, pages);
        if ( !h->bounce )
            return NULL;
        h->bounce_pages = pages;
    }
    memset(h->bounce, 0, pages * PAGE);

    return h->bounce;
}

/* Room for all frames that were touched. */
static int get_touched(xenpml_handle *h, uint64_t total)
{
    uint64_t *more;

    if ( total <= h->touched_room )
        return 0;

    more = total <= SIZE_MAX / sizeof(*more)
           ? realloc(h->touched, total * sizeof(*more)) : NULL;
    if ( !more )
    {
        errno = ENOMEM;
        return -1;
    }
    h->touched = more;
    h->touched_room = total;

    return 0;
}

/*
 * The frames touched in a round which has been closed; the domain runs again.
 * If that fails, the rest of what is known of the round is lost as well.
 */
static int fetch_touched(xenpml_handle *h, uint32_t domid,
                         struct xenpml_round *round)
{
    struct xen_domctl_pml_op op = { .cmd = XEN_DOMCTL_pml_fetch };
    struct xen_domctl_pml_fetch *f = &op.u.fetch;

    if ( !h->chunk )
        h->chunk = xencall_alloc_buffer_pages(h->xcall, CHUNK_PAGES);
    if ( !h->chunk )
        return -1;

    do {
        f->round = round->round;
        f->first = round->touched_count;
        f->nr = CHUNK_WORDS;
        set_xen_guest_handle_raw(f->words, h->chunk);
        if ( pml_op(h, domid, &op) || get_touched(h, f->total) )
            return -1;

        if ( f->lost )
        {
            errno = ENOMEM;
            return -1;
        }
        if ( f->nr > CHUNK_WORDS || f->nr > f->total - round->touched_count ||
             (!f->nr && round->touched_count < f->total) )
        {
            errno = EPROTO;
            return -1;
        }

        if ( f->nr )
            memcpy(h->touched + round->touched_count, h->chunk,
                   f->nr * sizeof(*h->chunk));
        round->touched_count += f->nr;
    } while ( round->touched_count < f->total );

    round->touched = h->touched;

    return 0;
}

static void get_costs(xenpml_handle *h, uint32_t domid,
                      struct xenpml_round *round)
{
    struct xen_domctl_pml_op op = { .cmd = XEN_DOMCTL_pml_costs };
    const struct xen_domctl_pml_costs *c = &op.u.costs;

    /* Somebody may have switched the log off meanwhile: all 0 then. */
    if ( pml_op(h, domid, &op) )
        memset(&op.u.costs, 0, sizeof(op.u.costs));

    round->walk_tsc = c->walk_tsc;
    round->drain_tsc = c->drain_tsc;
    round->tables_tsc = c->tables_tsc;
    round->rearm_tsc = c->rearm_tsc;
    round->guided_tsc = c->guided_tsc;
    round->scan_tsc = c->scan_tsc;
    round->guided_tables = c->guided_tables;
    round->guided_entries = c->guided_entries;
    round->guided_frames = c->guided_frames;
    round->scan_frames = c->scan_frames;
    round->cleared = c->cleared;
    round->roots_dropped = c->roots_dropped;
    round->roots_stale = c->roots_stale;
    round->tables_dropped = c->tables_dropped;
    round->memory = c->memory;
}

int xenpml_close_round(xenpml_handle *h, uint32_t domid,
                       struct xenpml_round *round)
{
    struct xen_domctl_pml_op op = { .cmd = XEN_DOMCTL_pml_close_round };
    struct xen_domctl_pml_round *r = &op.u.round;
    unsigned int maps = !!round->dirty + !!round->accessed;
    size_t bytes;
    uint8_t *bounce = NULL;

    if ( maps && (!round->pages || round->pages % (PAGE * 8)) )
    {
        errno = EINVAL;
        return -1;
    }

    bytes = round->pages / 8;
    if ( maps )
    {
        bounce = get_bounce(h, bytes, maps);
        if ( !bounce )
            return -1;
    }

    r->flags = round->flags;
    r->pages = maps ? round->pages : 0;
    if ( round->dirty )
        set_xen_guest_handle_raw(r->dirty, bounce);
    if ( round->accessed )
        set_xen_guest_handle_raw(r->accessed, bounce + bytes * (maps - 1));

    round->touched = NULL;
    round->touched_count = 0;
    round->refusal = XENPML_REFUSED_NOT;
    round->reserved = 0;
    if ( pml_op(h, domid, &op) )
    {
        round->refusal = op.refusal;
        return -1;
    }

    if ( round->dirty )
        memcpy(round->dirty, bounce, bytes);
    if ( round->accessed )
        memcpy(round->accessed, bounce + bytes * (maps - 1), bytes);

    round->round = r->round;
    round->dirty_pages = r->dirty_pages;
    round->accessed_pages = r->accessed_pages;
    round->rearmed = r->rearmed;
    round->entries = r->entries;
    round->tables = r->tables;
    round->snapshots = r->snapshots;
    round->tsc_pause = r->tsc_pause;
    round->tsc_resume = r->tsc_resume;
    round->bitmap_failed = r->bitmap_failed;
    get_costs(h, domid, round);

    return round->flags & XENPML_ROUND_GUIDED ? fetch_touched(h, domid, round)
                                              : 0;
}

int xenpml_get_status(xenpml_handle *h, uint32_t domid,
                      struct xenpml_status *status)
{
    struct xen_domctl_pml_op op = { .cmd = XEN_DOMCTL_pml_status };
    const struct xen_domctl_pml_status *s = &op.u.status;

    if ( pml_op(h, domid, &op) )
        return -1;

    *status = (struct xenpml_status){
        .state = s->state,
        .refusal = op.refusal,
        .options = {
            .flags = s->options.flags,
            .slots = s->options.slots,
            .buffers = s->options.buffers,
            .rearm = s->options.rearm,
            .rearm_every = s->options.rearm_every,
        },
        .round = s->round,
        .vcpus = s->vcpus,
        .generation = s->generation,
        .tsc_khz = s->tsc_khz,
        .max_gfn = s->max_gfn,
        .entries = s->entries,
        .overwritten = s->overwritten,
        .rearmed = s->rearmed,
        .tables = s->tables,
        .bitmap_failed = s->bitmap_failed,
        .superpages = s->superpages,
        .bitmap_pages = s->bitmap_pages,
        .memory = s->memory,
    };

    return 0;
}

int xenpml_get_vcpu_status(xenpml_handle *h, uint32_t domid, uint32_t vcpu,
                           struct xenpml_vcpu_status *status)
{
    struct xen_domctl_pml_op op = {
        .cmd = XEN_DOMCTL_pml_vcpu_status,
        .u.vcpu.vcpu = vcpu,
    };
    const struct xen_domctl_pml_vcpu *s = &op.u.vcpu;

    if ( pml_op(h, domid, &op) )
        return -1;

    *status = (struct xenpml_vcpu_status){
        .exits = s->exits,
        .exit_tsc = s->exit_tsc,
        .drains = s->drains,
        .drain_tsc = s->drain_tsc,
        .deferred = s->deferred,
        .waited = s->waited,
        .entries = s->entries,
        .dropped = s->dropped,
        .overwritten = s->overwritten,
        .rearmed = s->rearmed,
    };

    return 0;
}

const char *xenpml_refusal_text(uint32_t refusal)
{
    static const char *const texts[] = {
        [XENPML_REFUSED_NOT] = "it can be logged",
        [XENPML_REFUSED_PV] =
            "it is a PV guest: only HVM and PVH guests have EPT",
        [XENPML_REFUSED_SHADOW] = "it uses shadow paging (hap=0), not EPT",
        [XENPML_REFUSED_NO_CPU] =
            "this CPU has no Page Modification Logging",
        [XENPML_REFUSED_NO_PML_OPTION] = "Xen was booted with ept=no-pml",
        [XENPML_REFUSED_DEVICES] =
            "it has assigned devices, whose writes are not logged",
        [XENPML_REFUSED_DYING] = "it is being destroyed",
        [XENPML_REFUSED_MIGRATING] =
            "its log-dirty mode is in use (migration?)",
        [XENPML_REFUSED_NESTED] = "it may run nested guests",
        [XENPML_REFUSED_ALTP2M] = "it uses alternate p2m views",
        [XENPML_REFUSED_IOREQ] = "it has pages of type p2m_ioreq_server",
        [XENPML_REFUSED_SELF] = "a domain cannot log itself",
        [XENPML_REFUSED_NO_VCPUS] = "not all of its vCPUs exist yet",
        [XENPML_REFUSED_ACTIVE] = "it is being logged already",
        [XENPML_REFUSED_MEMORY] = "Xen has too little free memory for the log: "
            "ask for a smaller ring, or free some (xl mem-set)",
        [XENPML_REFUSED_POOL] = "its memory for paging is too small for the "
            "log: set shadow_memory higher in its configuration, and start it "
            "again",
    };

    return refusal < sizeof(texts) / sizeof(texts[0]) ? texts[refusal]
                                                      : "unknown reason";
}

xenpml_log *xenpml_log_map(xenpml_handle *h, uint32_t domid, uint32_t vcpu)
{
    xenforeignmemory_resource_handle *resource;
    size_t size;
    void *memory = NULL;
    xenpml_log *log;

    if ( xenforeignmemory_resource_size(h->fmem, domid, XENMEM_resource_pml_log,
                                        vcpu, &size) )
        return NULL;

    resource = xenforeignmemory_map_resource(
        h->fmem, domid, XENMEM_resource_pml_log, vcpu, 0, size / PAGE,
        &memory, PROT_READ, 0);
    if ( !resource )
        return NULL;

    log = xenpml_log_attach(memory, size);
    if ( !log )
    {
        int saved = errno;

        xenforeignmemory_unmap_resource(h->fmem, resource);
        errno = saved;
        return NULL;
    }

    log->fmem = h->fmem;
    log->resource = resource;

    return log;
}

int xenpml_log_unmap(xenpml_log *log)
{
    int rc = 0;

    if ( !log )
        return 0;

    if ( log->resource )
        rc = xenforeignmemory_unmap_resource(log->fmem, log->resource);
    free(log);

    return rc;
}

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

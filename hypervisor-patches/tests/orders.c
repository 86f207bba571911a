/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two callers: one clears the log-dirty bitmap of a domain without the domctl
 * lock, the other one begins a log of it.  The functions of xen's paging.c are
 * as they are in the tree; what is below them is of here.  Whatever the order
 * of the steps: what is marked once the log has begun is in its bitmap.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(x)                                                        \
    do {                                                                \
        if ( !(x) )                                                     \
        {                                                               \
            fprintf(stderr, "orders.c:%d: %s\n", __LINE__, #x);         \
            abort();                                                    \
        }                                                               \
    } while ( 0 )

/****************** What is below paging.c ******************/

#define ERESTART 85
#define PAGE_SIZE 4096
#define LOGDIRTY_NODE_ENTRIES 512
#define likely(x) (x)
#define unlikely(x) (x)
#define ASSERT(x) CHECK(x)
#define PAGING_DEBUG(args...) ((void)0)
#define printk(args...) ((void)0)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define XEN_DOMCTL_SHADOW_OP_CLEAN 11
#define XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL 1
typedef bool bool_t;
typedef unsigned long mfn_t;
#define INVALID_MFN (~0UL)
#define mfn_eq(a, b) ((a) == (b))

struct domain {
    int paused;
    bool locked, logged, log_dirty;
    struct {
        struct {
            struct {
                struct domain *dom;
                unsigned int op;
                struct {
                    unsigned int i3, i4;
                    unsigned long done;
                } log_dirty;
            } preempt;
            struct {
                mfn_t top;
                unsigned long fault_count, dirty_count;
                unsigned int failed_allocs;
                const struct {
                    void (*clean)(struct domain *d);
                } *ops;
            } log_dirty;
        } paging;
    } arch;
};

struct xen_domctl_shadow_op {
    uint32_t op, mode;
    uint64_t pages;
    struct {
        uint32_t fault_count, dirty_count;
    } stats;
    bool dirty_bitmap;
};

static struct domain dom0, guest;
static struct {
    struct domain *domain;
} here = { &dom0 }, *current = &here;

/* A bitmap of one leaf, which is not in its first piece. */
static unsigned long bitmap[4][PAGE_SIZE / sizeof(long)];
#define map_domain_page(m) ((void *)bitmap[m])
#define unmap_domain_page(p) ((void)(p))
#define clear_page(p) memset(p, 0, PAGE_SIZE)
#define paging_map_log_dirty_bitmap(d) \
    ((d)->log_dirty ? map_domain_page((d)->arch.paging.log_dirty.top) : NULL)

/* Other things of the caller's can take place at each of these. */
static void point(void);

static void paging_lock(struct domain *d)
{
    point();
    CHECK(!d->locked);
    d->locked = true;
}

static void paging_unlock(struct domain *d)
{
    CHECK(d->locked);
    d->locked = false;
    point();
}

#define domain_pause(d) ((void)(d)->paused++, point())
#define domain_unpause(d) ((void)(d)->paused--, point())
#define p2m_flush_hardware_cached_dirty(d) point()
#define hvm_mapped_guest_frames_mark_dirty(d) point()
#define hypercall_preempt_check() true
#define is_hvm_domain(d) true
#define guest_handle_is_null(h) (!(h))
#define copy_to_guest_offset(h, at, from, bytes) ((void)(from), 0)
#define clear_guest_offset(h, at, bytes) 0
#define pml_excludes(d, op) ((d)->logged)

static int enable(struct domain *d)
{
    d->log_dirty = true;

    return 0;
}
#define paging_log_dirty_enable(d, ...) enable(d)

#include "paging.c"

/****************** The log begins ******************/

/* See pml_domctl().  The domain's backends mark pages even while it is paused. */
enum step { ASK, PUBLISH, START, BACKEND, WRITE, CLOSE, DONE };
static enum step next;
static bool running, refused, lost;

/* One step, if it is possible by now. */
static void proceed(struct domain *d)
{
    if ( d->locked || (next == WRITE && d->paused) )
        return;

    switch ( next++ )
    {
    case ASK:
        refused = d->log_dirty || d->arch.paging.preempt.dom;
        break;

    case PUBLISH:
        d->logged = true;
        break;

    case START:
        refused = paging_log_dirty_start(d);
        d->logged = !refused;
        break;

    case BACKEND:
        bitmap[3][0] |= 1;
        break;

    case WRITE:
        bitmap[3][0] |= 2;
        break;

    case CLOSE:
        lost = bitmap[3][0] != 3;
        break;

    case DONE:
        next = DONE;
    }

    if ( refused )
        next = DONE;
}

/* So many steps at each of the other caller's points. */
#define POINTS 20
static unsigned int steps[POINTS], at;

static void point(void)
{
    unsigned int i;

    if ( running )
        return;

    running = true;
    for ( i = at < POINTS ? steps[at] : 0; i; i-- )
        proceed(&guest);
    running = false;
    at++;
}

/****************** The bitmap is cleared ******************/

static void clean(struct domain *d)
{
    point();
}

static const typeof(*guest.arch.paging.log_dirty.ops) ops = { clean };

static void clear(struct domain *d)
{
    struct xen_domctl_shadow_op op = {
        .op = XEN_DOMCTL_SHADOW_OP_CLEAN,
        .pages = 2UL * LOGDIRTY_NODE_ENTRIES * PAGE_SIZE * 8,
    };
    bool resuming = false;
    int rc;

    point();
    /* See paging_domctl(). */
    if ( d->arch.paging.preempt.dom || pml_excludes(d, op.op) )
        return;

    do {
        point();
        rc = paging_log_dirty_op(d, &op, resuming);
        CHECK(!rc || rc == -ERESTART || (rc == -EBUSY && !resuming));
        resuming = true;
    } while ( rc == -ERESTART );
}

static void try(struct domain *d)
{
    unsigned int i;

    memset(d, 0, sizeof(*d));
    d->arch.paging.log_dirty.ops = &ops;
    memset(bitmap, 0xff, 3 * PAGE_SIZE);
    memset(bitmap[3], 0, PAGE_SIZE);
    bitmap[0][0] = 1;
    bitmap[1][1] = 2;
    bitmap[2][0] = 3;
    next = ASK;
    refused = lost = false;
    at = 0;

    clear(d);
    for ( i = 0; i < DONE; i++ )
        proceed(d);
    CHECK(next == DONE && !d->paused && !d->locked && at < POINTS);
}

/* Have each step take place at each point, in their order. */
static unsigned long orders, losses, refusals;

static void try_from(enum step step, unsigned int first)
{
    if ( step == DONE )
    {
        try(&guest);
        orders++;
        losses += lost;
        refusals += refused;
        return;
    }

    for ( ; first < POINTS; first++ )
    {
        steps[first]++;
        try_from(step + 1, first);
        steps[first]--;
    }
}

int main(void)
{
    try_from(ASK, 0);
    printf("%lu orders, %lu refuse the log, %lu lose a page of it\n", orders,
           refusals, losses);

    return losses != 0;
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Operations on a domain's log, as dom0 calls them: preempted anywhere, by two
 * callers at once, by callers that are gone.  The domain is never left paused,
 * nobody gets what another one asked for, and all memory comes back.
 */
#include <xsm/xsm.h>

#include "private.h"

#define LEAVES 4U
#define VCPUS 3U
#define FRAMES 5000U           /* that a guided round touches */
#define TABLES 5000U           /* bytes, of what is known of page tables */
#define GUIDED (XEN_PML_OPT_TABLES | XEN_PML_OPT_ACCESSED)

static struct domain dom0 = { .domain_id = 0 }, other = { .domain_id = 1 };
static struct current here = { &dom0 };
struct current *current = &here;

static unsigned int taken_at_once, rearmed_at_once, most_rearmed;

static bool never(void)
{
    taken_at_once = rearmed_at_once = 0;

    return false;
}

/* Preempted at each chance. */
static bool always(void)
{
    taken_at_once = rearmed_at_once = 0;

    return true;
}

bool (*mock_preempt)(void) = never;

/****************** What operations find below them ******************/

static unsigned long bitmap[LEAVES * PAGE_SIZE / sizeof(long)];
static bool freed_some;        /* switching log-dirty mode off was preempted */
static unsigned int noted, known;
static unsigned int frames = FRAMES;

void pml_take(struct vcpu *v)
{
    CHECK(v->domain->paused, "taken from a domain that runs");
    CHECK(v->domain->log_dirty, "no buffers");
    v->domain->taken++;
    CHECK(!taken_at_once++, "not preemptible");
}

void pml_drain_taken(struct vcpu *v, unsigned int reason)
{
}

void pml_drain_tasklet(void *data)
{
}

int pml_alloc_tables(struct domain *d, struct pml_domain *pml)
{
    known = 3;
    if ( pml->options.flags & XEN_PML_OPT_TABLES )
        pml->tables = pml_get(&pml->held, TABLES);

    return !(pml->options.flags & XEN_PML_OPT_TABLES) || pml->tables ? 0
                                                                     : -ENOMEM;
}

/* As many pieces as there is known of frames. */
bool pml_free_tables(struct pml_domain *pml, unsigned int budget)
{
    const struct domain *d = pml->domain;
    unsigned int i;

    CHECK(budget, "goes on for ever");
    for ( i = 0; i < d->max_vcpus; i++ )
        CHECK(!d->vcpu[i]->arch.hvm.vmx.pml_logged, "in use");
    if ( known )
    {
        known--;
        return false;
    }
    pml_put(&pml->held, pml->tables, TABLES);
    pml->tables = NULL;

    return true;
}

unsigned int pml_nr_tables(const struct pml_domain *pml)
{
    return 0;
}

/* Ten pieces. */
int pml_walk_tables(struct domain *d, struct pml_domain *pml)
{
    if ( noted++ < 10 && mock_preempt() )
        return -ERESTART;
    noted = 0;

    return 0;
}

int pml_snapshots(struct domain *d, struct pml_domain *pml)
{
    return 0;
}

/* Three pieces. */
int pml_tables_round(struct pml_domain *pml, bool armed)
{
    CHECK(pml->domain->paused, "runs");
    if ( ++pml->at < 3 && mock_preempt() )
        return -ERESTART;
    pml->at = 0;

    return 0;
}

void pml_watch_cr3(struct domain *d, struct pml_domain *pml, bool watch)
{
}

/* As in harvest.c, but for what is accessed. */
unsigned long pml_leaves_end(const struct xen_domctl_pml_round *op,
                             bool accessed)
{
    return op && op->dirty.p ? op->pages : ~0UL;
}

void pml_copy_leaf(struct pml_domain *pml,
                   const struct xen_domctl_pml_round *op, bool accessed,
                   unsigned long pfn)
{
    CHECK(!accessed && !(pfn % PAGES_PER_LEAF), "%lx", pfn);
    if ( op && op->dirty.p && pfn < op->pages )
        pml->fault |= copy_to_guest_offset(op->dirty, pfn / 8,
                                           (uint8_t *)pml->leaf, PAGE_SIZE);
}

int pml_check_scan(const struct pml_domain *pml,
                   const struct xen_domctl_pml_round *op)
{
    return 0;
}

int pml_close_accessed(struct domain *d, struct pml_domain *pml,
                       const struct xen_domctl_pml_round *op)
{
    return 0;
}

int pml_alloc_touched(const struct domain *d, struct pml_domain *pml)
{
    if ( (pml->options.flags & XEN_PML_OPT_ACCESSED) && pml->tables )
    {
        pml->touched.words = pml_get(&pml->held, TOUCHED_BYTES);
        return pml->touched.words ? 0 : -ENOMEM;
    }

    return 0;
}

void pml_free_touched(struct pml_domain *pml)
{
    pml_put(&pml->held, pml->touched.words, TOUCHED_BYTES);
    pml->touched.words = NULL;
}

void pml_touched_flush(struct pml_domain *pml)
{
    pml_spool_put(&pml->spool, pml->touched.words, pml->touched.nr);
    pml->touched.nr = 0;
}

void pml_touched_room(struct pml_domain *pml)
{
    if ( pml->touched.nr + 512 > TOUCHED_WORDS )
        pml_touched_flush(pml);
}

void pml_touched_logged(struct domain *d, struct pml_domain *pml,
                        uint64_t *entries, unsigned int nr)
{
}

int pml_close_guide(struct domain *d, struct pml_domain *pml)
{
    return 0;
}

/* Frames 7, 8, 9 and so on. */
int pml_close_guided(struct domain *d, struct pml_domain *pml)
{
    while ( pml->at < frames )
    {
        unsigned int i, nr = min(512UL, frames - pml->at);

        pml_touched_room(pml);
        for ( i = 0; i < nr; i++ )
            pml->touched.words[pml->touched.nr++] =
                ((7 + pml->at + i) << 12) | XEN_PML_KIND_ACCESSED;
        pml->at += nr;
        if ( mock_preempt() )
            return -ERESTART;
    }
    pml->at = 0;

    return 0;
}

int pml_close_unpaged(struct domain *d, struct pml_domain *pml)
{
    pml_touched_flush(pml);

    return 0;
}

/* Which pages have been re-armed, since this was cleared. */
static uint8_t rearmed[LEAVES * PAGES_PER_LEAF];

unsigned int ept_pml_rearm(struct p2m_domain *p2m, const uint64_t *entries,
                           unsigned int nr)
{
    unsigned int i;

    for ( i = 0; i < nr; i++ )
        rearmed[entries[i] >> PAGE_SHIFT]++;
    rearmed_at_once += nr;
    most_rearmed = max(most_rearmed, rearmed_at_once);

    return nr;
}

/* As the domain's memory is mapped now, by regions of 2 MiB. */
#define REGIONS (LEAVES * PAGES_PER_LEAF >> PAGE_ORDER_2M)
static uint8_t mapped[REGIONS];
static bool huge;                     /* all is of 1 GiB to begin with */
static unsigned int most_at_once;     /* entries written by one split */

/* Which regions have been armed since the domain was made. */
static bool armed[REGIONS];

void ept_pml_rearm_region(struct p2m_domain *p2m, unsigned long gfn)
{
    CHECK(spin_is_locked(&p2m->lock), "the p2m is not locked");
    CHECK(!mapped[gfn >> PAGE_ORDER_2M], "%lx is not split", gfn);
    armed[gfn >> PAGE_ORDER_2M] = true;
}

unsigned long ept_pml_next(struct p2m_domain *p2m, unsigned long gfn)
{
    return gfn;
}

static int start_rc;

int paging_log_dirty_start(struct domain *d)
{
    CHECK(d->p2m.pml_logged && d->paused, "not yet");
    if ( start_rc )
        return start_rc;
    d->log_dirty = true;
    /* Each vCPU's first buffer. */
    d->write_protects = !mock_may(MOCK_POOL);

    return 0;
}

/* Two pieces. */
int paging_log_dirty_stop(struct domain *d, bool resuming)
{
    CHECK(resuming == freed_some, "resuming %d", resuming);
    CHECK(d->log_dirty != resuming, "switched off twice");
    d->log_dirty = d->write_protects = false;
    freed_some = !resuming && mock_preempt();

    return freed_some ? -ERESTART : 0;
}

void paging_log_dirty_adopt(struct domain *d)
{
    freed_some = false;
}

unsigned int pml_swap_buffer(struct vcpu *v, struct page_info *pg)
{
    return 0;
}

bool pml_in_cpu(void)
{
    return true;
}

bool pml_dirty_leaf(struct domain *d, unsigned long *pfn, unsigned long max_pfn,
                    unsigned long *buf, unsigned int *nr, bool clear)
{
    unsigned long i = DIV_ROUND_UP(*pfn, PAGES_PER_LEAF), k;
    unsigned long *leaf = bitmap + i * (PAGE_SIZE / sizeof(long));

    if ( i >= LEAVES )
        return false;

    *pfn = i * PAGES_PER_LEAF;
    memcpy(buf, leaf, PAGE_SIZE);
    for ( *nr = k = 0; k < PAGE_SIZE / sizeof(long); k++ )
        *nr += __builtin_popcountl(leaf[k]);
    if ( clear )
        memset(leaf, 0, PAGE_SIZE);

    return true;
}

static unsigned int bitmap_failed;

unsigned int pml_dirty_failed(struct domain *d, bool reset)
{
    return bitmap_failed;
}

static int recalc_rc;

static int recalc(struct p2m_domain *p2m, unsigned long gfn)
{
    return gfn ? recalc_rc : 0;
}

static mfn_t get_entry(struct p2m_domain *p2m, gfn_t gfn, p2m_type_t *t,
                       p2m_access_t *a, unsigned int q, unsigned int *order,
                       bool *sve)
{
    *t = p2m_ram_logdirty;
    *a = 0;
    *order = mapped[gfn >> PAGE_ORDER_2M];

    return NULL;
}

/* Split down to this: takes a page of the pool for each table. */
static int set_entry(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                     unsigned int order, p2m_type_t t, p2m_access_t a, int sve)
{
    unsigned int i = gfn >> PAGE_ORDER_2M, was = mapped[i], nr = 0;

    if ( !mock_may(MOCK_POOL) )
        return -ENOMEM;

    CHECK(was > order, "split of %lu from %u to %u", (unsigned long)gfn, was,
          order);
    if ( was > PAGE_ORDER_2M )
    {
        /* All of it is of the next level now, this region as it was asked. */
        memset(mapped, PAGE_ORDER_2M, sizeof(mapped));
        nr += 512;
    }
    if ( order < PAGE_ORDER_2M )
    {
        mapped[i] = order;
        nr += 512;
    }
    most_at_once = max(most_at_once, nr);

    return 0;
}

/****************** A domain, and calls ******************/

static struct page_info *pool_alloc(struct domain *d)
{
    struct page_info *pg;

    if ( !mock_may(MOCK_POOL) )
        return NULL;

    mock_pool++;
    mock_held += PAGE_SIZE;
    pg = calloc(1, sizeof(*pg) + PAGE_SIZE);
    pg->words = memset(pg + 1, 0xa5, PAGE_SIZE);

    return pg;
}

static void pool_free(struct domain *d, struct page_info *pg)
{
    mock_pool--;
    mock_held -= PAGE_SIZE;
    free(pg);
}

static struct domain *make(void)
{
    struct domain *d = calloc(1, sizeof(*d));
    unsigned int i;

    d->domain_id = 5;
    d->max_vcpus = VCPUS;
    d->tot_pages = d->max_pages = 8000;
    d->vcpu = calloc(VCPUS, sizeof(*d->vcpu));
    for ( i = 0; i < VCPUS; i++ )
    {
        d->vcpu[i] = calloc(1, sizeof(*d->vcpu[i]));
        d->vcpu[i]->domain = d;
        d->vcpu[i]->vcpu_id = i;
    }
    d->p2m.domain = d;
    d->p2m.max_mapped_pfn = LEAVES * PAGES_PER_LEAF - 1;
    d->p2m.recalc = recalc;
    d->p2m.get_entry = get_entry;
    d->p2m.set_entry = set_entry;
    memset(mapped, huge ? 18 : PAGE_ORDER_2M, sizeof(mapped));
    memset(armed, 0, sizeof(armed));
    d->arch.paging.alloc_page = pool_alloc;
    d->arch.paging.free_page = pool_free;

    return d;
}

/* Everything is as it was before logging. */
static void untouched(struct domain *d)
{
    unsigned int i;

    CHECK(!d->paused, "left paused");
    CHECK(!d->arch.hvm.pml && !d->arch.hvm.pml_frames, "left");
    CHECK(!d->p2m.pml_logged && !d->p2m.pml_harvested, "the p2m");
    CHECK(!d->log_dirty && !freed_some, "log-dirty mode");
    CHECK(!mock_allocated && !mock_pool && !mock_held,
          "left: %ld allocations, %ld pages, %ld bytes", mock_allocated,
          mock_pool, mock_held);
    for ( i = 0; i < VCPUS; i++ )
        CHECK(!d->vcpu[i]->arch.hvm.vmx.pml_logged, "a vCPU still thinks so");
}

static void unmake(struct domain *d)
{
    unsigned int i;

    untouched(d);
    for ( i = 0; i < VCPUS; i++ )
        free(d->vcpu[i]);
    free(d->vcpu);
    free(d);
}

/* Somebody in a domain, and memory that his call is read from. */
struct caller {
    struct domain *domain, *from;
    struct xen_domctl call;
};

static struct caller caller(struct domain *d, struct domain *from, uint32_t cmd)
{
    struct caller c = { .domain = d, .from = from };

    c.call.u.pml_op.cmd = cmd;
    c.call.u.pml_op.u.enable.rearm =
        cmd == XEN_DOMCTL_pml_enable ? XEN_PML_REARM_ROUND : 0;

    return c;
}

/* What is held is what was given out, to the byte, whatever goes on. */
static void check_memory(const struct domain *d)
{
    const struct pml_domain *pml = d->arch.hvm.pml;
    long held = pml ? pml_memory(pml) : 0;

    CHECK(held == mock_held, "%ld held, %ld given out", held, mock_held);
}

/* One entry to Xen: -ERESTART if there has to be another one. */
static int enter(struct caller *c)
{
    struct xen_domctl domctl = c->call;
    XEN_GUEST_HANDLE(xen_domctl_t) h = { .p = &c->call };
    int rc;

    here.domain = c->from;
    rc = pml_domctl(c->domain, &domctl, h);
    here.domain = &dom0;
    CHECK(!mock_locked, "locked");
    check_memory(c->domain);

    if ( rc != -ERESTART )
    {
        c->call = domctl;
        /* There may be others at it, but they are in continuations. */
        if ( !c->domain->arch.hvm.pml || !c->domain->arch.hvm.pml->op.cmd )
            CHECK(!c->domain->paused, "back in user space with it paused: %d",
                  rc);
    }

    return rc;
}

static int finish(struct caller *c)
{
    int rc;

    while ( (rc = enter(c)) == -ERESTART )
        continue;

    return rc;
}

static int call(struct domain *d, uint32_t cmd)
{
    struct caller c = caller(d, &dom0, cmd);

    return finish(&c);
}

static struct caller enabling(struct domain *d, unsigned int flags)
{
    struct caller c = caller(d, &dom0, XEN_DOMCTL_pml_enable);

    c.call.u.pml_op.u.enable.flags = flags;

    return c;
}

static struct domain *logged(unsigned int flags)
{
    struct domain *d = make();
    struct caller c = enabling(d, flags);
    int rc = finish(&c);

    CHECK(!rc, "%d", rc);
    CHECK(d->p2m.pml_logged, "the p2m does not know");
    CHECK(!memchr(armed, 0, sizeof(armed)), "not all is armed");
    CHECK(d->p2m.pml_harvested == !!(flags & XEN_PML_OPT_ACCESSED), "harvest");
    CHECK(c.call.u.pml_op.u.enable.buffers == 2, "defaults are not told");

    return d;
}

static struct xen_domctl_pml_status status(struct domain *d)
{
    struct caller c = caller(d, &dom0, XEN_DOMCTL_pml_status);

    CHECK(!finish(&c), "status");

    return c.call.u.pml_op.u.status;
}

static uint32_t state(struct domain *d)
{
    return status(d).state;
}

static void off(struct domain *d)
{
    int rc = call(d, XEN_DOMCTL_pml_disable);

    CHECK(!rc, "%d", rc);
    unmake(d);
}

static struct caller closing(struct domain *d, struct domain *from,
                             uint8_t *dirty, unsigned int flags)
{
    struct caller c = caller(d, from, XEN_DOMCTL_pml_close_round);
    struct xen_domctl_pml_round *r = &c.call.u.pml_op.u.round;

    r->flags = flags;
    r->dirty.p = dirty;
    r->pages = dirty ? LEAVES * PAGES_PER_LEAF : 0;

    return c;
}

/* So many pages are dirty in each leaf. */
static void dirty_pages(unsigned int nr)
{
    unsigned int i, k;

    for ( i = 0; i < LEAVES; i++ )
        for ( k = 0; k < nr; k++ )
            bitmap[i * (PAGE_SIZE / sizeof(long)) + k] |= 1;
}

static unsigned int count(const uint8_t *map)
{
    unsigned int i, nr = 0;

    for ( i = 0; i < LEAVES * PAGE_SIZE; i++ )
        nr += __builtin_popcount(map[i]);

    return nr;
}

/****************** Two callers ******************/

/* At each point at which the first one's call is interrupted. */
static void test_two_closings(void)
{
    struct domain *d = logged(0);
    unsigned int others = 0;
    static uint8_t a[LEAVES * PAGE_SIZE], b[LEAVES * PAGE_SIZE];
    struct caller first = closing(d, &dom0, a, 0);
    int rc;

    dirty_pages(12);
    mock_preempt = always;
    while ( (rc = enter(&first)) == -ERESTART )
    {
        struct caller second = closing(d, others % 2 ? &other : &dom0, b, 0);

        rc = enter(&second);
        CHECK(rc == -EBUSY, "the second one: %d", rc);
        CHECK(second.call.u.pml_op.refusal == XEN_PML_REFUSED_ACTIVE, "why");
        others++;
    }
    mock_preempt = never;

    CHECK(!rc && others > LEAVES, "%d, %u", rc, others);
    CHECK(first.call.u.pml_op.u.round.round == 0, "round");
    CHECK(first.call.u.pml_op.u.round.dirty_pages == 12 * LEAVES, "all of it");
    CHECK(count(a) == 12 * LEAVES && !count(b), "%u, %u", count(a), count(b));

    off(d);
}

static void test_two_enablings(void)
{
    struct domain *d = make();
    struct caller first = enabling(d, XEN_PML_OPT_TABLES);
    struct caller second;
    int rc;

    mock_preempt = always;
    while ( (rc = enter(&first)) == -ERESTART )
    {
        second = enabling(d, XEN_PML_OPT_ACCESSED);
        rc = enter(&second);
        CHECK(rc == -EBUSY, "%d", rc);
        CHECK(call(d, XEN_DOMCTL_pml_close_round) == -EBUSY, "closed");
    }
    mock_preempt = never;
    CHECK(!rc, "%d", rc);
    CHECK(first.call.u.pml_op.u.enable.flags == XEN_PML_OPT_TABLES, "whose");

    second = enabling(d, 0);
    CHECK(enter(&second) == -EBUSY, "logged");
    off(d);
}

/* What is asked for first counts, whatever becomes of the caller's memory. */
static void test_asked_once(void)
{
    struct domain *d = logged(0);
    static uint8_t a[LEAVES * PAGE_SIZE], b[LEAVES * PAGE_SIZE];
    struct caller c = closing(d, &dom0, a, 0);
    int rc;

    memset(a, 0, sizeof(a));
    memset(b, 0, sizeof(b));
    dirty_pages(3);
    mock_preempt = always;
    while ( (rc = enter(&c)) == -ERESTART )
    {
        struct xen_domctl_pml_round *r = &c.call.u.pml_op.u.round;

        memset(r, 0xa5, sizeof(*r));
        r->dirty.p = b;
    }
    mock_preempt = never;
    CHECK(!rc, "%d", rc);
    CHECK(count(a) == 3 * LEAVES && !count(b), "%u and %u", count(a), count(b));
    CHECK(c.call.u.pml_op.u.round.dirty.p == a && !c.call.u.pml_op.cookie,
          "handed back");
    off(d);
}

static void test_cookies(void)
{
    struct domain *d = logged(0);
    struct caller c = closing(d, &dom0, NULL, 0), forged;

    mock_preempt = always;
    CHECK(enter(&c) == -ERESTART && c.call.u.pml_op.cookie, "none");

    forged = c;
    forged.call.u.pml_op.cookie++;
    CHECK(enter(&forged) == -ENOENT, "another one's");
    forged = c;
    forged.from = &other;
    CHECK(enter(&forged) == -ENOENT, "from elsewhere");
    forged = c;
    forged.call.u.pml_op.cmd = XEN_DOMCTL_pml_disable;
    CHECK(enter(&forged) == -ENOENT, "of another operation");

    forged = c;
    CHECK(!finish(&c), "the right one");
    CHECK(enter(&forged) == -ENOENT, "of one that is over");
    mock_preempt = never;
    off(d);
}

/* What goes on meanwhile may be of the same kind: it is not the caller's. */
static void test_broken_off_by_the_same(void)
{
    struct domain *d = make();
    struct caller first = enabling(d, GUIDED), second = enabling(d, GUIDED);

    mock_preempt = always;
    CHECK(enter(&first) == -ERESTART, "not interrupted");
    CHECK(!call(d, XEN_DOMCTL_pml_disable), "off");
    CHECK(enter(&second) == -ERESTART, "not interrupted");
    CHECK(enter(&first) == -ENOENT, "goes on with another one's");
    CHECK(first.call.u.pml_op.refusal == XEN_PML_REFUSED_NOT, "why");
    CHECK(!finish(&second), "it is all the same to it");
    mock_preempt = never;
    off(d);
}

/****************** Callers that are gone ******************/

/* Its domain has died: nothing of it comes any more. */
static void test_not_continued(void)
{
    struct domain *d = logged(0);
    struct caller c = closing(d, &dom0, NULL, 0), late;
    int rc;

    mock_preempt = always;
    CHECK(enter(&c) == -ERESTART && d->paused, "held");
    mock_pass(SECONDS(9));
    CHECK(d->paused, "too early");
    CHECK(enter(&c) == -ERESTART && d->paused, "in time");
    mock_pass(SECONDS(9));
    CHECK(d->paused, "each piece has its own time");
    late = closing(d, &dom0, NULL, 0);
    CHECK(enter(&late) == -EBUSY, "others do not prolong it");
    mock_pass(SECONDS(2));
    CHECK(!d->paused, "left paused");
    mock_preempt = never;

    CHECK(state(d) == XEN_PML_STATE_BROKEN, "state");
    CHECK(enter(&c) == -ENOENT, "it comes after all");
    late = closing(d, &dom0, NULL, 0);
    CHECK((rc = enter(&late)) == -ETIME, "%d", rc);
    late = enabling(d, 0);
    CHECK((rc = enter(&late)) == -EBUSY, "%d", rc);
    CHECK(!call(d, XEN_DOMCTL_pml_disable), "taken over");
    untouched(d);
    late = enabling(d, 0);
    CHECK(!finish(&late), "as new");
    off(d);
}

/* The call cannot be continued as its memory is gone. */
static void test_no_memory_to_continue(void)
{
    struct domain *d = logged(0);
    struct caller c = closing(d, &dom0, NULL, 0);

    mock_preempt = always;
    mock_fault = true;
    CHECK(enter(&c) == -EFAULT && !d->paused, "left paused");
    mock_fault = false;
    mock_preempt = never;
    CHECK(state(d) == XEN_PML_STATE_BROKEN, "state");
    off(d);
}

/* XEN_DOMCTL_pml_disable at each point, by somebody else, interrupted too. */
static void test_disable_breaks_off(uint32_t cmd, unsigned int flags)
{
    unsigned int after, left = 1;

    for ( after = 1; left; after++ )
    {
        struct domain *d = cmd == XEN_DOMCTL_pml_enable ? make()
                                                        : logged(flags);
        struct caller c, killer = caller(d, &other, XEN_DOMCTL_pml_disable);
        unsigned int i;
        int rc = -ERESTART;

        c = cmd == XEN_DOMCTL_pml_enable ? enabling(d, flags) :
            cmd == XEN_DOMCTL_pml_close_round
            ? closing(d, &dom0, NULL, XEN_PML_ROUND_GUIDED)
            : caller(d, &dom0, cmd);

        mock_preempt = always;
        for ( i = 0; rc == -ERESTART && i < after; i++ )
            rc = enter(&c);
        left = rc == -ERESTART;
        if ( left )
        {
            const struct caller stopped = c;

            do {
                rc = enter(&killer);
                /* The first one learns of it at once: nothing of it is left. */
                c = stopped;
                CHECK(enter(&c) == -ENOENT, "%u: %d", after, rc);
                CHECK(c.call.u.pml_op.refusal == XEN_PML_REFUSED_NOT, "why");
            } while ( rc == -ERESTART );
            CHECK(!rc, "%u: %d", after, rc);
        }
        else if ( cmd != XEN_DOMCTL_pml_disable )
            CHECK(!call(d, XEN_DOMCTL_pml_disable), "%d", rc);
        mock_preempt = never;
        unmake(d);
    }
    CHECK(after > 5, "%u", after);
}

/* The same when enabling has failed, and is being undone. */
static void test_undoing_broken_off(void)
{
    unsigned int after, left = 1;

    recalc_rc = -ENOMEM;
    for ( after = 1; left; after++ )
    {
        struct domain *d = make();
        struct caller c = enabling(d, GUIDED);
        struct caller killer = caller(d, &other, XEN_DOMCTL_pml_disable);
        unsigned int i;
        int rc = -ERESTART;

        mock_preempt = always;
        for ( i = 0; rc == -ERESTART && i < after; i++ )
            rc = enter(&c);
        left = rc == -ERESTART;
        if ( left )
            rc = finish(&killer);
        CHECK(rc == (left ? 0 : -ENOMEM), "%u: %d", after, rc);
        CHECK(!left || enter(&c) == -ENOENT, "%u: not over", after);
        mock_preempt = never;
        unmake(d);
    }
    CHECK(after > 10, "%u", after);
    recalc_rc = 0;
}

/* Who disables may be gone, too: the next one goes on where he was. */
static void test_many_disablers(void)
{
    struct domain *d = logged(XEN_PML_OPT_TABLES);
    unsigned int n = 0;
    struct caller c;
    int rc;

    mock_preempt = always;
    do {
        c = caller(d, n++ % 2 ? &dom0 : &other, XEN_DOMCTL_pml_disable);
        rc = enter(&c);
        mock_pass(SECONDS(11));
        CHECK(!d->paused, "left paused");
    } while ( rc == -ERESTART );
    mock_preempt = never;
    CHECK(!rc && n > 3, "%d after %u", rc, n);
    unmake(d);
}

/*
 * Disabling, or what undoes an enabling that has failed, is broken off at each
 * point: there are no rounds any more, only the rest of it.
 */
static void test_no_round_of_what_is_undone(bool failed)
{
    unsigned int after, left = 1;

    for ( after = 1; left; after++ )
    {
        struct domain *d = failed ? make() : logged(GUIDED);
        struct caller c = failed ? enabling(d, GUIDED)
                                 : caller(d, &dom0, XEN_DOMCTL_pml_disable);
        struct caller late = closing(d, &other, NULL, 0);
        unsigned int i;
        int rc = -ERESTART;

        recalc_rc = failed ? -ENOMEM : 0;
        mock_preempt = always;
        for ( i = 0; rc == -ERESTART && i < after; i++ )
            rc = enter(&c);
        left = rc == -ERESTART;
        mock_pass(SECONDS(11));
        mock_preempt = never;
        if ( left && state(d) == XEN_PML_STATE_BROKEN )
        {
            rc = enter(&late);
            CHECK(rc == -ETIME || rc == -EBUSY, "%u: %d", after, rc);
        }
        if ( left )
            CHECK(!call(d, XEN_DOMCTL_pml_disable), "%u", after);
        unmake(d);
    }
    CHECK(after > 5, "%u", after);
    recalc_rc = 0;
}

/* Memory of 1 GiB pages is split one level at a time. */
static void test_splits_by_level(void)
{
    struct domain *d;

    huge = true;
    d = logged(0);
    huge = false;
    CHECK(most_at_once == 512, "%u entries at once", most_at_once);
    CHECK(!mapped[0] && !mapped[REGIONS - 1], "not split");
    off(d);
}

/* A dying domain: at each point of each operation. */
static void test_destroyed(uint32_t cmd)
{
    unsigned int after, left = 1;

    for ( after = 1; left; after++ )
    {
        struct domain *d = cmd == XEN_DOMCTL_pml_enable
                           ? make() : logged(XEN_PML_OPT_TABLES);
        struct caller c = cmd == XEN_DOMCTL_pml_enable
                          ? enabling(d, XEN_PML_OPT_TABLES)
                          : caller(d, &dom0, cmd);
        unsigned int i;
        int rc = -ERESTART;

        mock_preempt = always;
        for ( i = 0; rc == -ERESTART && i < after; i++ )
            rc = enter(&c);
        left = rc == -ERESTART;

        d->is_dying = true;
        if ( left )
            CHECK((rc = enter(&c)) == -ESRCH || !rc, "%d", rc);
        while ( pml_domain_teardown(d) == -ERESTART )
            check_memory(d);
        mock_preempt = never;
        d->log_dirty = false;
        d->paused = 0;
        unmake(d);
    }
}

static void close_guided(struct domain *d)
{
    struct caller c = closing(d, &dom0, NULL, XEN_PML_ROUND_GUIDED);
    int rc = finish(&c);

    CHECK(!rc && !d->paused, "%d", rc);
}

/****************** Refusals ******************/

static void test_self(void)
{
    struct domain *d = logged(0);
    uint32_t cmd;

    for ( cmd = XEN_DOMCTL_pml_enable; cmd <= XEN_DOMCTL_pml_fetch; cmd++ )
    {
        struct caller c = caller(d, d, cmd);
        int rc;

        rc = enter(&c);
        CHECK(rc == (cmd == XEN_DOMCTL_pml_status ? 0 : -EINVAL), "%u: %d",
              cmd, rc);
        CHECK(c.call.u.pml_op.refusal == XEN_PML_REFUSED_SELF, "%u", cmd);

        mock_denied = -EPERM;
        CHECK(call(d, cmd) == -EPERM, "%u", cmd);
        mock_denied = 0;
    }
    off(d);
}

/* What has to be zero may have a meaning some day. */
static void test_padding(void)
{
    struct domain *d = logged(0);
    struct caller c = caller(d, &dom0, XEN_DOMCTL_pml_vcpu_status);

    CHECK(!enter(&c), "a vCPU");
    c.call.u.pml_op.u.vcpu.pad = 1;
    CHECK(enter(&c) == -EINVAL, "a vCPU");
    c = caller(d, &dom0, XEN_DOMCTL_pml_fetch);
    c.call.u.pml_op.u.fetch.pad = 1;
    CHECK(enter(&c) == -EINVAL, "frames");
    CHECK(!call(d, XEN_DOMCTL_pml_disable), "off");

    c = enabling(d, 0);
    c.call.u.pml_op.u.enable.pad = 1;
    CHECK(enter(&c) == -EINVAL, "options");
    unmake(d);
}

/* Log-dirty mode is being switched off, and not is off yet. */
static void test_migration_ends(void)
{
    struct domain *d = make();
    struct caller c = enabling(d, 0);

    d->arch.paging.preempt.dom = &dom0;
    CHECK(enter(&c) == -EBUSY, "enabled");
    CHECK(c.call.u.pml_op.refusal == XEN_PML_REFUSED_MIGRATING, "why");
    d->arch.paging.preempt.dom = NULL;
    unmake(d);
}

/*
 * Each request for memory that enabling makes fails once: one reason is told,
 * all that was taken is given back, and without that it works.
 */
static void test_no_memory(void)
{
    unsigned int n, of[] = { 0, 0, 0 };
    bool enabled = false;

    mock_preempt = always;
    for ( n = 0; !enabled; n++ )
    {
        struct domain *d = make();
        struct caller c = enabling(d, GUIDED);
        struct xen_domctl_pml_enable *e = &c.call.u.pml_op.u.enable;
        unsigned int why = XEN_PML_REFUSED_NOT;
        int rc;

        e->slots = 2;
        e->rearm = XEN_PML_REARM_FLUSH;
        e->rearm_every = 3;
        mock_failed = MOCK_NONE;
        mock_alloc_left = n;
        rc = finish(&c);
        mock_alloc_left = -1;
        enabled = !rc;
        of[mock_failed]++;
        if ( mock_failed )
            why = mock_failed == MOCK_POOL ? XEN_PML_REFUSED_POOL
                                           : XEN_PML_REFUSED_MEMORY;
        CHECK(rc == (mock_failed ? -ENOMEM : 0), "%u: %d", n, rc);
        CHECK(c.call.u.pml_op.refusal == why, "%u: reason %u, not %u", n,
              c.call.u.pml_op.refusal, why);
        if ( !enabled )
        {
            untouched(d);
            CHECK(!status(d).memory, "%u: left", n);
            c = enabling(d, GUIDED);
            CHECK(!finish(&c), "%u: not again", n);
            CHECK(c.call.u.pml_op.refusal == XEN_PML_REFUSED_NOT, "%u", n);
        }
        CHECK(!call(d, XEN_DOMCTL_pml_disable), "off");
        unmake(d);
    }
    CHECK(of[MOCK_NONE] == 1 && of[MOCK_XEN] > 20 && of[MOCK_POOL] > 30,
          "%u and %u", of[MOCK_XEN], of[MOCK_POOL]);
    mock_preempt = never;
}

/*
 * All of the bitmap is dirty, or it has found no memory: each page is handed
 * out and re-armed once, and no piece takes more of them than it may.
 */
static void test_rearms_in_pieces(unsigned int flags, bool failed)
{
    struct domain *d = logged(GUIDED);
    static uint8_t map[LEAVES * PAGE_SIZE];
    const unsigned int all = LEAVES * PAGES_PER_LEAF;
    struct xen_domctl_pml_round *r;
    struct caller c;
    unsigned int i, n = 0;
    int rc;

    memset(bitmap, failed ? 0 : 0xff, sizeof(bitmap));
    memset(map, 0, sizeof(map));
    memset(rearmed, 0, sizeof(rearmed));
    bitmap_failed = failed;
    most_rearmed = 0;
    c = closing(d, &dom0, map, flags);
    r = &c.call.u.pml_op.u.round;
    mock_preempt = always;
    while ( (rc = enter(&c)) == -ERESTART )
        n++;
    mock_preempt = never;

    CHECK(!rc, "%d", rc);
    CHECK(r->bitmap_failed == failed, "%lu", (long)r->bitmap_failed);
    CHECK(r->dirty_pages == (failed ? 0 : all) && count(map) == r->dirty_pages,
          "%lu, %u in the bitmap", (long)r->dirty_pages, count(map));
    CHECK(r->rearmed == all, "%lu re-armed", (long)r->rearmed);
    for ( i = 0; i < all; i++ )
        CHECK(rearmed[i] == 1, "page %x re-armed %u times", i, rearmed[i]);
    CHECK(most_rearmed == 4096, "%u at once", most_rearmed);
    CHECK(n >= all / 4096, "%u pieces", n);
    bitmap_failed = 0;
    off(d);
}

/* Broken off amid a leaf: the log that follows begins with a whole one. */
static void test_rearming_broken_off(void)
{
    struct domain *d = logged(0);
    struct caller c = closing(d, &dom0, NULL, 0);
    unsigned int n = 0;

    memset(bitmap, 0xff, sizeof(bitmap));
    most_rearmed = rearmed_at_once = 0;
    mock_preempt = always;
    while ( !d->arch.hvm.pml->leaf_word )
    {
        CHECK(enter(&c) == -ERESTART, "closed");
        CHECK(n++ < 100, "never amid a leaf");
    }
    CHECK(!call(d, XEN_DOMCTL_pml_disable), "off");
    CHECK(enter(&c) == -ENOENT, "goes on");
    mock_preempt = never;
    unmake(d);
    memset(bitmap, 0, sizeof(bitmap));

    test_rearms_in_pieces(0, false);
}

/* How many continuations does it take to enable with such rings, and to end? */
static unsigned int pieces(unsigned int slots)
{
    struct domain *d = make();
    struct caller on = enabling(d, 0);
    struct caller end = caller(d, &dom0, XEN_DOMCTL_pml_disable);
    unsigned int n = 0;
    int rc;

    on.call.u.pml_op.u.enable.slots = slots;
    mock_preempt = always;
    while ( (rc = enter(&on)) == -ERESTART )
        n++;
    CHECK(!rc, "%d", rc);
    while ( (rc = enter(&end)) == -ERESTART )
        n++;
    CHECK(!rc, "%d", rc);
    mock_preempt = never;
    unmake(d);

    return n;
}

/* A ring is got and freed 64 frames at a time. */
static void test_rings_in_pieces(void)
{
    unsigned int more = pieces(1024) - pieces(64);

    CHECK(more >= VCPUS * 2 * (1024 - 64) / 64, "%u", more);
}

/* No more than the memory of the domain, and the options, account for. */
static void test_memory(void)
{
    struct domain *d = make();
    struct caller c = enabling(d, GUIDED);
    struct xen_domctl_pml_enable *e = &c.call.u.pml_op.u.enable;
    uint64_t held;
    int rc;

    CHECK(!status(d).memory, "nothing yet");
    e->slots = 64;
    e->buffers = 4;
    e->rearm = XEN_PML_REARM_FLUSH;
    e->rearm_every = 3;
    rc = finish(&c);
    CHECK(!rc, "%d", rc);
    held = status(d).memory;
    CHECK(held == mock_held, "%lu", (long)held);
    /* Rings with their tables, spares, and what waits to be re-armed. */
    CHECK(held >= VCPUS * (66 + 3 + 2) * PAGE_SIZE, "%lu", (long)held);
    held -= VCPUS * ((66 + 3 + 2) * PAGE_SIZE + 66 * 8 + 64 * 2 +
                     sizeof(struct pml_vcpu));
    /* The spool has 8 bytes for a page. */
    CHECK(held >= 8 * d->tot_pages && held < 8 * d->tot_pages + 40000, "%lu",
          (long)held);

    close_guided(d);
    CHECK(status(d).memory == mock_held, "after a round");
    CHECK(!call(d, XEN_DOMCTL_pml_disable), "off");
    CHECK(!status(d).memory, "left");
    unmake(d);
}

/* A vCPU that is created between two pieces would be none of the log's. */
static void test_vcpu_missing(void)
{
    struct domain *d = make();
    struct vcpu *last = d->vcpu[VCPUS - 1];
    struct caller c = enabling(d, GUIDED);
    unsigned int i;

    d->vcpu[VCPUS - 1] = NULL;
    mock_preempt = always;
    CHECK(enter(&c) == -EINVAL, "begun");
    CHECK(c.call.u.pml_op.refusal == XEN_PML_REFUSED_NO_VCPUS, "why");
    mock_preempt = never;

    d->vcpu[VCPUS - 1] = last;
    c = enabling(d, GUIDED);
    CHECK(!finish(&c), "all are there");
    for ( i = 0; i < VCPUS; i++ )
        CHECK(d->arch.hvm.pml->vcpu[i].vcpu == d->vcpu[i], "%u", i);
    off(d);
}

/* Log-dirty mode cannot be switched on. */
static void test_not_started(void)
{
    struct domain *d = make();
    struct caller c = enabling(d, GUIDED);

    start_rc = -ENOMEM;
    mock_preempt = always;
    CHECK(finish(&c) == -ENOMEM, "enabled");
    CHECK(c.call.u.pml_op.refusal == XEN_PML_REFUSED_MEMORY, "why");
    mock_preempt = never;
    start_rc = 0;
    unmake(d);
}

/****************** Frames that were touched ******************/

static int fetch(struct domain *d, uint32_t round, uint64_t first,
                 uint64_t *words, uint64_t nr,
                 struct xen_domctl_pml_fetch *told)
{
    struct caller c = caller(d, &dom0, XEN_DOMCTL_pml_fetch);
    int rc;

    c.call.u.pml_op.u.fetch = (struct xen_domctl_pml_fetch){
        .round = round, .first = first, .words = { words }, .nr = nr,
    };
    rc = finish(&c);
    CHECK(!d->paused, "paused");
    *told = c.call.u.pml_op.u.fetch;

    return rc;
}

/* Kept in Xen, and fetched while the domain runs, in pieces of any size. */
static void test_fetch(uint64_t piece)
{
    struct domain *d = logged(GUIDED);
    static uint64_t words[FRAMES + 1];
    struct xen_domctl_pml_fetch told = {};
    uint64_t n = 0, i;

    mock_preempt = always;
    close_guided(d);

    memset(words, 0xa5, sizeof(words));
    do {
        CHECK(!fetch(d, 0, n, words + n, min(piece, FRAMES - n), &told), "n");
        CHECK(told.nr && told.nr <= piece && told.total == FRAMES && !told.lost,
              "%lu", told.nr);
        n += told.nr;
    } while ( n < told.total );
    CHECK(!fetch(d, 0, n, words + n, 1, &told) && !told.nr, "no more");
    mock_preempt = never;

    for ( i = 0; i < FRAMES; i++ )
        CHECK(words[i] == (((7 + i) << 12) | XEN_PML_KIND_ACCESSED), "%lu", i);
    CHECK(words[FRAMES] == 0xa5a5a5a5a5a5a5a5ULL, "beyond");
    off(d);
}

static void test_two_fetchers(void)
{
    struct domain *d = logged(GUIDED);
    static uint64_t words[FRAMES];
    struct xen_domctl_pml_fetch told;
    int rc;

    rc = fetch(d, 0, 0, words, 100, &told);
    CHECK(rc == -ENODATA, "before any round: %d", rc);
    close_guided(d);

    CHECK(!fetch(d, 0, 0, words, 1000, &told), "the first");
    CHECK(!fetch(d, 0, 0, words, 600, &told), "the second begins");
    CHECK(fetch(d, 0, 1000, words, 1000, &told) == -EINVAL, "the first knows");
    CHECK(!fetch(d, 0, 600, words, FRAMES, &told) && told.nr == FRAMES - 600,
          "the second has all");
    CHECK(fetch(d, 1, 0, words, 10, &told) == -ENODATA, "not yet");
    mock_fault = true;
    CHECK(fetch(d, 0, 0, words, 10, &told) == -EFAULT, "no buffer");
    mock_fault = false;
    CHECK(!fetch(d, 0, 0, words, 10, &told) && told.nr == 10, "again");

    /* The collector has been killed; another one closes the next round. */
    close_guided(d);
    CHECK(fetch(d, 0, 10, words, 10, &told) == -ENODATA, "of the round before");
    CHECK(!fetch(d, 1, 0, words, 10, &told) && told.total == FRAMES, "anew");
    off(d);
}

static bool fault_soon(void)
{
    mock_fault = true;

    return false;
}

/* The caller's memory ends midway: the same call can be made again. */
static void test_fetch_faults(void)
{
    struct domain *d = logged(GUIDED);
    static uint64_t words[FRAMES];
    struct xen_domctl_pml_fetch told;
    unsigned int k;
    uint64_t n = 0, i;

    close_guided(d);
    memset(words, 0, sizeof(words));
    for ( k = 0; k < 2; k++ )
    {
        uint64_t some = k ? FRAMES - n : 1000;

        mock_preempt = fault_soon;
        CHECK(fetch(d, 0, n, words + n, some, &told) == -EFAULT && !told.nr,
              "%lu", told.nr);
        mock_fault = false;
        mock_preempt = never;
        CHECK(!fetch(d, 0, n, words + n, some, &told), "again");
        n += told.nr;
    }
    CHECK(n == FRAMES, "%lu", n);
    for ( i = 0; i < FRAMES; i++ )
        CHECK(words[i] == (((7 + i) << 12) | XEN_PML_KIND_ACCESSED), "%lu", i);
    off(d);
}

/* A round that was not guided has no such frames; that is not none. */
static void test_fetch_not_guided(void)
{
    struct domain *d = logged(GUIDED);
    struct xen_domctl_pml_fetch told;
    uint64_t word;

    CHECK(!call(d, XEN_DOMCTL_pml_close_round), "plain");
    CHECK(fetch(d, 0, 0, &word, 1, &told) == -ENODATA, "of a plain round");
    close_guided(d);
    CHECK(!fetch(d, 1, 0, &word, 1, &told) && told.total == FRAMES, "guided");
    CHECK(!call(d, XEN_DOMCTL_pml_close_round), "plain");
    CHECK(fetch(d, 1, 1, &word, 1, &told) == -ENODATA &&
          fetch(d, 2, 0, &word, 1, &told) == -ENODATA, "of a plain round");
    off(d);
}

/* More frames than there is memory for: told, and nothing else is harmed. */
static void test_more_than_room(void)
{
    struct domain *d = logged(GUIDED);
    static uint64_t words[12000];
    struct xen_domctl_pml_fetch told;
    struct caller c;
    long pages = mock_pool;
    int rc;

    frames = 12000;
    close_guided(d);
    frames = FRAMES;
    CHECK(!fetch(d, 0, 0, words, 12000, &told), "fetch");
    CHECK(told.total + told.lost == 12000 && told.lost, "%lu", told.lost);
    CHECK(told.total >= d->tot_pages, "%lu", told.total);

    /* The domain grows; there is no memory for it, and then there is. */
    d->tot_pages = 20000;
    mock_alloc_left = 3;
    c = closing(d, &dom0, NULL, XEN_PML_ROUND_GUIDED);
    rc = finish(&c);
    CHECK(rc == -ENOMEM && state(d) == XEN_PML_STATE_LOGGING, "%d", rc);
    CHECK(c.call.u.pml_op.refusal == XEN_PML_REFUSED_POOL, "reason %u",
          c.call.u.pml_op.refusal);
    mock_alloc_left = -1;
    close_guided(d);
    CHECK(mock_pool > pages, "%ld", mock_pool);
    CHECK(!fetch(d, 1, 0, words, 10, &told), "nothing was done to the round");
    off(d);
}

static unsigned int passed;
#define RUN(test) do { test; passed++; } while ( 0 )

int main(void)
{
    RUN(test_two_closings());
    RUN(test_two_enablings());
    RUN(test_asked_once());
    RUN(test_cookies());
    RUN(test_broken_off_by_the_same());
    RUN(test_not_continued());
    RUN(test_no_memory_to_continue());
    RUN(test_disable_breaks_off(XEN_DOMCTL_pml_close_round, GUIDED));
    RUN(test_disable_breaks_off(XEN_DOMCTL_pml_enable, GUIDED));
    RUN(test_undoing_broken_off());
    RUN(test_many_disablers());
    RUN(test_no_round_of_what_is_undone(false));
    RUN(test_no_round_of_what_is_undone(true));
    RUN(test_splits_by_level());
    RUN(test_destroyed(XEN_DOMCTL_pml_enable));
    RUN(test_destroyed(XEN_DOMCTL_pml_close_round));
    RUN(test_destroyed(XEN_DOMCTL_pml_disable));
    RUN(test_self());
    RUN(test_padding());
    RUN(test_migration_ends());
    RUN(test_no_memory());
    RUN(test_memory());
    RUN(test_rings_in_pieces());
    RUN(test_rearms_in_pieces(0, false));
    RUN(test_rearms_in_pieces(XEN_PML_ROUND_GUIDED, false));
    RUN(test_rearms_in_pieces(0, true));
    RUN(test_rearming_broken_off());
    RUN(test_vcpu_missing());
    RUN(test_not_started());
    RUN(test_fetch(1));
    RUN(test_fetch(700));
    RUN(test_fetch(FRAMES));
    RUN(test_fetch_not_guided());
    /* These need calls that fetch as much as they are asked for. */
    if ( !IS_ENABLED(CONFIG_DEBUG_PML_PREEMPT) )
    {
        RUN(test_two_fetchers());
        RUN(test_fetch_faults());
    }
    RUN(test_more_than_room());

    printf("%u passed\n", passed);

    return 0;
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Closing a round: everything that was logged in it is handed out and armed
 * again, while the domain is paused.
 */
#include "private.h"

/* May what was logged be re-armed by this closing? */
static bool rearms(const struct pml_domain *pml,
                   const struct xen_domctl_pml_round *op)
{
    return !op || (op->flags & XEN_PML_ROUND_REARM) ||
           pml->options.rearm != XEN_PML_REARM_NEVER;
}

#define BATCH 128

/* Re-arm so many pages between two checks. */
#define REARM_AT_ONCE 4096
#define REARM_WORDS (REARM_AT_ONCE / BITS_PER_LONG)
#define LEAF_WORDS (PAGES_PER_LEAF / BITS_PER_LONG)

/* Expand a word of the bitmap. */
static unsigned int add_word(uint64_t *entries, unsigned int nr,
                             unsigned long pfn, unsigned long word)
{
    for ( ; word; word &= word - 1 )
        entries[nr++] = (pfn + ffsl(word) - 1) << PAGE_SHIFT;

    return nr;
}

/* Re-arm these pages; if guided, take their accessed flags as well. */
static void rearm_batch(struct domain *d, struct pml_domain *pml,
                        const struct xen_domctl_pml_round *op,
                        uint64_t *entries, unsigned int nr)
{
    pml->result.rearmed += ept_pml_rearm(p2m_get_hostp2m(d), entries, nr);
    if ( op && (op->flags & XEN_PML_ROUND_GUIDED) )
        pml_touched_logged(d, pml, entries, nr);
}

/* Do so with some pages of the leaf of the log-dirty bitmap in pml->leaf. */
static void rearm_words(struct domain *d, struct pml_domain *pml,
                        const struct xen_domctl_pml_round *op,
                        unsigned long pfn)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);
    bool guided = op && (op->flags & XEN_PML_ROUND_GUIDED);
    uint64_t entries[BATCH];
    unsigned int end = pml->leaf_word + REARM_WORDS, i, nr = 0;

    p2m_lock(p2m);

    for ( i = pml->leaf_word; i < end; i++ )
    {
        unsigned long word = pml->leaf[i];

        if ( !word )
            continue;

        /* Room for 512 is room for a batch. */
        if ( guided && !nr )
            pml_touched_room(pml);

        nr = add_word(entries, nr, pfn + i * BITS_PER_LONG, word);
        if ( nr > BATCH - BITS_PER_LONG )
        {
            rearm_batch(d, pml, op, entries, nr);
            nr = 0;
        }
    }
    rearm_batch(d, pml, op, entries, nr);

    p2m_unlock(p2m);

    pml->leaf_word = end;
}

/*
 * And with all of them.  In pml->leaf, which is nobody else's until then, they
 * survive continuations: they are in the log-dirty bitmap no more.
 */
static int rearm_leaf(struct domain *d, struct pml_domain *pml,
                      const struct xen_domctl_pml_round *op, unsigned long pfn)
{
    BUILD_BUG_ON(LEAF_WORDS % REARM_WORDS);

    for ( ; ; )
    {
        rearm_words(d, pml, op, pfn);
        if ( pml->leaf_word == LEAF_WORDS )
            break;
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    pml->leaf_word = 0;

    return 0;
}

/*
 * Hand out the log-dirty bitmap of the round, page by page of it, clear it,
 * and re-arm what is in it.  Buffers are of whole pages.
 */
static int close_bitmap(struct domain *d, struct pml_domain *pml,
                        const struct xen_domctl_pml_round *op)
{
    /* What the caller has no room for stays as it is, for another round. */
    const unsigned long end = min(p2m_get_hostp2m(d)->max_mapped_pfn + 1,
                                  pml_leaves_end(op, false));
    bool keep = op && (op->flags & XEN_PML_ROUND_KEEP);
    unsigned int nr;

    while ( pml->leaf_word ||
            (pml->at < end &&
             pml_dirty_leaf(d, &pml->at, end - 1, pml->leaf, &nr, !keep)) )
    {
        if ( !pml->leaf_word )
        {
            pml->result.dirty_pages += nr;
            if ( nr )
                pml_copy_leaf(pml, op, false, pml->at);
        }

        if ( rearms(pml, op) && rearm_leaf(d, pml, op, pml->at) )
            return -ERESTART;

        pml->at += PAGES_PER_LEAF;
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

/*
 * The bitmap is to say what has to be re-armed, but found no memory for some
 * pages: re-arm them all.
 */
static int rearm_all(struct domain *d, struct pml_domain *pml,
                     const struct xen_domctl_pml_round *op)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);

    if ( !pml_dirty_failed(d, false) )
        return 0;

    while ( pml->leaf_word || pml->at <= p2m->max_mapped_pfn )
    {
        if ( !pml->leaf_word )
        {
            /* How far apart the guest has its memory is not to matter. */
            pml->at = ept_pml_next(p2m, pml->at) & ~(PAGES_PER_LEAF - 1);
            memset(pml->leaf, 0xff, PAGE_SIZE);
        }
        if ( rearm_leaf(d, pml, op, pml->at) )
            return -ERESTART;
        pml->at += PAGES_PER_LEAF;
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

uint64_t pml_total_entries(const struct pml_domain *pml)
{
    uint64_t sum = 0;
    unsigned int i;

    for ( i = 0; i < pml->nr_vcpus; i++ )
        sum += pml->vcpu[i].entries;

    return sum;
}

void pml_begin_close(struct domain *d, struct pml_domain *pml)
{
    pml_hold(d, pml);
    memset(&pml->result, 0, sizeof(pml->result));
    memset(pml->phase_tsc, 0, sizeof(pml->phase_tsc));
    memset(&pml->costs, 0, sizeof(pml->costs));
    pml->fault = false;
    pml_spool_begin(&pml->spool);
    pml->result.tsc_pause = rdtsc();
    pml->at = pml->leaf_word = 0;
    pml->phase = PHASE_TAKE;
}

/* The domain is paused: the order of vCPUs does not matter. */
static int close_take(struct domain *d, struct pml_domain *pml)
{
    while ( pml->at < pml->nr_vcpus )
    {
        if ( d->vcpu[pml->at] )
            pml_take(d->vcpu[pml->at]);
        if ( ++pml->at < pml->nr_vcpus && pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

static int close_drain(struct domain *d, struct pml_domain *pml)
{
    while ( pml->at < pml->nr_vcpus )
    {
        if ( d->vcpu[pml->at] )
            pml_drain_taken(d->vcpu[pml->at], XEN_PML_REASON_ROUND);
        if ( ++pml->at < pml->nr_vcpus && pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

/* What was cleared in the EPT is so for the processors, too, from now on. */
static void close_sync(struct domain *d, struct pml_domain *pml)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);
    unsigned int i;

    for ( i = 0; i < pml->nr_vcpus; i++ )
        pml->vcpu[i].nr_pending = pml->vcpu[i].flushes = 0;

    /* One invalidation for all. */
    p2m_lock(p2m);
    ept_sync_domain(p2m);
    p2m_unlock(p2m);
}

/* One phase, or what is left of it. */
static int close_phase(struct domain *d, struct pml_domain *pml,
                       const struct xen_domctl_pml_round *op)
{
    bool guided = op && (op->flags & XEN_PML_ROUND_GUIDED);

    switch ( pml->phase )
    {
    case PHASE_TAKE:
        return close_take(d, pml);

    case PHASE_WALK:
        return pml_walk_tables(d, pml);

    case PHASE_DRAIN:
        return close_drain(d, pml);

    case PHASE_TABLES:
        return pml_snapshots(d, pml);

    case PHASE_BITMAP:
        return close_bitmap(d, pml, op);

    case PHASE_RESCUE:
        return rearm_all(d, pml, op);

    case PHASE_GUIDE:
        return guided ? pml_close_guide(d, pml) : 0;

    case PHASE_GUIDED:
        return guided ? pml_close_guided(d, pml) : 0;

    case PHASE_UNPAGED:
        return guided ? pml_close_unpaged(d, pml) : 0;

    case PHASE_ACCESSED:
        return pml_close_accessed(d, pml, op);

    case PHASE_FORGET:
        return pml_tables_round(pml, rearms(pml, op));

    default:
        ASSERT_UNREACHABLE();
        return -EINVAL;
    }
}

int pml_do_close(struct domain *d, struct pml_domain *pml,
                 const struct xen_domctl_pml_round *op)
{
    do {
        uint64_t begin = rdtsc();
        int rc = close_phase(d, pml, op);

        pml->phase_tsc[pml->phase - PHASE_TAKE] += rdtsc() - begin;
        if ( rc )
            return rc;
    } while ( ++pml->phase < PHASE_CLOSED );

    close_sync(d, pml);
    pml->phase = PHASE_IDLE;

    return 0;
}

void pml_open_round(struct domain *d, struct pml_domain *pml)
{
    uint64_t now = rdtsc();
    unsigned int i;

    for ( i = 0; i < pml->nr_vcpus; i++ )
        pml->vcpu[i].tsc_start = now;

    pml->entries_before = pml_total_entries(pml);
    pml->result.tsc_resume = now;
    pml_watch_cr3(d, pml, true);
}

static int check_round(const struct pml_domain *pml,
                       const struct xen_domctl_pml_round *op)
{
    const uint32_t known =
        XEN_PML_ROUND_REARM | XEN_PML_ROUND_ACCESSED | XEN_PML_ROUND_KEEP |
        XEN_PML_ROUND_GUIDED | XEN_PML_ROUND_PRUNED | XEN_PML_ROUND_REDRAW |
        XEN_PML_ROUND_SAMPLE;

    if ( op->flags & ~known )
        return -EOPNOTSUPP;
    if ( op->pages % PAGES_PER_LEAF )
        return -EINVAL;
    if ( pml_check_scan(pml, op) )
        return -EINVAL;
    /*
     * What was not armed when the round began may not be logged in it; and what
     * has been logged has to be known to be of this round.
     */
    if ( (op->flags & XEN_PML_ROUND_GUIDED) &&
         (!pml->touched.words || (op->flags & XEN_PML_ROUND_KEEP) ||
          pml->options.rearm == XEN_PML_REARM_NEVER) )
        return -EINVAL;

    return 0;
}

/* What the caller asked for is kept, and not read again in continuations. */
static int begin_round(struct pml_domain *pml,
                       const struct xen_domctl_pml_round *op)
{
    int rc;

    if ( pml->state != XEN_PML_STATE_LOGGING )
        return -ENOENT;

    rc = check_round(pml, op);
    if ( rc )
        return rc;

    pml->asked = *op;
    pml->phase = PHASE_ROOM;

    return 0;
}

int pml_close_round(struct domain *d, struct pml_domain *pml,
                    struct xen_domctl_pml_round *op, uint16_t *why)
{
    int rc;

    /* What was broken off may be half undone, and has no rounds any more. */
    if ( pml->state == XEN_PML_STATE_BROKEN )
        return -ETIME;

    if ( pml->phase == PHASE_IDLE )
    {
        rc = begin_round(pml, op);
        if ( rc )
            return rc;
    }

    if ( pml->phase == PHASE_ROOM )
    {
        rc = pml->asked.flags & XEN_PML_ROUND_GUIDED ? pml_spool_room(d, pml)
                                                     : 0;
        if ( rc == -ERESTART )
            return rc;
        if ( rc )
        {
            /* Nothing has been done to the round.  Its pool had no page. */
            *why = XEN_PML_REFUSED_POOL;
            pml->phase = PHASE_IDLE;
            return rc;
        }
        pml_begin_close(d, pml);
    }

    rc = pml_do_close(d, pml, &pml->asked);
    if ( rc == -ERESTART )
        return rc;
    if ( rc )
    {
        pml_break_off(d, pml);
        return rc;
    }

    if ( pml->asked.flags & XEN_PML_ROUND_GUIDED )
        pml_spool_end(&pml->spool, pml->round);
    pml->result.flags = pml->asked.flags;
    pml->result.dirty = pml->asked.dirty;
    pml->result.accessed = pml->asked.accessed;
    pml->result.pages = pml->asked.pages;
    pml->result.round = pml->round++;
    pml->result.entries = pml_total_entries(pml) - pml->entries_before;
    pml_open_round(d, pml);

    pml->result.tables = pml_nr_tables(pml);
    pml->result.bitmap_failed = pml_dirty_failed(d, true);
    pml->bitmap_failed += pml->result.bitmap_failed;
    pml->rearmed += pml->result.rearmed;
    *op = pml->result;

    pml_release(d, pml);

    return pml->fault ? -EFAULT : 0;
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

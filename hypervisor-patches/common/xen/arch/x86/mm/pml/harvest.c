/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Accessed flags: of the whole domain, and of just those frames that can have
 * been touched.
 *
 * No page touched is missed.  But a processor may set the flag without an
 * access that the architecture knows of: walks ahead of time, by speculation
 * or prefetch, may add some on real processors.  (For the same reason page
 * tables may be logged that no access has used; data pages are logged when
 * they are written, only.)
 */
#include "private.h"

/****************** Bitmaps, as the caller gets them ******************/

static XEN_GUEST_HANDLE_64(uint8) bitmap_of(
    const struct xen_domctl_pml_round *op, bool accessed)
{
    return accessed ? op->accessed : op->dirty;
}

/* The first page that this bitmap has no room for, ~0 if all is taken. */
unsigned long pml_leaves_end(const struct xen_domctl_pml_round *op,
                             bool accessed)
{
    return op && !guest_handle_is_null(bitmap_of(op, accessed)) ? op->pages
                                                                : ~0UL;
}

void pml_copy_leaf(struct pml_domain *pml,
                   const struct xen_domctl_pml_round *op, bool accessed,
                   unsigned long pfn)
{
    unsigned long bytes;

    ASSERT(!(pfn % PAGES_PER_LEAF));
    if ( !op || guest_handle_is_null(bitmap_of(op, accessed)) ||
         pfn >= op->pages )
        return;

    bytes = min((op->pages - pfn) / 8 + 0UL, PAGE_SIZE + 0UL);
    if ( copy_to_guest_offset(bitmap_of(op, accessed), pfn / 8,
                              (uint8_t *)pml->leaf, bytes) )
        pml->fault = true;
}

/****************** Of the whole domain ******************/

int pml_check_scan(const struct pml_domain *pml,
                   const struct xen_domctl_pml_round *op)
{
    unsigned int sample = op->flags & (XEN_PML_ROUND_SAMPLE |
                                       XEN_PML_ROUND_REDRAW);

    if ( !(op->flags & XEN_PML_ROUND_ACCESSED) )
        return op->flags & (XEN_PML_ROUND_PRUNED | XEN_PML_ROUND_SAMPLE |
                            XEN_PML_ROUND_REDRAW) ? -EINVAL : 0;

    if ( !(pml->options.flags & XEN_PML_OPT_ACCESSED) ||
         MASK_EXTR(sample, XEN_PML_ROUND_SAMPLE) > XEN_PML_MAX_SAMPLE ||
         sample == XEN_PML_ROUND_REDRAW )
        return -EINVAL;

    /* Flags of pages that were in no sample may be older than the round. */
    return pml->sample && pml->sample != sample ? -EINVAL : 0;
}

/* How the scan goes through the EPT. */
static unsigned int scan_how(const struct xen_domctl_pml_round *op)
{
    /* At the end of enabling: the first round begins with all flags clear. */
    if ( !op )
        return HARVEST_RESET;

    /* After a guided harvest the upper levels' flags tell no more. */
    return (op->flags & XEN_PML_ROUND_PRUNED) &&
           !(op->flags & XEN_PML_ROUND_GUIDED) ? HARVEST_PRUNED : HARVEST_ALL;
}

/* Scan a region, and let the next round's draw begin with clear flags. */
static struct ept_pml_harvest scan_region(struct pml_domain *pml,
                                          struct p2m_domain *p2m,
                                          unsigned long gfn, unsigned long end,
                                          unsigned int how,
                                          struct ept_pml_sample *sample,
                                          unsigned long *accessed)
{
    struct pml_region *region;
    struct ept_pml_harvest h;

    if ( !sample->again )
        return ept_pml_harvest(p2m, gfn, end, how, sample, accessed);

    region = pml_region(&pml->regions, gfn);
    sample->draw = region && region->draw ? region->draw : pml->round + 1;
    h = ept_pml_harvest(p2m, gfn, end, how, sample, accessed);
    if ( !h.looked )
        return h;

    if ( !region )
        region = pml_region_make(&pml->regions, gfn);
    if ( region )
        region->draw = sample->next;
    else
    {
        /* There is no place for a note of which flags are clear: all, then. */
        static const struct ept_pml_sample all;

        ept_pml_harvest(p2m, gfn, end, HARVEST_ALL, &all, NULL);
    }

    return h;
}

int pml_close_accessed(struct domain *d, struct pml_domain *pml,
                       const struct xen_domctl_pml_round *op)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);
    const unsigned long limit = pml_leaves_end(op, true);
    const unsigned int how = scan_how(op);
    struct ept_pml_sample sample = {
        .order = op ? MASK_EXTR(op->flags, XEN_PML_ROUND_SAMPLE) : 0,
        .again = op && (op->flags & XEN_PML_ROUND_REDRAW),
        .next = pml->round + 2,
    };

    if ( op ? !(op->flags & XEN_PML_ROUND_ACCESSED)
            : !(pml->options.flags & XEN_PML_OPT_ACCESSED) )
        return 0;

    while ( pml->at <= p2m->max_mapped_pfn && pml->at < limit )
    {
        /* What was skipped may have ended in the middle of a leaf. */
        const unsigned long first = pml->at & ~(PAGES_PER_LEAF - 1);
        const unsigned long end = min(first + PAGES_PER_LEAF,
                                      p2m->max_mapped_pfn + 1);
        unsigned int nr = 0;

        clear_page(pml->leaf);
        p2m_lock(p2m);
        while ( pml->at < end )
        {
            struct ept_pml_harvest h =
                scan_region(pml, p2m, pml->at, limit, how, &sample,
                            pml->leaf + (pml->at - first) / BITS_PER_LONG);

            nr += h.accessed;
            pml->costs.scan_frames += h.looked;
            pml->at += h.step;
        }
        p2m_unlock(p2m);

        pml->result.accessed_pages += nr;
        if ( nr )
            pml_copy_leaf(pml, op, true, first);

        if ( pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;
    if ( op )
        pml->sample = op->flags & (XEN_PML_ROUND_SAMPLE |
                                   XEN_PML_ROUND_REDRAW);

    return 0;
}

/****************** Frames that were touched ******************/

int pml_alloc_touched(const struct domain *d, struct pml_domain *pml)
{
    if ( (pml->options.flags & (XEN_PML_OPT_ACCESSED | XEN_PML_OPT_TABLES)) !=
         (XEN_PML_OPT_ACCESSED | XEN_PML_OPT_TABLES) )
        return 0;

    pml->touched.words = pml_get(&pml->held, TOUCHED_BYTES);

    return pml->touched.words ? 0 : -ENOMEM;
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
    if ( pml->touched.nr + PML_REGION > TOUCHED_WORDS )
        pml_touched_flush(pml);
}

void pml_touched_logged(struct domain *d, struct pml_domain *pml,
                        uint64_t *entries, unsigned int nr)
{
    struct pml_touched *t = &pml->touched;
    uint64_t *to = t->words + t->nr;

    ASSERT(t->nr + nr <= TOUCHED_WORDS);
    nr = ept_pml_take(p2m_get_hostp2m(d), entries, nr, to, 0);
    pml_add_kinds(pml, to, nr);
    t->nr += nr;
}

/****************** Guided by page tables ******************/

static unsigned long take_region(struct domain *d, struct pml_domain *pml,
                                 unsigned long gfn, unsigned int how,
                                 const uint64_t *wanted)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);
    struct pml_touched *t = &pml->touched;
    struct ept_pml_harvest h;

    ASSERT(t->nr + PAGES_PER_TABLE <= TOUCHED_WORDS);
    p2m_lock(p2m);
    h = ept_pml_take_region(p2m, gfn, how, wanted, t->words + t->nr,
                            XEN_PML_KIND_ACCESSED);
    p2m_unlock(p2m);

    t->nr += h.accessed;
    pml->costs.guided_frames += h.looked;

    return h.step;
}

/*
 * Is there memory that can have been touched by way of no page table that is
 * known?  A vCPU that does not page needs none; and some may have been left
 * out.
 */
static bool unguided(const struct pml_domain *pml)
{
    bool unpaged = false;
    unsigned int i;

    for ( i = 0; i < pml->nr_vcpus; i++ )
        unpaged |= pml->vcpu[i].unpaged;

    return unpaged || pml->costs.roots_dropped || pml->costs.tables_dropped ||
           pml->guide.lost;
}

/* If so, look at all regions whose EPT has been used. */
static int close_unguided(struct domain *d, struct pml_domain *pml)
{
    while ( pml->at <= p2m_get_hostp2m(d)->max_mapped_pfn )
    {
        pml_touched_room(pml);
        pml->at += take_region(d, pml, pml->at, HARVEST_PRUNED, NULL);
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

int pml_close_guide(struct domain *d, struct pml_domain *pml)
{
    while ( pml_note_logged(d, pml, &pml->at) )
        if ( pml_preempt_check() )
            return -ERESTART;

    pml->at = 0;

    return 0;
}

int pml_close_guided(struct domain *d, struct pml_domain *pml)
{
    struct pml_guide *g = &pml->guide;
    const bool all = unguided(pml);
    struct pml_region *region;

    while ( (region = pml_guide_first(g)) != NULL )
    {
        pml_touched_room(pml);

        /* Once a region has been taken, its upper flag tells no more. */
        take_region(d, pml, region->number << PML_REGION_SHIFT, HARVEST_REGION,
                    all ? NULL : pml_guide_wanted(region));
        pml_guide_forget_first(g);

        if ( pml_preempt_check() )
            return -ERESTART;
    }

    return 0;
}

int pml_close_unpaged(struct domain *d, struct pml_domain *pml)
{
    unsigned int i;
    int rc = unguided(pml) ? close_unguided(d, pml) : 0;

    if ( rc )
        return rc;

    pml_touched_flush(pml);

    for ( i = 0; i < pml->nr_vcpus; i++ )
        pml->vcpu[i].unpaged = false;
    pml->guide.lost = 0;

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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The log-dirty bitmap: many pages at once, and leaf by leaf.
 */
#include "private.h"

/* Find the leaf of the bitmap that has a pfn's bit; do not create it. */
static mfn_t find_leaf(struct domain *d, pfn_t pfn)
{
    const unsigned int idx[] = {
        L4_LOGDIRTY_IDX(pfn), L3_LOGDIRTY_IDX(pfn), L2_LOGDIRTY_IDX(pfn)
    };
    mfn_t mfn = d->arch.paging.log_dirty.top;
    unsigned int i;

    for ( i = 0; i < ARRAY_SIZE(idx) && !mfn_eq(mfn, INVALID_MFN); i++ )
    {
        const mfn_t *node = map_domain_page(mfn);

        mfn = node[idx[i]];
        unmap_domain_page(node);
    }

    return mfn;
}

/* Mark many pages as dirty; cheaper than one by one if they are neighbours. */
void pml_mark_dirty(struct domain *d, const uint64_t *addrs, unsigned int nr)
{
    unsigned long *l1 = NULL, cur = 0;
    unsigned int i;

    if ( !paging_mode_log_dirty(d) )
        return;

    paging_lock_recursive(d);

    for ( i = 0; i < nr; i++ )
    {
        pfn_t pfn = _pfn(addrs[i] >> PAGE_SHIFT);
        mfn_t mfn;

        if ( !l1 || (pfn_x(pfn) >> (PAGE_SHIFT + 3)) != cur )
        {
            if ( l1 )
                unmap_domain_page(l1);
            cur = pfn_x(pfn) >> (PAGE_SHIFT + 3);
            mfn = find_leaf(d, pfn);
            l1 = mfn_eq(mfn, INVALID_MFN) ? NULL : map_domain_page(mfn);
        }

        if ( !l1 )
            /* No memory: this creates what is missing, or counts a failure. */
            paging_mark_pfn_dirty(d, pfn);
        else if ( !__test_and_set_bit(L1_LOGDIRTY_IDX(pfn), l1) )
            d->arch.paging.log_dirty.dirty_count++;
    }

    if ( l1 )
        unmap_domain_page(l1);

    paging_unlock(d);
}

/*
 * Find the first leaf of the bitmap from *pfn to max_pfn, set *pfn to the first
 * page that it stands for, copy it to buf, and clear it if so asked.  Returns
 * false if there is none; else *nr is the number of pages which are dirty.
 */
bool pml_dirty_leaf(struct domain *d, unsigned long *pfn,
                    unsigned long max_pfn, unsigned long *buf,
                    unsigned int *nr, bool clear)
{
    const unsigned int shift = PAGE_SHIFT + 3;
    unsigned long i = DIV_ROUND_UP(*pfn, 1UL << shift);
    const unsigned long end = min((max_pfn >> shift) + 1,
                                  1UL << (3 * PAGETABLE_ORDER));
    bool found = false;

    paging_lock(d);

    while ( i < end )
    {
        unsigned int skip = 0;
        mfn_t mfn = d->arch.paging.log_dirty.top, next;

        /* From the top down; what is absent is skipped as a whole. */
        for ( skip = 3; skip; skip-- )
        {
            const mfn_t *node;

            if ( mfn_eq(mfn, INVALID_MFN) )
                break;
            node = map_domain_page(mfn);
            next = node[(i >> ((skip - 1) * PAGETABLE_ORDER)) &
                        (LOGDIRTY_NODE_ENTRIES - 1)];
            unmap_domain_page(node);
            mfn = next;
        }

        if ( !mfn_eq(mfn, INVALID_MFN) )
        {
            unsigned long *l1 = map_domain_page(mfn);

            memcpy(buf, l1, PAGE_SIZE);
            *nr = bitmap_weight(buf, PAGE_SIZE * 8);
            if ( clear && *nr )
            {
                d->arch.paging.log_dirty.dirty_count -=
                    min(d->arch.paging.log_dirty.dirty_count, *nr + 0UL);
                clear_page(l1);
            }
            unmap_domain_page(l1);
            *pfn = i << shift;
            found = true;
            break;
        }

        i = ((i >> (skip * PAGETABLE_ORDER)) + 1) << (skip * PAGETABLE_ORDER);
    }

    paging_unlock(d);

    return found;
}

/* How many pages could not be marked for want of memory; start anew. */
unsigned int pml_dirty_failed(struct domain *d, bool reset)
{
    unsigned int nr;

    paging_lock(d);
    nr = d->arch.paging.log_dirty.failed_allocs;
    if ( reset )
        d->arch.paging.log_dirty.failed_allocs = 0;
    paging_unlock(d);

    return nr;
}

/*
 * A domain whose PML log is handed out cannot be migrated: both need to say
 * when a page's dirty flag is cleared.
 */
bool pml_excludes(const struct domain *d, unsigned int op)
{
    return pml_active(d) &&
           (op == XEN_DOMCTL_SHADOW_OP_ENABLE ||
            op == XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY ||
            op == XEN_DOMCTL_SHADOW_OP_OFF ||
            op == XEN_DOMCTL_SHADOW_OP_CLEAN ||
            op == XEN_DOMCTL_SHADOW_OP_PEEK);
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory that is held for the log of a domain: it is got, counted and given
 * back in here, except for what is known of frames (regions.c, which counts it
 * and bounds it itself).
 *
 * Whole pages that need not be at an address are of the pool that the domain
 * has for its paging (xl: shadow_memory).  All else is of Xen's free memory.
 */
#include "private.h"

/* What is larger than a page is of whole ones, which need no neighbours. */
static size_t size_held(size_t size)
{
    return size <= PAGE_SIZE ? size : ROUNDUP(size, PAGE_SIZE);
}

void *pml_get(uint64_t *held, size_t size)
{
    void *p;

    if ( size == PAGE_SIZE )
    {
        p = alloc_xenheap_page();
        if ( p )
            clear_page(p);
    }
    else
        p = size < PAGE_SIZE ? xzalloc_bytes(size) : vzalloc(size);

    if ( p )
        *held += size_held(size);

    return p;
}

void pml_put(uint64_t *held, void *p, size_t size)
{
    if ( !p )
        return;

    ASSERT(*held >= size_held(size));
    *held -= size_held(size);

    if ( size == PAGE_SIZE )
        free_xenheap_page(p);
    else if ( size < PAGE_SIZE )
        xfree(p);
    else
        vfree(p);
}

struct page_info *pml_get_page(struct domain *d, struct pml_domain *pml)
{
    struct page_info *pg = d->arch.paging.alloc_page(d);

    if ( pg )
        pml->held += PAGE_SIZE;
    else
        pml->pool_short = true;

    return pg;
}

void pml_put_page(struct domain *d, struct pml_domain *pml,
                  struct page_info *pg)
{
    ASSERT(pml->held >= PAGE_SIZE);
    pml->held -= PAGE_SIZE;
    d->arch.paging.free_page(d, pg);
}

/*
 * As vmtrace's buffers, such a page belongs to the domain without counting
 * against its memory, and stays for as long as somebody has it mapped.
 */
struct page_info *pml_get_shared(struct domain *d, struct pml_domain *pml)
{
    struct page_info *pg = alloc_domheap_page(d, MEMF_no_refcount);

    if ( !pg )
        return NULL;

    /*
     * The domain can't possibly know about this page yet, so failure here is a
     * clear indication of something fishy going on.  Leak it.
     */
    if ( unlikely(!get_page_and_type(pg, d, PGT_writable_page)) )
        return NULL;

    pml->held += PAGE_SIZE;
    clear_domain_page(page_to_mfn(pg));

    return pg;
}

void pml_put_shared(struct pml_domain *pml, struct page_info *pg)
{
    ASSERT(pml->held >= PAGE_SIZE);
    pml->held -= PAGE_SIZE;
    put_page_alloc_ref(pg);
    put_page_and_type(pg);
}

uint64_t pml_memory(const struct pml_domain *pml)
{
    return pml->held + pml->regions.bytes;
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frames that were touched in a round, from its closing, while the domain is
 * paused, to the calls that fetch them once it runs again.
 *
 * Memory is of the domain's own pool, a word for each page that the domain has:
 * got before the domain is paused, and kept until logging ends.
 */
#include "private.h"

#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(uint64_t))

/* Pages that are mapped without being counted as the domain's (grants, ...). */
#define UNCOUNTED 1024

/* Get or free so many pages between two checks. */
#define PAGES_AT_ONCE 64

int pml_spool_room(struct domain *d, struct pml_domain *pml)
{
    struct pml_spool *s = &pml->spool;
    unsigned long wanted = DIV_ROUND_UP(domain_tot_pages(d) + UNCOUNTED,
                                        WORDS_PER_PAGE);

    while ( s->nr_pages < wanted )
    {
        struct page_info *pg = pml_get_page(d, pml);

        if ( !pg )
            return -ENOMEM;

        page_list_add_tail(pg, &s->pages);
        s->nr_pages++;
        if ( !(s->nr_pages % PAGES_AT_ONCE) && pml_preempt_check() )
            return -ERESTART;
    }

    return 0;
}

void pml_spool_begin(struct pml_spool *s)
{
    s->whole = false;
    s->nr = s->got = s->lost = 0;
    s->put = page_list_first(&s->pages);
}

void pml_spool_put(struct pml_spool *s, const uint64_t *words, unsigned int nr)
{
    while ( nr && s->put )
    {
        unsigned int at = s->nr % WORDS_PER_PAGE;
        unsigned int some = min(nr, (unsigned int)WORDS_PER_PAGE - at);
        uint64_t *to = __map_domain_page(s->put);

        memcpy(to + at, words, some * sizeof(*words));
        unmap_domain_page(to);

        words += some;
        nr -= some;
        s->nr += some;
        if ( at + some == WORDS_PER_PAGE )
            s->put = page_list_next(s->put, &s->pages);
    }

    s->lost += nr;
}

void pml_spool_end(struct pml_spool *s, uint32_t round)
{
    s->round = round;
    s->whole = true;
    s->get = page_list_first(&s->pages);
}

/* Some words, at least one page of them; the caller comes back for the rest. */
int pml_spool_fetch(struct pml_spool *s, struct xen_domctl_pml_fetch *op)
{
    struct page_info *get = s->get;
    uint64_t room = op->nr, got = s->got;

    op->nr = 0;
    if ( op->pad )
        return -EINVAL;
    if ( !s->whole || s->round != op->round )
        return -ENODATA;
    if ( op->first && op->first != got )
        return -EINVAL;

    if ( !op->first )
    {
        got = 0;
        get = page_list_first(&s->pages);
    }

    op->total = s->nr;
    op->lost = s->lost;

    while ( op->nr < room && got < s->nr )
    {
        unsigned int at = got % WORDS_PER_PAGE;
        unsigned int some = min(min(room - op->nr, s->nr - got),
                                (uint64_t)WORDS_PER_PAGE - at);
        uint64_t *from = __map_domain_page(get);
        bool fault = copy_to_guest_offset(op->words, op->nr, from + at, some);

        unmap_domain_page(from);
        if ( fault )
        {
            /* Where the next call goes on is as it was before this one. */
            op->nr = 0;
            return -EFAULT;
        }

        op->nr += some;
        got += some;
        if ( at + some == WORDS_PER_PAGE )
            get = page_list_next(get, &s->pages);
        if ( pml_preempt_check() )
            break;
    }

    s->got = got;
    s->get = get;

    return 0;
}

int pml_spool_free(struct domain *d, struct pml_domain *pml)
{
    struct pml_spool *s = &pml->spool;
    struct page_info *pg;

    s->whole = false;
    while ( (pg = page_list_remove_head(&s->pages)) != NULL )
    {
        pml_put_page(d, pml, pg);
        if ( !(--s->nr_pages % PAGES_AT_ONCE) && s->nr_pages &&
             pml_preempt_check() )
            return -ERESTART;
    }

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

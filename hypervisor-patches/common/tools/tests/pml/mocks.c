/* SPDX-License-Identifier: GPL-2.0-only */
/* See mocks.h. */
#include "mocks.h"

long mock_alloc_left = -1, mock_allocated, mock_pool, mock_held;
enum mock_kind mock_failed;
unsigned long mock_bytes, mock_locked;
bool mock_fault;

/* In front of what is given out; keeps it aligned. */
struct head {
    size_t size, unused;
};

bool mock_may(enum mock_kind kind)
{
    if ( !mock_alloc_left )
    {
        if ( !mock_failed )
            mock_failed = kind;
        return false;
    }
    if ( mock_alloc_left > 0 )
        mock_alloc_left--;

    return true;
}

void *mock_alloc(size_t size)
{
    struct head *head;

    if ( !mock_may(MOCK_XEN) )
        return NULL;

    head = calloc(1, sizeof(*head) + size);
    head->size = size;
    mock_allocated++;
    mock_bytes += size;
    mock_held += size;

    return head + 1;
}

void *mock_alloc_page(void)
{
    void *p = mock_alloc(PAGE_SIZE);

    return p ? memset(p, 0xa5, PAGE_SIZE) : NULL;
}

void mock_free(void *p)
{
    struct head *head = p;

    if ( !p )
        return;

    mock_allocated--;
    mock_held -= head[-1].size;
    free(head - 1);
}

void page_list_add_tail(struct page_info *pg, struct page_list_head *h)
{
    pg->next = NULL;
    if ( h->last )
        h->last->next = pg;
    else
        h->first = pg;
    h->last = pg;
}

struct page_info *page_list_remove_head(struct page_list_head *h)
{
    struct page_info *pg = h->first;

    if ( pg )
    {
        h->first = pg->next;
        if ( !h->first )
            h->last = NULL;
    }

    return pg;
}

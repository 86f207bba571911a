/* SPDX-License-Identifier: GPL-2.0-only */
/* See mock.h. */
#include "mock.h"

s_time_t mock_now = 1000;
long mock_alloc_left = -1, mock_allocated;
unsigned long mock_locked;
bool mock_fault;
int mock_denied;

static struct timer *timer;

uint64_t rdtsc(void)
{
    static uint64_t now;

    return ++now;
}

void init_timer(struct timer *t, void (*function)(void *), void *data,
                unsigned int cpu)
{
    *t = (struct timer){ .function = function, .data = data };
    timer = t;
}

void set_timer(struct timer *t, s_time_t expires)
{
    t->set = true;
    t->expires = expires;
}

void kill_timer(struct timer *t)
{
    t->set = false;
    timer = NULL;
}

void mock_pass(s_time_t time)
{
    mock_now += time;
    if ( timer && timer->set && timer->expires <= mock_now )
    {
        timer->set = false;
        timer->function(timer->data);
    }
}

void *mock_alloc(size_t size)
{
    if ( !mock_alloc_left )
        return NULL;
    if ( mock_alloc_left > 0 )
        mock_alloc_left--;
    mock_allocated++;

    return calloc(1, size);
}

void mock_free(void *p)
{
    if ( p )
        mock_allocated--;
    free(p);
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

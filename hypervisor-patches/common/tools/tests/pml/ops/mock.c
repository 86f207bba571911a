/* SPDX-License-Identifier: GPL-2.0-only */
/* See mock.h. */
#include "mock.h"

s_time_t mock_now = 1000;
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

/* Two references: the allocation's, and ours. */
struct page_info *alloc_domheap_page(struct domain *d, unsigned int flags)
{
    struct page_info *pg;

    if ( !mock_may(MOCK_XEN) )
        return NULL;

    pg = calloc(1, sizeof(*pg) + PAGE_SIZE);
    pg->words = memset(pg + 1, 0xa5, PAGE_SIZE);
    mock_allocated++;
    mock_held += PAGE_SIZE;

    return pg;
}

void put_page_and_type(struct page_info *pg)
{
    if ( --pg->mfn )
        return;

    mock_allocated--;
    mock_held -= PAGE_SIZE;
    free(pg);
}

/* Addresses are not memory. */
void *vmap(const mfn_t *mfns, unsigned int nr)
{
    void *p = mock_alloc(nr * PAGE_SIZE);

    if ( p )
        mock_held -= nr * PAGE_SIZE;

    return p;
}

void vunmap(void *p)
{
    long held = mock_held;

    mock_free(p);
    mock_held = held;
}

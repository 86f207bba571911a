/* SPDX-License-Identifier: Apache-2.0 */
/* libxenctrl for tests: see fake.h. Each CLEAN finds $FAKE_DIRTY pages dirty, from round to round
 * one frame further on. With OLD it is that of a Xen before 4.16. */
#include "fake.h"

#define PAGES 65536

struct buffer {
    void *hbuf, *shadow;
    int dir;
    void *ubuf;
    size_t sz;
};
struct stats {
    uint32_t faults, dirty;
};
struct handle {
    unsigned rounds;
};

struct handle *xc_interface_open(void *logger, void *dombuild, unsigned flags)
{
    if ( !getenv("FAKE_XEN") )
    {
        errno = EACCES;
        return NULL;
    }
    return calloc(1, sizeof(struct handle));
}

int xc_interface_close(struct handle *h)
{
    free(h);
    return 0;
}

int xc_domain_getinfolist(struct handle *h, uint32_t first, unsigned max, uint32_t *info)
{
    struct fake_domain d;

    if ( fake_number("FAKE_OTHER_VERSION", 0) )
    {
        errno = EACCES;
        return -1;
    }
    if ( !fake_find(first, &d) )
        return 0;
    info[0] = d.domid;
    info[1] = d.flags;
    return 1;
}

int xc_domain_unpause(struct handle *h, uint32_t domid)
{
    return 0;
}

int xc_domain_maximum_gpfn(struct handle *h, uint32_t domid, unsigned long *last)
{
    *last = PAGES - 1;
    return 0;
}

void *xc__hypercall_buffer_alloc_pages(struct handle *h, struct buffer *b, int pages)
{
    b->hbuf = aligned_alloc(4096, 4096UL * pages);
    memset(b->hbuf, 0, 4096UL * pages);
    return b->hbuf;
}

void xc__hypercall_buffer_free_pages(struct handle *h, struct buffer *b, int pages)
{
    free(b->hbuf);
}

static int on_off(uint32_t domid, unsigned op)
{
    if ( !fake_exists(domid) || (op == 2 && fake_logdirty(domid)) )
    {
        errno = fake_exists(domid) ? EINVAL : ESRCH;
        return -1;
    }
    fake_set_logdirty(domid, op == 2);
    return 0;
}

static long long clean(struct handle *h, uint32_t domid, struct buffer *b, unsigned long pages,
                       struct stats *stats)
{
    uint8_t *bits = b->hbuf;
    unsigned i, dirty = fake_number("FAKE_DIRTY", 100);

    if ( !fake_exists(domid) || !fake_logdirty(domid) )
    {
        errno = fake_exists(domid) ? EINVAL : ESRCH;
        return -1;
    }
    /* The first one is the collector's own, before its first round. */
    for ( i = 0; h->rounds && i < dirty; i++ )
    {
        unsigned gfn = 4096 + h->rounds - 1 + i;

        bits[gfn / 8] |= 1 << gfn % 8;
    }
    stats->faults = 0;
    stats->dirty = h->rounds++ ? dirty : 0;
    return pages;
}

#ifdef OLD
int xc_shadow_control(struct handle *h, uint32_t domid, unsigned op, struct buffer *b,
                      unsigned long pages, unsigned long *mb, uint32_t mode, struct stats *stats)
{
    return op == 11 ? clean(h, domid, b, pages, stats) : on_off(domid, op);
}
#else
int xc_shadow_control(struct handle *h, uint32_t domid, unsigned op, unsigned *mb, unsigned mode)
{
    return on_off(domid, op);
}

long long xc_logdirty_control(struct handle *h, uint32_t domid, unsigned op, struct buffer *b,
                              unsigned long pages, unsigned mode, struct stats *stats)
{
    return clean(h, domid, b, pages, stats);
}
#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the mocks of a hypervisor (ops/, mock/) have in common: memory that is
 * counted and may be short, locks that are not taken twice, lists of pages.
 * Their domains and vCPUs are their own.
 */
#ifndef PML_MOCKS_H
#define PML_MOCKS_H

#define __XEN_TOOLS__ 1
#define _MM_LOCKS_H            /* the hypervisor's own is not for us */
#include <public/xen.h>
#include <public/domctl.h>
#include <public/pml.h>

#ifndef ERESTART
#define ERESTART 85
#endif

#define cf_check
#define always_inline inline __attribute__((always_inline))
#define likely(x) (x)
#define unlikely(x) (x)
#define ASSERT(x) CHECK(x, "assertion")
#define ASSERT_UNREACHABLE() CHECK(false, "unreachable")
#define BUILD_BUG_ON(x) _Static_assert(!(x), #x)
#define ACCESS_ONCE(x) (*(volatile typeof(x) *)&(x))
#define read_atomic(p) ACCESS_ONCE(*(p))
#define MASK_EXTR(v, m) (((v) & (m)) / ((m) & -(m)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define ROUNDUP(x, n) (((x) + (n) - 1) & ~((n) - 1))

/* 1 if the option is defined as 1, else 0. */
#define IS_ENABLED(option) ENABLED_1(option)
#define ENABLED_1(value) ENABLED_2(ENABLED_COMMA_ ## value)
#define ENABLED_2(comma) ENABLED_3(comma 1, 0)
#define ENABLED_3(ignored, value, ...) value
#define ENABLED_COMMA_1 0,

#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define BITS_PER_LONG 64
#define BITS_TO_LONGS(n) DIV_ROUND_UP(n, 64UL)
#define clear_page(p) memset(p, 0, PAGE_SIZE)

/****************** Memory ******************/

/*
 * Of Xen's, or of the domain's pool: a request fails if mock_alloc_left is 0;
 * below 0, none does.
 */
enum mock_kind { MOCK_NONE, MOCK_XEN, MOCK_POOL };
extern long mock_alloc_left;
extern enum mock_kind mock_failed;     /* of the first request that failed */
bool mock_may(enum mock_kind kind);

extern long mock_allocated, mock_pool; /* allocations, and pages of the pool */
extern long mock_held;                 /* bytes of both */
extern unsigned long mock_bytes;       /* of Xen's, since the domain began */
void *mock_alloc(size_t size);
void *mock_alloc_page(void);           /* not zeroed */
void mock_free(void *p);

#undef xzalloc_bytes
#undef xfree
#define xzalloc_bytes(n) mock_alloc(n)
#define xfree(p) mock_free(p)
#define vzalloc(n) mock_alloc(ROUNDUP(n, PAGE_SIZE))
#define vfree(p) mock_free(p)
#define alloc_xenheap_page() mock_alloc_page()
#define free_xenheap_page(p) mock_free(p)

struct page_info {
    struct page_info *next;            /* in a list */
    unsigned long mfn;
    uint64_t *words;
};

struct page_list_head {
    struct page_info *first, *last;
};
#define INIT_PAGE_LIST_HEAD(h) ((void)((h)->first = (h)->last = NULL))
#define page_list_first(h) ((h)->first)
#define page_list_next(pg, h) ((pg) == (h)->last ? NULL : (pg)->next)
void page_list_add_tail(struct page_info *pg, struct page_list_head *h);
struct page_info *page_list_remove_head(struct page_list_head *h);

/****************** Locks and time ******************/

typedef struct {
    bool held;
} spinlock_t;

static inline void spin_lock_init(spinlock_t *l)
{
    l->held = false;
}

static inline void spin_lock(spinlock_t *l)
{
    CHECK(!l->held, "deadlock");
    l->held = true;
}

static inline void spin_unlock(spinlock_t *l)
{
    CHECK(l->held, "not held");
    l->held = false;
}

#define spin_is_locked(l) ((l)->held)

typedef int64_t s_time_t;
uint64_t rdtsc(void);

/****************** The caller ******************/

extern bool mock_fault;                /* the caller's memory is not there */
extern unsigned long mock_locked;      /* the p2m's, while it must not copy */
#define guest_handle_is_null(h) (!(h).p)
#define copy_to_guest_offset(h, off, from, nr)                          \
    ({                                                                  \
        CHECK(!mock_locked, "copied under the p2m lock");               \
        mock_fault || !memcpy((h).p + (off), from, (nr) * sizeof(*(h).p)); \
    })

/****************** The domain ******************/

#define p2m_lock(p) (spin_lock(&(p)->lock), (void)mock_locked++)
#define p2m_unlock(p) (spin_unlock(&(p)->lock), (void)mock_locked--)
#define p2m_get_hostp2m(d) (&(d)->p2m)
#define domain_tot_pages(d) ((d)->tot_pages)
#define domain_pause(d) ((void)(d)->paused++)
#define domain_unpause(d) \
    do { CHECK((d)->paused > 0, "runs"); (d)->paused--; } while ( 0 )

#endif /* PML_MOCKS_H */

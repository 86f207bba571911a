/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A hypervisor for mm/pml in user space: a machine of a few thousand pages, a
 * domain with an EPT in them, and a processor that sets flags in it.
 *
 * What could be held for too long, or be lost, is checked: locks are not taken
 * twice, mapped pages are unmapped, a continuation can be forced anywhere.
 */
#ifndef PML_MOCK_H
#define PML_MOCK_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
#define ACCESS_ONCE(x) (*(volatile typeof(x) *)&(x))
#define MASK_EXTR(v, m) (((v) & (m)) / ((m) & -(m)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define ROUNDUP(x, n) (((x) + (n) - 1) & ~((n) - 1))

#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define BITS_PER_LONG 64
#define BITS_TO_LONGS(n) DIV_ROUND_UP(n, 64UL)

#define find_first_set_bit(x) ((unsigned int)__builtin_ctzl(x))
#define __set_bit(n, p) \
    ((void)(((unsigned long *)(p))[(n) / 64] |= 1UL << ((n) % 64)))
#define set_bit(n, p) \
    ((void)__atomic_fetch_or(p, 1UL << (n), __ATOMIC_SEQ_CST))
#define test_and_clear_bit(n, p) \
    (!!(__atomic_fetch_and(p, ~(1UL << (n)), __ATOMIC_SEQ_CST) & (1UL << (n))))
#define clear_page(p) memset(p, 0, PAGE_SIZE)

static inline unsigned int bitmap_weight(const unsigned long *p,
                                         unsigned int bits)
{
    unsigned int i, nr = 0;

    for ( i = 0; i < bits / 64; i++ )
        nr += __builtin_popcountl(p[i]);

    return nr;
}

/****************** Memory ******************/

/* Of Xen's: an allocation fails if mock_alloc_left is 0; below 0, none does. */
extern long mock_alloc_left, mock_allocated;
extern unsigned long mock_bytes;   /* asked for since the domain began */
void *mock_alloc(size_t size);
void mock_free(void *p);
/* Of the domain's pool: pages that it has given. */
extern long mock_pool;

#undef xzalloc_bytes
#undef xfree
#define xzalloc(t) ((t *)mock_alloc(sizeof(t)))
#define xzalloc_bytes(n) mock_alloc(n)
#define xmalloc_array(t, n) ((t *)mock_alloc(sizeof(t) * (n)))
#define xzalloc_array(t, n) ((t *)mock_alloc(sizeof(t) * (n)))
#define xfree(p) mock_free(p)
#define XFREE(p) do { mock_free(p); (p) = NULL; } while ( 0 )
#define vmalloc(n) mock_alloc(n)
#define vzalloc(n) mock_alloc(n)
#define vfree(p) mock_free(p)
#define alloc_xenheap_page() mock_alloc(PAGE_SIZE)
#define free_xenheap_page(p) mock_free(p)

/* The machine's. */
typedef unsigned long mfn_t, gfn_t, pfn_t;
#define _mfn(x) (x)
#define mfn_x(x) (x)
#define _gfn(x) (x)
#define _pfn(x) (x)

struct page_info {
    unsigned long mfn;
    struct page_info *next;            /* in a list */
};

struct page_list_head {
    struct page_info *first, *last;
};
#define INIT_PAGE_LIST_HEAD(h) ((void)((h)->first = (h)->last = NULL))
#define page_list_first(h) ((h)->first)
#define page_list_next(pg, h) ((pg) == (h)->last ? NULL : (pg)->next)
void page_list_add_tail(struct page_info *pg, struct page_list_head *h);
struct page_info *page_list_remove_head(struct page_list_head *h);

void *map_domain_page(mfn_t mfn);
void unmap_domain_page(const void *p);
mfn_t domain_page_map_to_mfn(const void *p);
#define mfn_to_page(m) mock_page(m)
struct page_info *mock_page(unsigned long mfn);
#define __map_domain_page(pg) map_domain_page((pg)->mfn)
#define put_page(pg) ((void)(pg), (void)mock_refs--)
extern int mock_refs, mock_mapped;

/****************** Locks, time, the caller ******************/

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
struct timer {
    int unused;
};

uint64_t rdtsc(void);
/*
 * Preempted at each chance with mock_preempt.  mock_longest: the most pages
 * that were mapped between two chances, a measure of the time that passes.
 */
extern bool mock_preempt, mock_fault;
extern unsigned int mock_locked;   /* the p2m's, while it must not copy */
extern unsigned long mock_checks, mock_longest;
bool hypercall_preempt_check(void);

#define guest_handle_is_null(h) (!(h).p)
#define copy_to_guest_offset(h, off, from, nr)                          \
    ({                                                                  \
        CHECK(!mock_locked, "copied under the p2m lock");               \
        mock_fault || !memcpy((h).p + (off), from, (nr) * sizeof(*(h).p)); \
    })

/****************** The domain ******************/

typedef enum {
    p2m_ram_rw = 0, p2m_ram_logdirty = 2, p2m_mmio_dm = 4, p2m_mmio_direct = 5,
} p2m_type_t;
#define p2m_is_ram(t) ((t) == p2m_ram_rw || (t) == p2m_ram_logdirty)

typedef union {
    struct {
        uint64_t r : 1, w : 1, x : 1, emt : 3, ipat : 1, sp : 1, a : 1, d : 1,
                 recalc : 1, snp : 1, mfn : 40, sa_p2mt : 6, access : 4,
                 _rsvd : 1, suppress_ve : 1;
    };
    uint64_t epte;
} ept_entry_t;
#define EPT_PAGETABLE_ENTRIES 512
#define EPT_TABLE_ORDER 9

struct p2m_domain {
    struct domain *domain;
    unsigned long max_mapped_pfn;
    struct {
        unsigned int wl;
        mfn_t mfn;
    } ept;
    spinlock_t lock;
    unsigned long syncs;
};

#define p2m_lock(p) (spin_lock(&(p)->lock), (void)mock_locked++)
#define p2m_unlock(p) (spin_unlock(&(p)->lock), (void)mock_locked--)
#define p2m_locked_by_me(p) spin_is_locked(&(p)->lock)
#define p2m_get_hostp2m(d) (&(d)->p2m)
#define p2m_get_pagetable(p) ((p)->ept.mfn)
#define pagetable_get_mfn(t) (t)
#define ept_sync_domain(p) ((void)(p)->syncs++)

#define X86_CR4_PSE 0x10UL

struct vcpu {
    struct domain *domain;
    unsigned int vcpu_id;
    bool online, paging, lma, pae;
    struct {
        struct {
            unsigned long guest_cr[5];
            struct {
                bool pml_watch_cr3, pml_pending;
            } vmx;
        } hvm;
    } arch;
};

#define hvm_paging_enabled(v) ((v)->paging)
#define hvm_long_mode_active(v) ((v)->lma)
#define hvm_pae_enabled(v) ((v)->pae)
#define hvm_update_guest_cr(v, n) ((void)(v))
#define is_vcpu_online(v) ((v)->online)

struct domain {
    struct p2m_domain p2m;
    unsigned int max_vcpus, tot_pages, max_pages, paused;
    struct vcpu **vcpu;
    struct {
        struct {
            struct pml_domain *pml;
            spinlock_t pml_lock;
        } hvm;
        struct {
            struct page_info *(*alloc_page)(struct domain *d);
            void (*free_page)(struct domain *d, struct page_info *pg);
        } paging;
    } arch;
    /* The log-dirty bitmap; and whether memory for it was short. */
    unsigned long *dirty;
    unsigned int dirty_failed;
};

#define domain_tot_pages(d) ((d)->tot_pages)
#define domain_pause(d) ((void)(d)->paused++)
#define domain_unpause(d) \
    do { CHECK((d)->paused > 0, "runs"); (d)->paused--; } while ( 0 )

struct tasklet {
    int unused;
};

void pml_note_cr3(struct vcpu *v);
struct page_info *get_page_from_gfn(struct domain *d, unsigned long gfn,
                                    p2m_type_t *t, unsigned int q);
void paging_mark_pfn_dirty(struct domain *d, pfn_t pfn);

/****************** For tests ******************/

#define MOCK_PAGES 12000UL
#define MOCK_DIRTY (1UL << 22)      /* bits of the log-dirty bitmap */

/* A domain without memory, and the end of it; the machine's is empty again. */
struct domain *mock_domain(unsigned int vcpus);
void mock_destroy(struct domain *d);

/*
 * Give the domain a page, all with the same content unless `own`: that is then
 * returned.  It has been neither written nor accessed.
 */
void *mock_populate(struct domain *d, unsigned long gfn, p2m_type_t type,
                    bool own);
void mock_remove(struct domain *d, unsigned long gfn);
/* The entry of a page; NULL if there is no table for it. */
ept_entry_t *mock_entry(struct domain *d, unsigned long gfn);
/* What a processor does to the EPT, and logs, when it accesses a page. */
void mock_touch(struct domain *d, unsigned long gfn, bool write);
/*
 * The same by way of the guest's page tables of 4 levels: those on the way
 * count as written.  Sets their accessed flags.  Returns the frame, ~0 if none
 * is there.
 */
unsigned long mock_access(struct domain *d, unsigned long root, uint64_t va,
                          bool write);
/* The content of a page of the guest. */
void *mock_content(struct domain *d, unsigned long gfn);

/* What was logged and not taken, and taken last. */
#define MOCK_LOG 20000
extern uint64_t mock_log[MOCK_LOG], mock_taken[MOCK_LOG];
extern unsigned int mock_logged, mock_nr_taken;

#endif /* PML_MOCK_H */

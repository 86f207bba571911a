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

#include "../mocks.h"

#define __set_bit(n, p) \
    ((void)(((unsigned long *)(p))[(n) / 64] |= 1UL << ((n) % 64)))
#define set_bit(n, p) \
    ((void)__atomic_fetch_or(p, 1UL << (n), __ATOMIC_SEQ_CST))
#define test_and_clear_bit(n, p) \
    (!!(__atomic_fetch_and(p, ~(1UL << (n)), __ATOMIC_SEQ_CST) & (1UL << (n))))

static inline unsigned int bitmap_weight(const unsigned long *p,
                                         unsigned int bits)
{
    unsigned int i, nr = 0;

    for ( i = 0; i < bits / 64; i++ )
        nr += __builtin_popcountl(p[i]);

    return nr;
}

/****************** Memory ******************/

/* The machine's. */
typedef unsigned long mfn_t, gfn_t, pfn_t;
#define _mfn(x) (x)
#define mfn_x(x) (x)
#define _gfn(x) (x)
#define _pfn(x) (x)
#define mfn_add(m, n) ((m) + (n))
#define gfn_add(g, n) ((g) + (n))
#define PAGE_ORDER_4K 0

void *map_domain_page(mfn_t mfn);
void unmap_domain_page(const void *p);
mfn_t domain_page_map_to_mfn(const void *p);
#define mfn_to_page(m) mock_page(m)
struct page_info *mock_page(unsigned long mfn);
#define __map_domain_page(pg) map_domain_page((pg)->mfn)
#define put_page(pg) ((void)(pg), (void)mock_refs--)
extern int mock_refs, mock_mapped;

/* There are no rings. */
#define MEMF_no_refcount 1U
#define PGT_writable_page 1U
#define page_to_mfn(pg) ((pg)->mfn)
#define clear_domain_page(m) ((void)(m))
#define alloc_domheap_page(d, flags) ((struct page_info *)NULL)
#define get_page_and_type(pg, d, type) ((void)(pg), false)
#define put_page_alloc_ref(pg) ((void)(pg))
#define put_page_and_type(pg) ((void)(pg))

/****************** Time ******************/

struct timer {
    int unused;
};

/*
 * Preempted at each chance with mock_preempt.  mock_longest: the most pages
 * that were mapped between two chances, a measure of the time that passes.
 */
extern bool mock_preempt;
extern unsigned long mock_checks, mock_longest;
bool hypercall_preempt_check(void);

/****************** The domain ******************/

typedef enum {
    p2m_ram_rw = 0, p2m_ram_logdirty = 2, p2m_mmio_dm = 4, p2m_mmio_direct = 5,
} p2m_type_t;
#define p2m_is_ram(t) ((t) == p2m_ram_rw || (t) == p2m_ram_logdirty)
typedef int p2m_access_t;

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
    int (*set_entry)(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                     unsigned int order, p2m_type_t t, p2m_access_t a, int sve);
};

#define p2m_locked_by_me(p) spin_is_locked(&(p)->lock)
#define p2m_get_pagetable(p) ((p)->ept.mfn)
#define pagetable_get_mfn(t) (t)
#define ept_sync_domain(p) ((void)(p)->syncs++)

#define X86_CR4_PSE 0x10UL

struct vcpu {
    struct domain *domain;
    unsigned int vcpu_id;
    bool online, paging, lma, pae;
    struct {
        void *vm_event;             /* there is a monitor */
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of a hypervisor as the operations of mm/pml need in user space: a
 * domain that can be paused, callers, time, preemption, memory that is counted.
 */
#ifndef PML_OPS_MOCK_H
#define PML_OPS_MOCK_H

#include "../mocks.h"

#define PAGE_ORDER_4K 0
#define PAGE_ORDER_2M 9
#define INVALID_GFN (~0UL)
#define smp_processor_id() 0U

typedef unsigned long gfn_t;
typedef struct page_info *mfn_t;
#define _gfn(x) (x)

/****************** Time ******************/

extern s_time_t mock_now;
#define NOW() mock_now
#define SECONDS(s) ((s) * 1000000000LL)
#define cpu_khz 1000U

struct timer {
    void (*function)(void *data);
    void *data;
    s_time_t expires;
    bool set;
};
void init_timer(struct timer *t, void (*function)(void *), void *data,
                unsigned int cpu);
void set_timer(struct timer *t, s_time_t expires);
void kill_timer(struct timer *t);
#define stop_timer(t) ((void)((t)->set = false))
void mock_pass(s_time_t time);         /* time passes, timers fire */

struct tasklet {
    int unused;
};
#define tasklet_init(t, f, p) ((void)(f))
#define tasklet_kill(t) ((void)(t))

/****************** The memory of rings ******************/

#define MEMF_no_refcount 1U
#define PGT_writable_page 1U
#define INVALID_MFN NULL
#define mfn_x(m) ((unsigned long)(m))
#define mfn_eq(a, b) ((a) == (b))
#define mfn_to_page(m) (m)
#define page_to_mfn(pg) (pg)
#define clear_domain_page(m) clear_page((m)->words)
#define array_index_nospec(i, n) (i)
struct domain;
struct page_info *alloc_domheap_page(struct domain *d, unsigned int flags);
#define get_page_and_type(pg, d, type) ((pg)->mfn = 2, true)
void put_page_and_type(struct page_info *pg);
#define put_page_alloc_ref(pg) put_page_and_type(pg)
/* Room of its own, as nobody looks into the pages themselves. */
void *vmap(const mfn_t *mfns, unsigned int nr);
void vunmap(void *p);

#define __map_domain_page(pg) ((pg)->words)
#define unmap_domain_page(p) ((void)(p))

/****************** The caller ******************/

extern bool (*mock_preempt)(void);
#define hypercall_preempt_check() mock_preempt()

#define __copy_field_to_guest(h, from, field) \
    (mock_fault || ((h).p->field = (from)->field, 0))

struct current {
    struct domain *domain;
};
extern struct current *current;

#define XSM_HOOK 0
#define XSM_PRIV 0
extern int mock_denied;
#define xsm_pml_op(a, d) mock_denied
#define xsm_shadow_control(a, d, op) mock_denied
#define XENLOG_G_WARNING ""
#define printk(args...) ((void)0)

/****************** The domain ******************/

typedef int p2m_access_t;
typedef enum { p2m_ram_rw, p2m_ram_logdirty } p2m_type_t;

struct p2m_domain {
    struct domain *domain;
    unsigned long max_mapped_pfn;
    spinlock_t lock;
    bool pml_logged, pml_harvested;
    struct {
        int entry_count;
    } ioreq;
    int (*recalc)(struct p2m_domain *p2m, unsigned long gfn);
    mfn_t (*get_entry)(struct p2m_domain *p2m, gfn_t gfn, p2m_type_t *t,
                       p2m_access_t *a, unsigned int q, unsigned int *order,
                       bool *sve);
    int (*set_entry)(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                     unsigned int order, p2m_type_t t, p2m_access_t a, int sve);
};
#define p2m_set_entry(p, g, m, o, t, a) (p)->set_entry(p, g, m, o, t, a, -1)
#define domain_get_maximum_gpfn(d) ((d)->p2m.max_mapped_pfn)
#define ept_sync_domain(p) ((void)(p)->domain->syncs++)

struct vcpu {
    struct domain *domain;
    unsigned int vcpu_id;
    struct {
        struct {
            struct {
                bool pml_logged, pml_pending, pml_watch_cr3;
                uint64_t pml_exits, pml_exit_tsc;
                struct page_info *pml_pg;
            } vmx;
        } hvm;
    } arch;
};

struct domain {
    domid_t domain_id;
    bool is_dying, log_dirty, write_protects;
    struct p2m_domain p2m;
    unsigned int max_vcpus, tot_pages, max_pages;
    struct vcpu **vcpu;
    int paused;                /* how often */
    unsigned long syncs, taken;
    struct {
        struct {
            struct pml_domain *pml;
            spinlock_t pml_lock;
            unsigned int pml_frames;
        } hvm;
        struct {
            struct page_info *(*alloc_page)(struct domain *d);
            void (*free_page)(struct domain *d, struct page_info *pg);
            struct {
                const struct domain *dom;
            } preempt;
        } paging;
    } arch;
};

#define is_hvm_domain(d) ((void)(d), true)
#define hap_enabled(d) ((void)(d), true)
#define cpu_has_vmx_pml true
#define has_arch_pdevs(d) ((void)(d), false)
#define nestedhvm_enabled(d) ((void)(d), false)
#define altp2m_active(d) ((void)(d), false)
#define paging_mode_log_dirty(d) ((d)->log_dirty)
#define vmx_domain_pml_enabled(d) ((d)->log_dirty && !(d)->write_protects)
#define vmx_domain_disable_pml(d) ((void)((d)->log_dirty = false))
#define domain_vcpu(d, i) ((i) < (d)->max_vcpus ? (d)->vcpu[i] : NULL)
#define for_each_vcpu(d, v)                                             \
    for ( unsigned int i_ = 0;                                          \
          i_ < (d)->max_vcpus && ((v) = (d)->vcpu[i_]); i_++ )

/* The lower layers, and the log-dirty bitmap: see test-ops.c. */
int paging_log_dirty_start(struct domain *d);
int paging_log_dirty_stop(struct domain *d, bool resuming);
void paging_log_dirty_adopt(struct domain *d);

/* The EPT's. */
unsigned int ept_pml_rearm(struct p2m_domain *p2m, const uint64_t *entries,
                           unsigned int nr);
void ept_pml_rearm_region(struct p2m_domain *p2m, unsigned long gfn);

#endif /* PML_OPS_MOCK_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of a hypervisor as the operations of mm/pml need in user space: a
 * domain that can be paused, callers, time, preemption, memory that is counted.
 */
#ifndef PML_OPS_MOCK_H
#define PML_OPS_MOCK_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_PML 1
#define __XEN_TOOLS__ 1
#define _MM_LOCKS_H            /* the hypervisor's own is not for us */
#include <public/xen.h>
#include <public/domctl.h>
#include <public/pml.h>

#ifndef ERESTART
#define ERESTART 85
#endif

#define CHECK(cond, fmt, args...)                                       \
    do {                                                                \
        if ( !(cond) )                                                  \
        {                                                               \
            fprintf(stderr, "%s:%d: %s: " fmt "\n", __FILE__, __LINE__, \
                    #cond, ## args);                                    \
            abort();                                                    \
        }                                                               \
    } while ( 0 )

#define cf_check
#define likely(x) (x)
#define unlikely(x) (x)
#define ASSERT(x) CHECK(x, "assertion")
#define BUILD_BUG_ON(x) _Static_assert(!(x), #x)
#define ASSERT_UNREACHABLE() CHECK(false, "unreachable")
#define MASK_EXTR(v, m) (((v) & (m)) / ((m) & -(m)))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define ROUNDUP(x, n) (((x) + (n) - 1) & ~((n) - 1))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define BITS_PER_LONG 64
#define BITS_TO_LONGS(n) DIV_ROUND_UP(n, 64UL)
#define PAGE_ORDER_4K 0
#define INVALID_GFN (~0UL)
#define find_first_set_bit(x) ((unsigned int)__builtin_ctzl(x))
#define read_atomic(p) (*(p))
#define smp_processor_id() 0U

typedef int64_t s_time_t;
typedef unsigned long mfn_t, gfn_t;
#define _gfn(x) (x)

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

extern s_time_t mock_now;
extern unsigned long mock_locked;      /* the p2m's, while it must not copy */
#define NOW() mock_now
#define SECONDS(s) ((s) * 1000000000LL)
#define cpu_khz 1000U
uint64_t rdtsc(void);

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

/****************** Memory ******************/

/* An allocation fails if mock_alloc_left is 0; below 0, none does. */
extern long mock_alloc_left, mock_allocated;
void *mock_alloc(size_t size);
void mock_free(void *p);

#undef xfree
#define xzalloc_flex_struct(t, m, n) \
    ((t *)mock_alloc(sizeof(t) + (n) * sizeof(((t *)0)->m[0])))
#define xmalloc_array(t, n) ((t *)mock_alloc(sizeof(t) * (n)))
#define xfree(p) mock_free(p)
#define XFREE(p) do { mock_free(p); (p) = NULL; } while ( 0 )
#define vmalloc(n) mock_alloc(n)
#define vfree(p) mock_free(p)
#define alloc_xenheap_page() mock_alloc(PAGE_SIZE)
#define free_xenheap_page(p) mock_free(p)

struct page_info {
    struct page_info *next;
    uint64_t words[PAGE_SIZE / sizeof(uint64_t)];
};

struct page_list_head {
    struct page_info *first, *last;
};
#define INIT_PAGE_LIST_HEAD(h) ((void)((h)->first = (h)->last = NULL))
#define page_list_first(h) ((h)->first)
#define page_list_next(pg, h) ((pg)->next)
void page_list_add_tail(struct page_info *pg, struct page_list_head *h);
struct page_info *page_list_remove_head(struct page_list_head *h);
#define __map_domain_page(pg) ((pg)->words)
#define unmap_domain_page(p) ((void)(p))

/****************** The caller ******************/

extern bool (*mock_preempt)(void);
#define hypercall_preempt_check() mock_preempt()

extern bool mock_fault;                /* the caller's memory is not there */
#define guest_handle_is_null(h) (!(h).p)
#define copy_to_guest_offset(h, off, from, nr)                          \
    ({                                                                  \
        CHECK(!mock_locked, "copied under the p2m lock");               \
        mock_fault || !memcpy((h).p + (off), from, (nr) * sizeof(*(h).p)); \
    })
#define __copy_field_to_guest(h, from, field) \
    (mock_fault || ((h).p->field = (from)->field, 0))

struct domain;
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
};
#define p2m_lock(p) (spin_lock(&(p)->lock), (void)mock_locked++)
#define p2m_unlock(p) (spin_unlock(&(p)->lock), (void)mock_locked--)
#define p2m_get_hostp2m(d) (&(d)->p2m)
#define p2m_set_entry(p, g, m, o, t, a) ((void)(m), (void)(a), 0)
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
    bool is_dying, log_dirty;
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
#define vmx_domain_pml_enabled(d) ((d)->log_dirty)
#define vmx_domain_disable_pml(d) ((void)((d)->log_dirty = false))
#define domain_tot_pages(d) ((d)->tot_pages)
#define domain_pause(d) ((void)(d)->paused++)
#define domain_unpause(d) \
    do { CHECK((d)->paused > 0, "runs"); (d)->paused--; } while ( 0 )
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

#endif /* PML_OPS_MOCK_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Handing out what Page Modification Logging (PML) logs of a domain.
 *
 * While a domain is active in here, all of its RAM has the type
 * p2m_ram_logdirty, is mapped by 4k pages and writable, and stays so: a page
 * that the hardware has logged is one whose dirty flag is set, and nothing
 * else about its EPT entry changes.  (Stock log-dirty turns a logged page into
 * p2m_ram_rw, and everything back by misconfiguring the EPT.)  The pages go
 * into the log-dirty bitmap as well, so migration and this exclude each other.
 *
 *   core.c     enabling, disabling, status: the domctl
 *   op.c       one operation at a time, and its continuations
 *   refuse.c   which domains cannot be logged
 *   buffer.c   the hardware's buffers
 *   drain.c    from them to the bitmap and the log
 *   logdirty.c the log-dirty bitmap
 *   round.c    closing a round: bitmap, re-arming
 *   ring.c     the log: a ring of records that the control domain maps
 *   log.c      its memory
 *   walk.c     page tables of a guest: walking and reading them
 *   tables.c   which frames are page tables
 *   clear.c    clearing the accessed flags in them
 *   ept.c      accessed and dirty flags in the EPT
 *   harvest.c  accessed flags
 *   guide.c    which frames a page table leads to
 *   spool.c    frames that were touched, until they are fetched
 *   regions.c  what is known of frames, by regions of 2 MiB
 *   memory.c   all memory that is held for a log
 *
 * Locking: the domctl lock serialises all calls, op.c operations that consist
 * of several.  A vCPU's buffers are drained under its own lock, which nests
 * outside of the mm locks.
 *
 * Nothing outside of mm/pml looks into struct pml_domain.  A vCPU does so (by
 * the functions of asm/pml.h) if its pml_logged is set, which is done and
 * undone with the domain paused.  p2m code has flags of its own in the p2m,
 * under its lock.  d->arch.hvm.pml itself is set and cleared under
 * d->arch.hvm.pml_lock, which is for those that are neither a domctl nor the
 * domain.
 */
#ifndef X86_MM_PML_PRIVATE_H
#define X86_MM_PML_PRIVATE_H

#include <xen/domain_page.h>
#include <xen/event.h>
#include <xen/guest_access.h>
#include <xen/hypercall.h>
#include <xen/pml.h>
#include <xen/sched.h>
#include <xen/tasklet.h>
#include <xen/timer.h>
#include <xen/vmap.h>
#include <public/pml.h>
#include <asm/hvm/vmx/vmcs.h>
#include <asm/hvm/vmx/vmx.h>
#include <asm/p2m.h>
#include <asm/paging.h>
#include <asm/pml.h>

#include "../mm-locks.h"
#include "ept.h"
#include "guide.h"
#include "refuse.h"
#include "regions.h"
#include "ring.h"
#include "walk.h"

#define PAGES_PER_LEAF (PAGE_SIZE * 8)     /* of the log-dirty bitmap */
#define PAGES_PER_TABLE EPT_PAGETABLE_ENTRIES
#define MAX_ROOTS 32

struct pml_vcpu {
    spinlock_t lock;          /* draining, and all below */
    uint64_t tsc_start;       /* when the hardware began to fill its buffer */
    unsigned int taken;       /* entries in it, while a round is being closed */

    struct pml_ring ring;
    mfn_t *mfns;              /* the frames of the ring... */
    unsigned int nr_mfns;     /* ... so many, while they are got or freed */
    void *map;

    /* Pages logged since the last re-arm (REARM_FLUSH, every > 1). */
    uint64_t *pending;
    unsigned int nr_pending, flushes;

    /* Page tables that this vCPU was seen to use in this round. */
    struct pml_root roots[MAX_ROOTS];
    unsigned int nr_roots;
    unsigned int roots_dropped; /* for want of room, and not known already */
    bool unpaged;             /* it was seen to run without paging */

    struct vcpu *vcpu;
    /* Buffers which are empty, and those which are full, oldest first. */
    struct page_info *spare[XEN_PML_MAX_BUFFERS];
    struct {
        struct page_info *pg;
        uint64_t start, end;
    } full[XEN_PML_MAX_BUFFERS];
    unsigned int nr_spare, nr_full;
    struct tasklet tasklet;
    unsigned int helper;      /* CPU that was asked to drain last */

    uint64_t drains, drain_tsc, entries;
    uint64_t rearmed;
    uint64_t dropped;
    uint64_t deferred, waited;
};

/* An operation goes through these in order; it can be preempted in each. */
enum pml_phase {
    PHASE_IDLE,
    PHASE_ALLOC,              /* pml_enable... */
    PHASE_SPOOL,
    PHASE_START,
    PHASE_PREPARE,
    PHASE_ROOM,               /* pml_close_round... */
    PHASE_TAKE,               /* ... and the end of pml_enable */
    PHASE_WALK,
    PHASE_DRAIN,
    PHASE_TABLES,
    PHASE_BITMAP,
    PHASE_RESCUE,
    PHASE_GUIDE,
    PHASE_GUIDED,
    PHASE_UNPAGED,
    PHASE_ACCESSED,
    PHASE_FORGET,
    PHASE_CLOSED,
    PHASE_QUIET,              /* pml_disable, and pml_enable that has failed */
    PHASE_UNWATCH,
    PHASE_STOP,
    PHASE_STOPPING,
    PHASE_FREE,
};

/* The operation that goes on, see op.c. */
struct pml_operation {
    uint32_t cmd;             /* XEN_DOMCTL_pml_*, 0: none */
    domid_t caller;
    uint32_t cookie;          /* not 0 */
    bool held;                /* it has paused the domain */

    spinlock_t lock;
    bool away;                /* it is to be continued before the deadline */
    s_time_t deadline;
    struct timer timer;
};

struct pml_tables;

/* Frames that were touched, on their way to the spool. */
struct pml_touched {
    uint64_t *words;          /* room for TOUCHED_WORDS */
    unsigned int nr;
};
#define TOUCHED_BYTES (2 * PAGE_SIZE)
#define TOUCHED_WORDS (TOUCHED_BYTES / sizeof(uint64_t))

/* And in there. */
struct pml_spool {
    struct page_list_head pages;
    unsigned long nr_pages;
    uint64_t nr, lost;        /* words in it, and those it had no room for */
    struct page_info *put;    /* the page that the next word goes to */
    uint64_t got;             /* words which have been fetched */
    struct page_info *get;
    uint32_t round;           /* that they are of... */
    bool whole;               /* ... which has been closed */
};

struct pml_domain {
    struct domain *domain;
    struct xen_domctl_pml_enable options;
    unsigned int state;       /* XEN_PML_STATE_* */
    uint32_t round;
    uint64_t generation;
    uint64_t superpages, bitmap_failed, entries_before, rearmed;

    /* An operation that goes on in a continuation, and how far it is. */
    struct pml_operation op;
    enum pml_phase phase;
    unsigned long at;
    bool started;             /* log-dirty mode has been switched on */
    bool fault;               /* a buffer could not be written */
    int error;                /* why enabling is being undone */
    bool pool_short;          /* the pool for paging had no page left */
    uint64_t held;            /* memory, see memory.c */
    struct xen_domctl_pml_round asked, result;
    uint64_t phase_tsc[PHASE_CLOSED - PHASE_TAKE];
    struct xen_domctl_pml_costs costs;

    unsigned long *leaf;      /* a page of the log-dirty bitmap... */
    unsigned int leaf_word;   /* ... and the word from which on it is to be
                                 re-armed, 0 if none is begun */
    struct pml_regions regions;
    struct pml_guide guide;
    struct pml_touched touched;
    struct pml_spool spool;
    uint32_t sample;          /* flags of the sampled scans so far */
    struct pml_tables *tables;
    unsigned int nr_vcpus;
    struct pml_vcpu vcpu[];
};

static inline struct pml_vcpu *pml_vcpu(const struct vcpu *v)
{
    return &v->domain->arch.hvm.pml->vcpu[v->vcpu_id];
}

static inline bool pml_logging(const struct pml_domain *pml)
{
    return pml->state == XEN_PML_STATE_LOGGING;
}

/* memory.c */

/* Zeroed memory, counted in *held; NULL if there is none. */
void *pml_get(uint64_t *held, size_t size);
void pml_put(uint64_t *held, void *p, size_t size);

/* A page of the domain's pool for paging.  It is not zeroed. */
struct page_info *pml_get_page(struct domain *d, struct pml_domain *pml);
void pml_put_page(struct domain *d, struct pml_domain *pml,
                  struct page_info *pg);

/* A zeroed page that the control domain can map. */
struct page_info *pml_get_shared(struct domain *d, struct pml_domain *pml);
void pml_put_shared(struct pml_domain *pml, struct page_info *pg);

/* All that is held for the log now, in bytes. */
uint64_t pml_memory(const struct pml_domain *pml);

/* op.c */

void pml_op_init(struct domain *d, struct pml_domain *pml);
void pml_op_kill(struct pml_domain *pml);

/* A call: does it go on with the operation, or may it begin another one? */
int pml_op_enter(struct domain *d, struct pml_domain *pml,
                 const struct xen_domctl_pml_op *op);
void pml_op_begin(struct pml_domain *pml, uint32_t cmd);

/* Its end, or (-ERESTART) that of this piece of it. */
int pml_op_leave(struct domain *d, struct pml_domain *pml, int rc,
                 struct xen_domctl *domctl,
                 XEN_GUEST_HANDLE_PARAM(xen_domctl_t) u_domctl);

/* Pause the domain for an operation, until it is released. */
void pml_hold(struct domain *d, struct pml_domain *pml);
void pml_release(struct domain *d, struct pml_domain *pml);

/* Are exits of its vCPUs for us?  The domain is paused. */
void pml_vcpus_logged(struct domain *d, bool logged);

void pml_break_off(struct domain *d, struct pml_domain *pml);

/* spool.c */

/* Get memory for what a round can have touched.  Preemptible. */
int pml_spool_room(struct domain *d, struct pml_domain *pml);
int pml_spool_free(struct domain *d, struct pml_domain *pml);

void pml_spool_begin(struct pml_spool *s);
void pml_spool_put(struct pml_spool *s, const uint64_t *words, unsigned int nr);
void pml_spool_end(struct pml_spool *s, uint32_t round);
int pml_spool_fetch(struct pml_spool *s, struct xen_domctl_pml_fetch *op);

/* buffer.c */

unsigned int pml_swap_buffer(struct vcpu *v, struct page_info *pg);
bool pml_in_cpu(void);

/* logdirty.c */

/* Mark the pages of guest physical addresses as dirty. */
void pml_mark_dirty(struct domain *d, const uint64_t *addrs, unsigned int nr);
bool pml_dirty_leaf(struct domain *d, unsigned long *pfn,
                    unsigned long max_pfn, unsigned long *buf,
                    unsigned int *nr, bool clear);
unsigned int pml_dirty_failed(struct domain *d, bool reset);

/* drain.c */

/*
 * Take what is in the buffer of a paused vCPU: from now on, it counts as
 * logged.  pml_drain_taken() drains it.
 */
void pml_take(struct vcpu *v);
void pml_drain_taken(struct vcpu *v, unsigned int reason);
void pml_drain_deferred(struct vcpu *v);
void cf_check pml_drain_tasklet(void *data);

/* round.c */

uint64_t pml_total_entries(const struct pml_domain *pml);

/*
 * Everything that ends a round, and (without op) what makes the first one
 * begin.  pml_begin_close() pauses the domain; it still is when pml_do_close()
 * returns.
 */
void pml_begin_close(struct domain *d, struct pml_domain *pml);
int pml_do_close(struct domain *d, struct pml_domain *pml,
                 const struct xen_domctl_pml_round *op);
int pml_close_round(struct domain *d, struct pml_domain *pml,
                    struct xen_domctl_pml_round *op, uint16_t *why);

/* The moment from which on a new round is being logged. */
void pml_open_round(struct domain *d, struct pml_domain *pml);

/* log.c */

/* Both are preemptible. */
int pml_alloc_log(struct vcpu *v, struct pml_domain *pml, struct pml_vcpu *pv);
int pml_free_log(struct pml_domain *pml, struct pml_vcpu *pv);

/* tables.c */

int pml_alloc_tables(struct domain *d, struct pml_domain *pml);
/*
 * Free what is known of frames and tables, up to so much of it.  Returns
 * whether all is gone.  The domain may run: its vCPUs are not logged any more.
 */
bool pml_free_tables(struct pml_domain *pml, unsigned int budget);
unsigned int pml_nr_tables(const struct pml_domain *pml);
/* Write XEN_PML_KIND_* into the low bits of entries that were logged. */
void pml_add_kinds(const struct pml_domain *pml, uint64_t *entries,
                   unsigned int nr);

/* Entries have been logged: note which of them are known page tables. */
void pml_tables_logged(struct pml_domain *pml, const uint64_t *entries,
                       unsigned int nr);

/* The same, and write kind and level into the low bits of the entries. */
void pml_classify(struct domain *d, uint64_t *entries, unsigned int nr);

/* Find the page tables that are in use.  The domain is paused. */
int pml_walk_tables(struct domain *d, struct pml_domain *pml);

/* After a walk: take snapshots of the tables that were logged in the round. */
int pml_snapshots(struct domain *d, struct pml_domain *pml);

/*
 * The next round is to begin: forget those tables which were logged, but are
 * not found in any tree any more.
 */
int pml_tables_round(struct pml_domain *pml, bool armed);

/* A vCPU's CR3, as it is at a VM exit. */
void pml_note_cr3(struct vcpu *v);

/* clear.c: watch loads of CR3 in the next round?  The domain is paused. */
void pml_watch_cr3(struct domain *d, struct pml_domain *pml, bool watch);

/*
 * Note in pml->guide what a table that was logged in the round maps, and go on
 * to the next piece of work at *at.  Returns false if there is none.
 */
bool pml_note_logged(struct domain *d, struct pml_domain *pml,
                     unsigned long *at);

/* harvest.c */

/*
 * Of the bitmap of dirty or accessed pages: the first page that the caller has
 * no room for, ~0 if there is no bitmap; and the only way of writing to it: the
 * leaf in pml->leaf, which begins with pfn.
 */
unsigned long pml_leaves_end(const struct xen_domctl_pml_round *op,
                             bool accessed);
void pml_copy_leaf(struct pml_domain *pml,
                   const struct xen_domctl_pml_round *op, bool accessed,
                   unsigned long pfn);

/* May a round be closed with such a scan? */
int pml_check_scan(const struct pml_domain *pml,
                   const struct xen_domctl_pml_round *op);

/* Collect and clear the accessed flags of the whole domain. */
int pml_close_accessed(struct domain *d, struct pml_domain *pml,
                       const struct xen_domctl_pml_round *op);

int pml_alloc_touched(const struct domain *d, struct pml_domain *pml);
void pml_free_touched(struct pml_domain *pml);

/* Make room for 512 more frames. */
void pml_touched_room(struct pml_domain *pml);
/* What there is goes to the spool. */
void pml_touched_flush(struct pml_domain *pml);

/* Take these logged pages: re-arm them, and hand out what kind they are. */
void pml_touched_logged(struct domain *d, struct pml_domain *pml,
                        uint64_t *entries, unsigned int nr);

/* Note which frames the page tables logged in the round lead to... */
int pml_close_guide(struct domain *d, struct pml_domain *pml);
/* ... and collect and clear the accessed flags of those. */
int pml_close_guided(struct domain *d, struct pml_domain *pml);
/* And all else, if not all that was touched can be below those. */
int pml_close_unpaged(struct domain *d, struct pml_domain *pml);

#endif /* X86_MM_PML_PRIVATE_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

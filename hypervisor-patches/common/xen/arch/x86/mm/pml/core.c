/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Enabling and disabling the log of a domain, and the domctl.
 */
#include <xsm/xsm.h>
#include <asm/altp2m.h>
#include <asm/hvm/nestedhvm.h>

#include "private.h"

/* Of one with so many vCPUs. */
static size_t domain_size(unsigned int nr_vcpus)
{
    return sizeof(struct pml_domain) + nr_vcpus * sizeof(struct pml_vcpu);
}

static size_t pending_size(const struct pml_domain *pml)
{
    return (pml->options.rearm_every - 1) * PAGE_SIZE;
}

static int alloc_vcpu(struct vcpu *v, struct pml_domain *pml)
{
    struct pml_vcpu *pv = &pml->vcpu[v->vcpu_id];

    if ( pml->options.rearm == XEN_PML_REARM_FLUSH &&
         pml->options.rearm_every > 1 && !pv->pending )
    {
        pv->pending = pml_get(&pml->held, pending_size(pml));
        if ( !pv->pending )
            return -ENOMEM;
    }

    while ( pv->nr_spare < pml->options.buffers - 1 )
    {
        struct page_info *pg = pml_get_page(v->domain, pml);

        if ( !pg )
            return -ENOMEM;
        pv->spare[pv->nr_spare++] = pg;
    }

    return pml_alloc_log(v, pml, pv);
}

/* How far anything can be used depends on these. */
static void set_logged(struct domain *d, bool logged, bool harvested)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);

    pml_vcpus_logged(d, logged);
    p2m_lock(p2m);
    p2m->pml_logged = logged;
    p2m->pml_harvested = harvested;
    p2m_unlock(p2m);
}

/* The domain is paused.  Nobody but us looks at what there is from here on. */
static void no_more_logs(struct domain *d, struct pml_domain *pml)
{
    set_logged(d, false, false);
    spin_lock(&d->arch.hvm.pml_lock);
    pml->state = XEN_PML_STATE_BROKEN;
    spin_unlock(&d->arch.hvm.pml_lock);
}

static int free_vcpu(struct domain *d, struct pml_domain *pml, unsigned int i)
{
    struct pml_vcpu *pv = &pml->vcpu[i];

    tasklet_kill(&pv->tasklet);
    if ( pml_free_log(pml, pv) )
        return -ERESTART;

    pml_put(&pml->held, pv->pending, pending_size(pml));
    pv->pending = NULL;
    while ( pv->nr_spare )
        pml_put_page(d, pml, pv->spare[--pv->nr_spare]);
    while ( pv->nr_full )
        pml_put_page(d, pml, pv->full[--pv->nr_full].pg);
    if ( d->vcpu[i] )
        d->vcpu[i]->arch.hvm.vmx.pml_pending = false;

    return 0;
}

/* What everything else is kept in goes last: nothing is left of it then. */
static void free_domain(struct pml_domain *pml)
{
    uint64_t held = pml->held;

    pml_put(&held, pml->leaf, PAGE_SIZE);
    pml_put(&held, pml, domain_size(pml->nr_vcpus));
    ASSERT(!held);
}

/* Free so much of what is known of frames between two checks. */
#define FREE_AT_ONCE 64

/* Preemptible. */
static int free_all(struct domain *d, struct pml_domain *pml)
{
    while ( pml->at < pml->nr_vcpus )
    {
        if ( free_vcpu(d, pml, pml->at) )
            return -ERESTART;
        if ( ++pml->at < pml->nr_vcpus && pml_preempt_check() )
            return -ERESTART;
    }

    while ( !pml_free_tables(pml, FREE_AT_ONCE) )
        if ( pml_preempt_check() )
            return -ERESTART;

    if ( pml_spool_free(d, pml) )
        return -ERESTART;

    spin_lock(&d->arch.hvm.pml_lock);
    d->arch.hvm.pml = NULL;
    d->arch.hvm.pml_frames = 0;
    spin_unlock(&d->arch.hvm.pml_lock);

    pml_op_kill(pml);
    pml_free_touched(pml);
    free_domain(pml);

    return 0;
}

static int refusal(const struct domain *d, uint16_t *told)
{
    bool hvm = is_hvm_domain(d);
    const struct pml_facts facts = {
        .dying = d->is_dying,
        .self = d == current->domain,
        .hvm = hvm,
        .hap = hvm && hap_enabled(d),
        .pml = cpu_has_vmx_pml,
        .pml_in_cpu = pml_in_cpu(),
        /* They are created in order.  None may be added between two pieces. */
        .vcpus = d->vcpu && d->vcpu[d->max_vcpus - 1],
        .devices = has_arch_pdevs(d),
        .nested = nestedhvm_enabled(d),
        .altp2m = altp2m_active(d),
        .active = pml_active(d),
        .log_dirty = paging_mode_log_dirty(d) || d->arch.paging.preempt.dom,
        .ioreq_pages = hvm &&
            read_atomic(&p2m_get_hostp2m(d)->ioreq.entry_count),
    };
    uint32_t why = XEN_PML_REFUSED_NOT;
    int rc = pml_refuse(&facts, &why);

    *told = why;

    return rc;
}

static int check_options(struct xen_domctl_pml_enable *op)
{
    const uint32_t known =
        XEN_PML_OPT_TABLES | XEN_PML_OPT_DROP | XEN_PML_OPT_SNAPSHOTS |
        XEN_PML_OPT_ACCESSED | XEN_PML_OPT_CLEAR;

    if ( op->pad )
        return -EINVAL;
    if ( !op->slots )
        op->slots = XEN_PML_DEFAULT_SLOTS;
    if ( !op->buffers )
        op->buffers = 2;
    if ( !op->rearm_every )
        op->rearm_every = 1;

    if ( !pml_ring_valid_slots(op->slots) ||
         op->buffers > XEN_PML_MAX_BUFFERS || op->rearm > XEN_PML_REARM_FLUSH ||
         op->rearm_every > XEN_PML_MAX_REARM_EVERY )
        return -EINVAL;
    if ( op->flags & ~known )
        return -EOPNOTSUPP;
    if ( (op->flags & (XEN_PML_OPT_DROP | XEN_PML_OPT_SNAPSHOTS)) &&
         !(op->flags & XEN_PML_OPT_TABLES) )
        return -EINVAL;
    /* Flags that were cleared are of a round if its tables are logged again. */
    if ( (op->flags & XEN_PML_OPT_CLEAR) &&
         (!(op->flags & XEN_PML_OPT_SNAPSHOTS) ||
          op->rearm == XEN_PML_REARM_NEVER) )
        return -EINVAL;

    return 0;
}

/* What has been logged until now: of no use if an operation was broken off. */
static int drain_all(struct domain *d, struct pml_domain *pml)
{
    while ( pml_logging(pml) && pml->at < pml->nr_vcpus )
    {
        struct vcpu *v = d->vcpu[pml->at];

        if ( v )
        {
            pml_take(v);
            pml_drain_taken(v, XEN_PML_REASON_STOP);
        }
        if ( ++pml->at < pml->nr_vcpus && pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

/* Undo everything, from wherever enabling has come to.  Preemptible. */
static int undo(struct domain *d, struct pml_domain *pml)
{
    int rc;

    if ( pml->phase < PHASE_QUIET )
    {
        pml->at = 0;
        pml->phase = PHASE_QUIET;
    }

    switch ( pml->phase )
    {
    case PHASE_QUIET:
        pml_hold(d, pml);
        rc = drain_all(d, pml);
        if ( rc )
            return rc;
        pml->phase = PHASE_UNWATCH;
        /* Fall through. */

    case PHASE_UNWATCH:
        if ( pml->tables )
            pml_watch_cr3(d, pml, false);
        pml->phase = PHASE_STOP;
        /* Fall through. */

    case PHASE_STOP:
        rc = pml->started ? paging_log_dirty_stop(d, false) : 0;
        no_more_logs(d, pml);
        pml_release(d, pml);
        pml->phase = rc == -ERESTART ? PHASE_STOPPING : PHASE_FREE;
        if ( rc == -ERESTART )
            return rc;
        return free_all(d, pml);

    case PHASE_STOPPING:
        rc = paging_log_dirty_stop(d, true);
        if ( rc == -ERESTART )
            return rc;
        pml->phase = PHASE_FREE;
        /* Fall through. */

    default:
        return free_all(d, pml);
    }
}

static int begin_enable(struct domain *d,
                        const struct xen_domctl_pml_enable *op)
{
    static uint64_t generation;
    struct pml_domain *pml;
    uint64_t held = 0;
    unsigned int i;
    int rc = 0;

    pml = pml_get(&held, domain_size(d->max_vcpus));
    if ( !pml )
        return -ENOMEM;

    pml->held = held;
    pml->options = *op;
    pml->state = XEN_PML_STATE_STARTING;
    pml->nr_vcpus = d->max_vcpus;
    pml->generation = ++generation;
    pml->phase = PHASE_ALLOC;
    INIT_PAGE_LIST_HEAD(&pml->spool.pages);
    pml->leaf = pml_get(&pml->held, PAGE_SIZE);
    if ( !pml->leaf )
    {
        free_domain(pml);
        return -ENOMEM;
    }

    for ( i = 0; i < pml->nr_vcpus; i++ )
    {
        spin_lock_init(&pml->vcpu[i].lock);
        pml->vcpu[i].vcpu = d->vcpu[i];
        tasklet_init(&pml->vcpu[i].tasklet, pml_drain_tasklet, &pml->vcpu[i]);
    }

    pml_op_init(d, pml);
    spin_lock(&d->arch.hvm.pml_lock);
    /* It may have become so since refusal(): see do_altp2m_op(). */
    if ( altp2m_active(d) )
        rc = -EBUSY;
    else
    {
        d->arch.hvm.pml = pml;
        d->arch.hvm.pml_frames = pml_ring_frames(op->slots);
    }
    spin_unlock(&d->arch.hvm.pml_lock);

    if ( rc )
    {
        pml_op_kill(pml);
        free_domain(pml);
    }

    return rc;
}

/*
 * Split a superpage by one level: one of 1 GiB into 512 of 2 MiB, which are
 * next.  At once, it would be 262,144 entries.
 */
static int split(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                 unsigned int order, p2m_type_t t, p2m_access_t a)
{
    return order > PAGE_ORDER_2M
           /* p2m_set_entry() takes no superpages of domains that are logged. */
           ? p2m->set_entry(p2m, gfn, mfn, PAGE_ORDER_2M, t, a, -1)
           : p2m_set_entry(p2m, gfn, mfn, PAGE_ORDER_4K, t, a);
}

/*
 * Split the superpages of the domain, and carry out the type change that
 * log-dirty mode has left to EPT misconfigurations.  The domain runs: what
 * takes place behind our back is right from the start, see ept_set_entry().
 *
 * If log-dirty mode has been on shortly before, its end may not have been
 * carried out everywhere.  Such pages do not change their type, and keep the
 * dirty flags of then: they have to be armed.
 */
static int prepare(struct domain *d, struct pml_domain *pml)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);

    while ( pml->at <= p2m->max_mapped_pfn )
    {
        unsigned long gfn = pml->at;
        unsigned int order;
        p2m_access_t a;
        p2m_type_t t;
        mfn_t mfn;
        int rc;

        p2m_lock(p2m);
        rc = p2m->recalc(p2m, gfn);
        if ( rc >= 0 )
        {
            rc = 0;
            mfn = p2m->get_entry(p2m, _gfn(gfn), &t, &a, 0, &order, NULL);
            if ( order && t == p2m_ram_logdirty )
            {
                rc = split(p2m, _gfn(gfn), mfn, order, t, a);
                pml->superpages++;
            }
            if ( !rc && order <= PAGE_ORDER_2M )
                ept_pml_rearm_region(p2m, gfn);
            /* What is of 2 MiB now is split next. */
            if ( order <= PAGE_ORDER_2M || t != p2m_ram_logdirty )
                gfn = (gfn | ((1UL << max(order, 9U)) - 1)) + 1;
        }
        p2m_unlock(p2m);

        if ( rc )
        {
            /* Page tables of the EPT are of the pool. */
            pml->pool_short |= rc == -ENOMEM;
            return rc;
        }

        pml->at = gfn;
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

static void begin_logs(struct pml_domain *pml)
{
    unsigned int i;

    for ( i = 0; i < pml->nr_vcpus; i++ )
    {
        pml->vcpu[i].ring.log->epoch_tsc = rdtsc();
        pml->vcpu[i].ring.log->epoch_ns = NOW();
        pml->vcpu[i].nr_roots = 0;
    }
}

/* Log-dirty mode is on from here on, by PML or not at all. */
static int start_logging(struct domain *d, struct pml_domain *pml)
{
    int rc = paging_log_dirty_start(d);

    if ( rc )
        return rc;

    pml->started = true;
    /* Without memory for buffers, of the pool, log-dirty write-protects. */
    if ( !vmx_domain_pml_enabled(d) )
    {
        pml->pool_short = true;
        return -ENOMEM;
    }

    return 0;
}

static int alloc_vcpus(struct domain *d, struct pml_domain *pml)
{
    while ( pml->at < pml->nr_vcpus )
    {
        int rc = alloc_vcpu(d->vcpu[pml->at], pml);

        if ( rc )
            return rc;
        if ( ++pml->at < pml->nr_vcpus && pml_preempt_check() )
            return -ERESTART;
    }

    pml->at = 0;

    return 0;
}

/* All that has to be done until the first round begins, piece by piece. */
static int do_enable(struct domain *d, struct pml_domain *pml)
{
    int rc = 0;

    switch ( pml->phase )
    {
    case PHASE_ALLOC:
        rc = alloc_vcpus(d, pml);
        if ( !rc )
            rc = pml_alloc_tables(d, pml);
        if ( !rc )
            rc = pml_alloc_touched(d, pml);
        if ( rc )
            return rc;
        pml->phase = PHASE_SPOOL;
        /* Fall through. */

    case PHASE_SPOOL:
        if ( pml->touched.words )
            rc = pml_spool_room(d, pml);
        if ( rc )
            return rc;
        pml->phase = PHASE_START;
        /* Fall through. */

    case PHASE_START:
        pml_hold(d, pml);
        set_logged(d, true, pml->options.flags & XEN_PML_OPT_ACCESSED);
        rc = start_logging(d, pml);
        pml_release(d, pml);
        if ( rc )
            return rc;
        pml->phase = PHASE_PREPARE;
        /* Fall through. */

    case PHASE_PREPARE:
        rc = prepare(d, pml);
        if ( rc )
            return rc;
        pml_begin_close(d, pml);
        /* Fall through. */

    default:
        return pml_do_close(d, pml, NULL);
    }
}

static int pml_enable(struct domain *d, struct pml_domain *pml, uint16_t *why)
{
    int rc = pml->phase < PHASE_QUIET ? do_enable(d, pml) : pml->error;

    if ( rc == -ERESTART )
        return rc;

    if ( rc )
    {
        /* What has to be undone can be preempted, but not be forgotten. */
        pml->error = rc;
        *why = rc != -ENOMEM ? XEN_PML_REFUSED_NOT :
               pml->pool_short ? XEN_PML_REFUSED_POOL : XEN_PML_REFUSED_MEMORY;
        return undo(d, pml) ? -ERESTART : rc;
    }

    begin_logs(pml);
    pml->bitmap_failed = pml_dirty_failed(d, true);
    pml->state = XEN_PML_STATE_LOGGING;
    pml_open_round(d, pml);
    pml_release(d, pml);

    return 0;
}

/* Make what everything is kept in: the operation begins. */
static int new_enable(struct domain *d, struct xen_domctl_pml_enable *op,
                      uint16_t *why)
{
    int rc = refusal(d, why);

    if ( !rc )
        rc = check_options(op);
    if ( !rc )
    {
        rc = begin_enable(d, op);
        if ( rc == -ENOMEM )
            *why = XEN_PML_REFUSED_MEMORY;
    }
    if ( !rc )
        pml_op_begin(d->arch.hvm.pml, XEN_DOMCTL_pml_enable);

    return rc;
}

int pml_domain_teardown(struct domain *d)
{
    struct pml_domain *pml;
    struct vcpu *v;

    if ( !pml_active(d) )
        return 0;

    pml = d->arch.hvm.pml;
    if ( pml->phase != PHASE_FREE )
    {
        /* No operation goes on: see pml_domctl(). */
        pml_op_kill(pml);

        /* The domain does not run any more: what is in its buffers is void. */
        if ( vmx_domain_pml_enabled(d) )
        {
            for_each_vcpu ( d, v )
                if ( v->arch.hvm.vmx.pml_pg )
                    pml_swap_buffer(v, v->arch.hvm.vmx.pml_pg);
            vmx_domain_disable_pml(d);
        }
        no_more_logs(d, pml);
        paging_log_dirty_adopt(d);
        pml->at = 0;
        pml->phase = PHASE_FREE;
    }

    return free_all(d, pml);
}

/****************** Interfaces ******************/

/*
 * A guest can map some page or other wherever it likes.  Its memory is below
 * this, as toolstacks make it: one piece, but for a hole below 4 GiB.
 */
static uint64_t bitmap_pages(const struct domain *d, uint64_t max_gfn)
{
    uint64_t pages = max(domain_tot_pages(d), d->max_pages);

    pages += 1UL << (32 - PAGE_SHIFT);

    return ROUNDUP(min(pages, max_gfn + 1), (uint64_t)PAGES_PER_LEAF);
}

static void get_status(struct domain *d, struct xen_domctl_pml_status *op)
{
    const struct pml_domain *pml = pml_active(d) ? d->arch.hvm.pml : NULL;
    unsigned int i;

    memset(op, 0, sizeof(*op));
    op->vcpus = d->max_vcpus;
    op->tsc_khz = cpu_khz;
    op->max_gfn = domain_get_maximum_gpfn(d);
    op->bitmap_pages = bitmap_pages(d, op->max_gfn);

    if ( !pml )
        return;

    op->state = pml->state;
    op->round = pml->round;
    op->options = pml->options;
    op->generation = pml->generation;
    op->superpages = pml->superpages;
    op->bitmap_failed = pml->bitmap_failed + pml_dirty_failed(d, false);
    op->entries = pml_total_entries(pml);
    op->rearmed = pml->rearmed;
    for ( i = 0; i < pml->nr_vcpus; i++ )
    {
        op->overwritten += pml->vcpu[i].ring.overwritten;
        op->rearmed += pml->vcpu[i].rearmed;
    }
    op->tables = pml_nr_tables(pml);
    op->memory = pml_memory(pml);
}

static int get_vcpu_status(struct domain *d, struct xen_domctl_pml_vcpu *op)
{
    struct vcpu *v = domain_vcpu(d, op->vcpu);
    const struct pml_vcpu *pv;
    unsigned int id = op->vcpu;

    if ( op->pad )
        return -EINVAL;
    if ( !v )
        return -ENOENT;
    if ( !is_hvm_domain(d) || !cpu_has_vmx_pml )
        return -EOPNOTSUPP;

    *op = (struct xen_domctl_pml_vcpu){
        .vcpu = id,
        .exits = v->arch.hvm.vmx.pml_exits,
        .exit_tsc = v->arch.hvm.vmx.pml_exit_tsc,
    };

    if ( !pml_active(d) )
        return 0;

    pv = pml_vcpu(v);
    op->drains = pv->drains;
    op->drain_tsc = pv->drain_tsc;
    op->entries = pv->entries;
    op->overwritten = pv->ring.overwritten;
    op->rearmed = pv->rearmed;
    op->dropped = pv->dropped;
    op->deferred = pv->deferred;
    op->waited = pv->waited;

    return 0;
}

static int get_costs(const struct pml_domain *pml,
                     struct xen_domctl_pml_costs *op)
{
#define SPENT(phase) pml->phase_tsc[PHASE_ ## phase - PHASE_TAKE]
    *op = pml->costs;
    op->walk_tsc = SPENT(WALK) + SPENT(FORGET);
    op->drain_tsc = SPENT(TAKE) + SPENT(DRAIN);
    op->tables_tsc = SPENT(TABLES);
    op->rearm_tsc = SPENT(BITMAP) + SPENT(RESCUE);
    op->guided_tsc = SPENT(GUIDE) + SPENT(GUIDED) + SPENT(UNPAGED);
    op->scan_tsc = SPENT(ACCESSED);
    op->memory = pml_memory(pml);
#undef SPENT

    return 0;
}

/* What does not change anything, and has no continuations. */
static int ask(struct domain *d, struct pml_domain *pml,
               struct xen_domctl_pml_op *op)
{
    if ( op->cmd == XEN_DOMCTL_pml_vcpu_status )
        return get_vcpu_status(d, &op->u.vcpu);

    if ( !pml )
        return -ENOENT;

    return op->cmd == XEN_DOMCTL_pml_costs
           ? get_costs(pml, &op->u.costs)
           : pml_spool_fetch(&pml->spool, &op->u.fetch);
}

/* An operation, or a piece of it. */
static int operate(struct domain *d, struct pml_domain *pml,
                   struct xen_domctl_pml_op *op)
{
    int rc;

    switch ( op->cmd )
    {
    case XEN_DOMCTL_pml_enable:
        rc = pml_enable(d, pml, &op->refusal);
        /* Those that are in force. */
        if ( !rc )
            op->u.enable = pml->options;
        return rc;

    case XEN_DOMCTL_pml_disable:
        return undo(d, pml);

    default:
        return pml_close_round(d, pml, &op->u.round, &op->refusal);
    }
}

int pml_domctl(struct domain *d, struct xen_domctl *domctl,
               XEN_GUEST_HANDLE_PARAM(xen_domctl_t) u_domctl)
{
    struct xen_domctl_pml_op *op = &domctl->u.pml_op;
    struct pml_domain *pml = pml_active(d) ? d->arch.hvm.pml : NULL;
    int rc;

    BUILD_BUG_ON(sizeof(*op) > sizeof(domctl->u.pad));

    rc = xsm_pml_op(XSM_PRIV, d);
    if ( rc )
        return rc;

    op->refusal = XEN_PML_REFUSED_NOT;
    if ( op->cmd == XEN_DOMCTL_pml_status )
    {
        refusal(d, &op->refusal);
        get_status(d, &op->u.status);
        return 0;
    }

    /* It would pause itself. */
    if ( d == current->domain )
    {
        op->refusal = XEN_PML_REFUSED_SELF;
        return -EINVAL;
    }

    switch ( op->cmd )
    {
    case XEN_DOMCTL_pml_vcpu_status:
    case XEN_DOMCTL_pml_costs:
    case XEN_DOMCTL_pml_fetch:
        return ask(d, pml, op);

    case XEN_DOMCTL_pml_enable:
    case XEN_DOMCTL_pml_disable:
    case XEN_DOMCTL_pml_close_round:
        break;

    default:
        return -EOPNOTSUPP;
    }

    if ( d->is_dying )
    {
        op->refusal = XEN_PML_REFUSED_DYING;
        return -ESRCH;
    }

    /* An operation has to be finished by who has begun it. */
    rc = pml_op_enter(d, pml, op);
    if ( rc )
    {
        if ( rc == -EBUSY )
            op->refusal = XEN_PML_REFUSED_ACTIVE;
        return rc;
    }

    if ( op->cmd == XEN_DOMCTL_pml_enable && !op->cookie )
    {
        rc = new_enable(d, &op->u.enable, &op->refusal);
        if ( rc )
        {
            if ( pml )
                pml->op.cmd = 0;
            return rc;
        }
        pml = d->arch.hvm.pml;
    }

    rc = operate(d, pml, op);
    op->cookie = 0;

    /* It may be gone by now. */
    pml = d->arch.hvm.pml;

    return pml ? pml_op_leave(d, pml, rc, domctl, u_domctl) : rc;
}

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

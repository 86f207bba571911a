/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From the hardware's buffers to the log-dirty bitmap and the log.
 */
#include "private.h"

/*
 * Is what is being drained to be re-armed now?  If it is but the last of so
 * many buffers, remember it until the others are there.
 */
static bool rearm_due(const struct pml_domain *pml, struct pml_vcpu *pv,
                      const uint64_t *entries, unsigned int nr)
{
    if ( !pml_logging(pml) || pml->options.rearm != XEN_PML_REARM_FLUSH || !nr )
        return false;

    if ( ++pv->flushes >= pml->options.rearm_every )
    {
        pv->flushes = 0;
        return true;
    }

    memcpy(pv->pending + pv->nr_pending, entries, nr * sizeof(*entries));
    pv->nr_pending += nr;

    return false;
}

/* Re-arm these entries and those that were waiting for them. */
static void rearm_now(struct domain *d, struct pml_vcpu *pv,
                      const uint64_t *entries, unsigned int nr)
{
    struct p2m_domain *p2m = p2m_get_hostp2m(d);
    unsigned int done;

    p2m_lock(p2m);

    done = ept_pml_rearm(p2m, entries, nr);
    done += ept_pml_rearm(p2m, pv->pending, pv->nr_pending);
    pv->nr_pending = 0;
    pv->rearmed += done;
    /* One invalidation for all of them. */
    if ( done )
        ept_sync_domain(p2m);

    p2m_unlock(p2m);
}

/*
 * Drain one buffer: `nr` entries, newest first.  The hardware is not using the
 * buffer; its content may be changed.
 */
static void drain(struct vcpu *v, struct page_info *pg, unsigned int nr,
                  uint64_t tsc_start, uint64_t tsc_end,
                  unsigned int reason, unsigned int flags)
{
    struct domain *d = v->domain;
    struct pml_domain *pml = d->arch.hvm.pml;
    struct pml_vcpu *pv = pml_vcpu(v);
    uint64_t *buf = __map_domain_page(pg);
    uint64_t *entries = buf + NR_PML_ENTRIES - nr;
    uint64_t begin = rdtsc();
    bool rearm = rearm_due(pml, pv, entries, nr);

    ASSERT(spin_is_locked(&pv->lock));

    pml_mark_dirty(d, entries, nr);

    if ( rearm )
        rearm_now(d, pv, entries, nr);

    if ( pml->tables && pml->state != XEN_PML_STATE_BROKEN )
        pml_classify(d, entries, nr);

    pv->drains++;
    pv->entries += nr;

    if ( pml_logging(pml) )
    {
        bool drop = pml->options.flags & XEN_PML_OPT_DROP;
        struct xen_pml_desc desc = {
            .tsc_start = tsc_start,
            .tsc_end = tsc_end,
            .round = pml->round,
            .type = XEN_PML_TYPE_LOG,
            .reason = reason,
            .flags = flags | (rearm ? XEN_PML_DESC_REARMED : 0),
            .vcpu = v->vcpu_id,
        };

        desc.count = pml_ring_copy(pml_ring_begin(&pv->ring), entries, nr,
                                   drop);
        desc.dropped = nr - desc.count;
        desc.arg = rdtsc() - begin;
        pml_ring_commit(&pv->ring, &desc);
        pv->dropped += desc.dropped;
    }

    unmap_domain_page(buf);
    pv->drain_tsc += rdtsc() - begin;
}

/* Drain the oldest of the buffers that are full; there is one. */
static void drain_full(struct vcpu *v, struct pml_vcpu *pv, unsigned int flags)
{
    drain(v, pv->full[0].pg, NR_PML_ENTRIES, pv->full[0].start,
          pv->full[0].end, XEN_PML_REASON_FULL, flags);
    pv->spare[pv->nr_spare++] = pv->full[0].pg;
    memmove(&pv->full[0], &pv->full[1], --pv->nr_full * sizeof(pv->full[0]));
    v->arch.hvm.vmx.pml_pending = pv->nr_full;
}

void pml_drain_deferred(struct vcpu *v)
{
    struct pml_vcpu *pv = pml_vcpu(v);
    bool more;

    do {
        /* Not for longer than one buffer: the vCPU may be waiting. */
        spin_lock(&pv->lock);
        if ( pv->nr_full )
        {
            pv->deferred++;
            drain_full(v, pv, XEN_PML_DESC_DEFERRED);
        }
        more = pv->nr_full;
        spin_unlock(&pv->lock);
    } while ( more );
}

void cf_check pml_drain_tasklet(void *data)
{
    struct pml_vcpu *pv = data;

    pml_drain_deferred(pv->vcpu);
}

/*
 * Ask a CPU that has nothing to do to drain what is full: one of the domain's
 * cpupool and NUMA nodes.  Without one, the vCPU's next exit for another reason
 * will do so.
 */
static void ask_helper(const struct domain *d, struct pml_vcpu *pv)
{
    const cpumask_t *pool = cpupool_valid_cpus(d->cpupool);
    unsigned int cpu = pv->helper, tries;

    for ( tries = 0; tries < 4; tries++ )
    {
        cpu = cpumask_cycle(cpu, pool);
        if ( cpu >= nr_cpu_ids )
            return;
        if ( cpu != smp_processor_id() &&
             nodemask_test(cpu_to_node(cpu), &d->node_affinity) &&
             cpu_online(cpu) && idle_vcpu[cpu]->is_running )
        {
            pv->helper = cpu;
            tasklet_schedule_on_cpu(&pv->tasklet, cpu);
            return;
        }
    }
    pv->helper = cpu;
}

/* Let the hardware fill another buffer; there is one. */
static void switch_buffers(struct vcpu *v, struct pml_vcpu *pv, uint64_t now)
{
    unsigned int i = pv->nr_full++;

    pv->full[i].pg = v->arch.hvm.vmx.pml_pg;
    pv->full[i].start = pv->tsc_start;
    pv->full[i].end = now;
    pml_swap_buffer(v, pv->spare[--pv->nr_spare]);
    pv->tsc_start = now;
    v->arch.hvm.vmx.pml_pending = true;
}

void pml_vmexit(struct vcpu *v, bool full)
{
    pml_note_cr3(v);
    if ( v->arch.hvm.vmx.pml_pending && !full )
        pml_drain_deferred(v);
}

void pml_take(struct vcpu *v)
{
    struct pml_vcpu *pv = pml_vcpu(v);
    struct pml_domain *pml = v->domain->arch.hvm.pml;

    /* What is full was so before: nothing is left for tasklets to drain. */
    pml_drain_deferred(v);
    spin_lock(&pv->lock);
    pv->taken = NR_PML_ENTRIES -
                pml_swap_buffer(v, v->arch.hvm.vmx.pml_pg);
    if ( pml->tables && pv->taken )
    {
        const uint64_t *buf = __map_domain_page(v->arch.hvm.vmx.pml_pg);

        pml_tables_logged(pml, buf + NR_PML_ENTRIES - pv->taken, pv->taken);
        unmap_domain_page(buf);
    }
    spin_unlock(&pv->lock);
}

void pml_drain_taken(struct vcpu *v, unsigned int reason)
{
    struct pml_vcpu *pv = pml_vcpu(v);
    uint64_t now = rdtsc();

    spin_lock(&pv->lock);
    drain(v, v->arch.hvm.vmx.pml_pg, pv->taken, pv->tsc_start, now, reason, 0);
    pv->tsc_start = now;
    pv->taken = 0;
    spin_unlock(&pv->lock);
}

bool pml_buffer_full(struct vcpu *v)
{
    struct domain *d = v->domain;
    struct pml_vcpu *pv = pml_vcpu(v);
    uint64_t now = rdtsc();
    unsigned int first;

    /* Tracking of dirty video memory may use PML before we are ready. */
    if ( !paging_mode_log_dirty(d) )
        return false;

    spin_lock(&pv->lock);

    if ( d->arch.hvm.pml->options.buffers > 1 )
    {
        if ( !pv->nr_spare )
        {
            pv->waited++;
            drain_full(v, pv, XEN_PML_DESC_WAITED);
        }
        switch_buffers(v, pv, now);
        spin_unlock(&pv->lock);

        ask_helper(d, pv);
        return true;
    }

    first = pml_swap_buffer(v, v->arch.hvm.vmx.pml_pg);
    drain(v, v->arch.hvm.vmx.pml_pg, NR_PML_ENTRIES - first, pv->tsc_start,
          now, XEN_PML_REASON_FULL, 0);
    pv->tsc_start = now;

    spin_unlock(&pv->lock);

    return true;
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

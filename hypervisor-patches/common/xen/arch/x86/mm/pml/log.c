/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The memory of a vCPU's log: XENMEM_resource_pml_log.
 */
#include <xen/nospec.h>
#include <xsm/xsm.h>

#include "private.h"

/* Get or free so many frames between two checks. */
#define FRAMES_AT_ONCE 64

int pml_free_log(struct pml_domain *pml, struct pml_vcpu *pv)
{
    if ( pv->map )
        vunmap(pv->map);
    pv->map = NULL;

    while ( pv->nr_mfns )
    {
        pml_put_shared(pml, mfn_to_page(pv->mfns[--pv->nr_mfns]));
        if ( pv->nr_mfns && !(pv->nr_mfns % FRAMES_AT_ONCE) &&
             pml_preempt_check() )
            return -ERESTART;
    }

    pml_put(&pml->held, pv->mfns,
            pml_ring_frames(pml->options.slots) * sizeof(*pv->mfns));
    pv->mfns = NULL;
    pml_put(&pml->held, pv->ring.counts,
            pml->options.slots * sizeof(*pv->ring.counts));
    pv->ring.counts = NULL;

    return 0;
}

static int alloc_frames(struct domain *d, struct pml_domain *pml,
                        struct pml_vcpu *pv, unsigned int nr)
{
    if ( !pv->mfns )
        pv->mfns = pml_get(&pml->held, nr * sizeof(*pv->mfns));
    if ( !pv->mfns )
        return -ENOMEM;

    while ( pv->nr_mfns < nr )
    {
        struct page_info *pg = pml_get_shared(d, pml);

        if ( !pg )
            return -ENOMEM;

        pv->mfns[pv->nr_mfns++] = page_to_mfn(pg);
        if ( !(pv->nr_mfns % FRAMES_AT_ONCE) && pml_preempt_check() )
            return -ERESTART;
    }

    return 0;
}

int pml_alloc_log(struct vcpu *v, struct pml_domain *pml, struct pml_vcpu *pv)
{
    struct domain *d = v->domain;
    unsigned int nr = pml_ring_frames(pml->options.slots);
    uint16_t *counts;
    int rc = alloc_frames(d, pml, pv, nr);

    if ( rc )
        return rc;

    counts = pml_get(&pml->held, pml->options.slots * sizeof(*counts));
    pv->ring.counts = counts;
    if ( !counts )
        return -ENOMEM;

    pv->map = vmap(pv->mfns, nr);
    if ( !pv->map )
        return -ENOMEM;

    pml_ring_init(&pv->ring, pv->map, counts, pml->options.slots);
    pv->ring.log->domid = d->domain_id;
    pv->ring.log->vcpu = v->vcpu_id;
    pv->ring.log->generation = pml->generation;
    pv->ring.log->tsc_khz = cpu_khz;

    return 0;
}

unsigned int pml_log_frames(const struct domain *d)
{
    return is_hvm_domain(d) ? read_atomic(&d->arch.hvm.pml_frames) : 0;
}

int pml_acquire_log(struct domain *d, unsigned int id, unsigned int frame,
                    unsigned int nr_frames, xen_pfn_t mfn_list[])
{
    const struct pml_domain *pml;
    int rc;

    if ( !is_hvm_domain(d) || d == current->domain )
        return -EINVAL;

    /* Being its device model is not enough. */
    rc = xsm_pml_op(XSM_PRIV, d);
    if ( rc )
        return rc;

    rc = -EINVAL;
    spin_lock(&d->arch.hvm.pml_lock);

    pml = d->arch.hvm.pml;
    if ( pml && pml->state == XEN_PML_STATE_LOGGING && id < pml->nr_vcpus )
    {
        const mfn_t *mfns = pml->vcpu[array_index_nospec(id,
                                                         pml->nr_vcpus)].mfns;
        unsigned int nr = pml_ring_frames(pml->options.slots), i;

        if ( nr_frames <= nr && frame <= nr - nr_frames )
        {
            for ( i = 0; i < nr_frames; i++ )
                mfn_list[i] = mfn_x(mfns[array_index_nospec(frame + i, nr)]);
            rc = nr_frames;
        }
    }

    spin_unlock(&d->arch.hvm.pml_lock);

    return rc;
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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Logging of what a domain writes, by Page Modification Logging (PML).
 */
#ifndef __ASM_X86_PML_H__
#define __ASM_X86_PML_H__

#include <xen/errno.h>
#include <xen/sched.h>
#include <public/domctl.h>
#include <asm/p2m.h>

/*
 * Is a piece of a preemptible operation to end here?  If forced, it does so
 * wherever it can.  Each piece gets on by some work before it asks.
 */
#define pml_preempt_check() \
    (hypercall_preempt_check() || IS_ENABLED(CONFIG_DEBUG_PML_PREEMPT))

/*
 * In the p2m of a domain that is logged, map 1 << order pages, each by itself.
 * For an order of 9 or less, that is all of them or, on failure, none, as with
 * a superpage: p2m_pod_demand_populate() counts on it.
 */
int pml_set_entries(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                    unsigned int order, p2m_type_t t, p2m_access_t a);

#ifdef CONFIG_PML

/* Is the domain being logged (or being prepared for it)? */
static inline bool pml_active(const struct domain *d)
{
    return is_hvm_domain(d) && unlikely(d->arch.hvm.pml);
}

/* The same for a vCPU's exits: set and cleared with the domain paused. */
static inline bool pml_vcpu_logged(const struct vcpu *v)
{
    return unlikely(v->arch.hvm.vmx.pml_logged);
}

/* Is log-dirty mode in use by the log, which this operation would change? */
bool pml_excludes(const struct domain *d, unsigned int shadow_op);

/* The domain is dying: let go of everything.  Preemptible. */
int pml_domain_teardown(struct domain *d);

/*
 * If it is to be continued (-ERESTART), what tells the continuation has been
 * written to the caller's structure.
 */
int pml_domctl(struct domain *d, struct xen_domctl *domctl,
               XEN_GUEST_HANDLE_PARAM(xen_domctl_t) u_domctl);

/* What follows is for vCPUs that are logged. */

/* VM exit: do what has been put off until this. */
void pml_vmexit(struct vcpu *v, bool full);

/*
 * VM exit: the current vCPU's buffer is full.  Returns false if it is not for
 * us (yet).
 */
bool pml_buffer_full(struct vcpu *v);

/* VM exit: the current vCPU's CR3 may be new, and loads of it are watched. */
void pml_cr3_loaded(struct vcpu *v);

#else /* !CONFIG_PML */

static inline bool pml_active(const struct domain *d)
{
    return false;
}

static inline bool pml_vcpu_logged(const struct vcpu *v)
{
    return false;
}

static inline bool pml_excludes(const struct domain *d, unsigned int shadow_op)
{
    return false;
}

static inline int pml_domain_teardown(struct domain *d)
{
    return 0;
}

static inline int pml_domctl(struct domain *d, struct xen_domctl *domctl,
                             XEN_GUEST_HANDLE_PARAM(xen_domctl_t) u_domctl)
{
    return -EOPNOTSUPP;
}

/* Never called. */
void pml_vmexit(struct vcpu *v, bool full);
bool pml_buffer_full(struct vcpu *v);
void pml_cr3_loaded(struct vcpu *v);

#endif /* CONFIG_PML */
#endif /* __ASM_X86_PML_H__ */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One operation at a time: which one goes on in a continuation, and what
 * becomes of it if that does not come.
 *
 * A continuation is a call of its own, and the domctl lock is not held until it
 * comes: others call in between.  It is told from theirs by a cookie, and takes
 * nothing else from its caller's memory.  The caller's domain may die
 * meanwhile, or its memory be changed so that the continuation fails before it
 * gets here.  If the operation has paused the domain, a timer ends it then.
 */
#include "private.h"

/* Far longer than a continuation of a caller that is alive takes to come. */
#define PATIENCE SECONDS(10)

void pml_hold(struct domain *d, struct pml_domain *pml)
{
    if ( !pml->op.held )
        domain_pause(d);
    pml->op.held = true;
}

void pml_release(struct domain *d, struct pml_domain *pml)
{
    if ( pml->op.held )
        domain_unpause(d);
    pml->op.held = false;
}

void pml_vcpus_logged(struct domain *d, bool logged)
{
    struct vcpu *v;

    for_each_vcpu ( d, v )
        v->arch.hvm.vmx.pml_logged = logged;
}

/*
 * What has been begun is not going to be finished.  What it leaves behind is
 * for nobody to use any more, neither domctls (but for pml_disable) nor vCPUs.
 */
void pml_break_off(struct domain *d, struct pml_domain *pml)
{
    pml_hold(d, pml);
    pml->state = XEN_PML_STATE_BROKEN;
    pml_vcpus_logged(d, false);
    pml->op.cmd = 0;
    /* What is being undone goes on being so. */
    if ( pml->phase < PHASE_QUIET )
    {
        pml->phase = PHASE_IDLE;
        pml->at = 0;
    }
    pml_release(d, pml);
}

/* The continuation has not come. */
static void cf_check op_overdue(void *data)
{
    struct pml_domain *pml = data;

    spin_lock(&pml->op.lock);
    if ( pml->op.away && NOW() >= pml->op.deadline )
    {
        printk(XENLOG_G_WARNING
               "%pd: PML operation %u of d%u is not continued: broken off\n",
               pml->domain, pml->op.cmd, pml->op.caller);
        pml->op.away = false;
        pml_break_off(pml->domain, pml);
    }
    spin_unlock(&pml->op.lock);
}

void pml_op_init(struct domain *d, struct pml_domain *pml)
{
    pml->domain = d;
    spin_lock_init(&pml->op.lock);
    init_timer(&pml->op.timer, op_overdue, pml, smp_processor_id());
}

void pml_op_kill(struct pml_domain *pml)
{
    kill_timer(&pml->op.timer);
}

void pml_op_begin(struct pml_domain *pml, uint32_t cmd)
{
    static uint32_t last;

    if ( !++last )
        last++;
    pml->op.cookie = last;
    pml->op.cmd = cmd;
    pml->op.caller = current->domain->domain_id;
}

/* Is this call for the operation that is going on?  Or may it be begun? */
static int op_check(struct pml_domain *pml, const struct xen_domctl_pml_op *op)
{
    if ( !op->cookie )
        return pml->op.cmd && op->cmd != XEN_DOMCTL_pml_disable ? -EBUSY : 0;

    /* Else that one has been broken off, whatever goes on in its place. */
    return pml->op.cookie == op->cookie && pml->op.cmd == op->cmd &&
           pml->op.caller == current->domain->domain_id ? 0 : -ENOENT;
}

int pml_op_enter(struct domain *d, struct pml_domain *pml,
                 const struct xen_domctl_pml_op *op)
{
    int rc;

    /* pml_enable begins once it has made what this is kept in. */
    if ( !pml )
        return op->cookie || op->cmd != XEN_DOMCTL_pml_enable ? -ENOENT : 0;

    spin_lock(&pml->op.lock);
    rc = op_check(pml, op);
    /* From here on the timer does nothing. */
    if ( !rc )
        pml->op.away = false;
    spin_unlock(&pml->op.lock);

    if ( rc || op->cookie )
        return rc;

    if ( pml->op.cmd && pml->op.cmd != XEN_DOMCTL_pml_disable )
        pml_break_off(d, pml);
    pml_op_begin(pml, op->cmd);

    return 0;
}

int pml_op_leave(struct domain *d, struct pml_domain *pml, int rc,
                 struct xen_domctl *domctl,
                 XEN_GUEST_HANDLE_PARAM(xen_domctl_t) u_domctl)
{
    if ( rc != -ERESTART )
    {
        /* Nobody gets back to user space with the domain paused. */
        ASSERT(!pml->op.held);
        pml_release(d, pml);
        pml->op.cmd = 0;
        return rc;
    }

    domctl->u.pml_op.cookie = pml->op.cookie;
    if ( __copy_field_to_guest(u_domctl, domctl, u.pml_op.cookie) )
    {
        /* It could not be continued. */
        pml_break_off(d, pml);
        return -EFAULT;
    }

    if ( pml->op.held )
    {
        spin_lock(&pml->op.lock);
        pml->op.deadline = NOW() + PATIENCE;
        pml->op.away = true;
        spin_unlock(&pml->op.lock);
        set_timer(&pml->op.timer, pml->op.deadline);
    }

    return -ERESTART;
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

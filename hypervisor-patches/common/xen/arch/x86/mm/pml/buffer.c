/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hardware's side of logging: VMCS fields and capabilities.
 */
#include <asm/msr.h>

#include "private.h"

/*
 * Have the hardware log to this (empty) buffer from now on; it may be the one
 * which is in use.  Returns the index of the newest entry of the buffer that
 * was in use, NR_PML_ENTRIES if there are none.
 */
unsigned int pml_swap_buffer(struct vcpu *v, struct page_info *pg)
{
    unsigned long idx;

    ASSERT((v == current) || (!vcpu_runnable(v) && !v->is_running));
    ASSERT(vmx_vcpu_pml_enabled(v));

    vmx_vmcs_enter(v);

    __vmread(GUEST_PML_INDEX, &idx);

    if ( pg != v->arch.hvm.vmx.pml_pg )
    {
        __vmwrite(PML_ADDRESS, page_to_maddr(pg));
        v->arch.hvm.vmx.pml_pg = pg;
    }
    __vmwrite(GUEST_PML_INDEX, NR_PML_ENTRIES - 1);

    vmx_vmcs_exit(v);

    /* The index is that of the next entry; it wraps once the buffer is full. */
    return idx >= NR_PML_ENTRIES ? 0 : idx + 1;
}

/*
 * Does the CPU have PML, whatever the command line says?  With EPT it has the
 * secondary controls, and so their MSR.
 */
bool pml_in_cpu(void)
{
    uint64_t cap;

    if ( !cpu_has_vmx || !cpu_has_vmx_ept )
        return false;

    rdmsrl(MSR_IA32_VMX_PROCBASED_CTLS2, cap);

    return (cap >> 32) & SECONDARY_EXEC_ENABLE_PML;
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

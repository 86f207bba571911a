/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which domains cannot be logged, and why.
 *
 * Nothing in here depends on the hypervisor: tools/tests/pml builds it for
 * user space.
 */
#ifndef X86_MM_PML_REFUSE_H
#define X86_MM_PML_REFUSE_H

#ifdef __XEN__
#include <xen/errno.h>
#include <xen/types.h>
#include <public/pml.h>
#endif

/* What there is to know of a domain, and of the machine. */
struct pml_facts {
    bool dying;
    bool self;         /* it is the one that asks */
    bool hvm;          /* HVM or PVH */
    bool hap;          /* EPT or NPT, not shadow paging */
    bool pml;          /* Xen uses PML... */
    bool pml_in_cpu;   /* ...or could, were it not for its command line */
    bool vcpus;        /* all that it is to have */
    bool devices;      /* assigned ones */
    bool nested;
    bool altp2m;
    bool active;       /* it is being logged */
    bool log_dirty;    /* log-dirty mode is on, or is not off altogether */
    bool ioreq_pages;  /* there are some of type p2m_ioreq_server */
};

/* 0, or an errno value (negative) with *why one of XEN_PML_REFUSED_*. */
int pml_refuse(const struct pml_facts *facts, uint32_t *why);

#endif /* X86_MM_PML_REFUSE_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

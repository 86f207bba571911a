/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The log of Page Modification Logging as a resource which can be mapped.
 */
#ifndef __XEN_PML_H__
#define __XEN_PML_H__

#include <xen/errno.h>
#include <public/xen.h>

struct domain;

#ifdef CONFIG_PML

/* Size of each vCPU's log in frames; 0 if the domain is not being logged. */
unsigned int pml_log_frames(const struct domain *d);

int pml_acquire_log(struct domain *d, unsigned int id, unsigned int frame,
                    unsigned int nr_frames, xen_pfn_t mfn_list[]);

#else

static inline unsigned int pml_log_frames(const struct domain *d)
{
    return 0;
}

static inline int pml_acquire_log(
    struct domain *d, unsigned int id, unsigned int frame,
    unsigned int nr_frames, xen_pfn_t mfn_list[])
{
    return -EOPNOTSUPP;
}

#endif

#endif /* __XEN_PML_H__ */

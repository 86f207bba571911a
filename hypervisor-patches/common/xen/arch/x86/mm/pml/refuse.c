/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which domains cannot be logged: see refuse.h.
 */
#include "refuse.h"

int pml_refuse(const struct pml_facts *facts, uint32_t *why)
{
    /* The first that applies is what is said: the most lasting ones first. */
    const struct {
        bool applies;
        uint32_t why;
        int rc;
    } reasons[] = {
        { facts->dying, XEN_PML_REFUSED_DYING, -ESRCH },
        { facts->self, XEN_PML_REFUSED_SELF, -EINVAL },
        { !facts->hvm, XEN_PML_REFUSED_PV, -EOPNOTSUPP },
        { !facts->pml && !facts->pml_in_cpu, XEN_PML_REFUSED_NO_CPU,
          -EOPNOTSUPP },
        { !facts->pml, XEN_PML_REFUSED_NO_PML_OPTION, -EOPNOTSUPP },
        { !facts->hap, XEN_PML_REFUSED_SHADOW, -EOPNOTSUPP },
        { !facts->vcpus, XEN_PML_REFUSED_NO_VCPUS, -EINVAL },
        /* What devices write is not logged. */
        { facts->devices, XEN_PML_REFUSED_DEVICES, -EXDEV },
        { facts->nested, XEN_PML_REFUSED_NESTED, -EOPNOTSUPP },
        { facts->altp2m, XEN_PML_REFUSED_ALTP2M, -EOPNOTSUPP },
        { facts->active, XEN_PML_REFUSED_ACTIVE, -EBUSY },
        { facts->log_dirty, XEN_PML_REFUSED_MIGRATING, -EBUSY },
        { facts->ioreq_pages, XEN_PML_REFUSED_IOREQ, -EBUSY },
    };
    unsigned int i;

    for ( i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++ )
        if ( reasons[i].applies )
        {
            *why = reasons[i].why;
            return reasons[i].rc;
        }

    *why = XEN_PML_REFUSED_NOT;

    return 0;
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

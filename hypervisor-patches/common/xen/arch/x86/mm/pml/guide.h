/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which frames page tables lead to: those whose accessed flags are to be
 * looked at if the tables were used.
 *
 * Nothing in here depends on the hypervisor: tools/tests/pml builds it for
 * user space.
 */
#ifndef X86_MM_PML_GUIDE_H
#define X86_MM_PML_GUIDE_H

#ifdef __XEN__
#include <xen/lib.h>
#include <xen/types.h>
#include <public/pml.h>
#endif

#include "regions.h"

/*
 * A frame which is mapped many times is noted once, and those of a region are
 * looked at together.  Frames where the domain has nothing are not noted:
 * where a guest's entries lead to is its own affair.
 */
struct pml_guide {
    struct pml_regions *regions;
    struct pml_region *first, **last; /* the regions that are noted */
    struct pml_region *recent;     /* neighbours lead to neighbours */
    /*
     * This GFN if the domain may have memory in its region; else another one,
     * the first of a region, before which there is none.
     */
    uint64_t (*next)(void *ctx, uint64_t gfn);
    void *ctx;
    uint64_t lost;                 /* regions that there was no memory for */
};

void pml_guide_init(struct pml_guide *g, struct pml_regions *regions,
                    uint64_t (*next)(void *ctx, uint64_t gfn), void *ctx);

/*
 * Note what `nr` entries from `first` on of a table of this level (1 to 3)
 * map, both multiples of 8 at level 1; wide: they are of 64 bits.  Returns how
 * many of them map pages.
 */
unsigned int pml_guide_note(struct pml_guide *g, const void *table,
                            unsigned int level, bool wide, unsigned int first,
                            unsigned int nr);

/* A region that has something, NULL if there is none. */
static inline struct pml_region *pml_guide_first(const struct pml_guide *g)
{
    return g->first;
}

/* Its frames which are noted; NULL: all of them. */
static inline const uint64_t *pml_guide_wanted(const struct pml_region *region)
{
    return region->whole ? NULL : region->noted;
}

/* Nothing is noted of the first region any more. */
void pml_guide_forget_first(struct pml_guide *g);

#endif /* X86_MM_PML_GUIDE_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

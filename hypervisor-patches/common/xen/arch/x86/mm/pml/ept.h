/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Accessed and dirty flags of the EPT.
 *
 * p2m is a host p2m, and locked unless it says otherwise.  Nothing is
 * invalidated: that is left to the caller, once for all.  entries[i] >>
 * PAGE_SHIFT is a GFN.
 */
#ifndef X86_MM_PML_EPT_H
#define X86_MM_PML_EPT_H

#include <xen/types.h>

struct p2m_domain;

/* Clear dirty flags; returns how many were set. */
unsigned int ept_pml_rearm(struct p2m_domain *p2m, const uint64_t *entries,
                           unsigned int nr);

/*
 * Re-arm all pages of the region of 2 MiB that a GFN is in.  The p2m is locked;
 * the caller invalidates.
 */
void ept_pml_rearm_region(struct p2m_domain *p2m, unsigned long gfn);

/* Is there RAM?  Locks the p2m. */
bool ept_pml_is_ram(struct p2m_domain *p2m, unsigned long gfn);

/*
 * This GFN if there is a table of 4k entries for it; else one, the first of a
 * table, before which there is none.  Locks the p2m.
 */
unsigned long ept_pml_next(struct p2m_domain *p2m, unsigned long gfn);

struct ept_pml_harvest {
    unsigned int accessed, looked;    /* pages */
    unsigned long step;               /* to what comes next: 512 or more */
};

/*
 * How to go through the EPT: whether what was not used, as an entry above
 * tells, is left out; and at how many upper levels the flag is cleared on the
 * way.  To harvest a domain, call this from gfn 0 on and follow `step`; a
 * region can be harvested by itself.
 */
#define HARVEST_LEVELS 0x0fU
#define HARVEST_PRUNE  0x10U

#define HARVEST_ALL    0U
#define HARVEST_RESET  4U                    /* all, as if nothing was used */
#define HARVEST_REGION (HARVEST_PRUNE | 1)
#define HARVEST_PRUNED (HARVEST_PRUNE | 4)

/*
 * Collect the accessed flags of the 512 pages from gfn on, and clear them.  The
 * harvest goes up to `end`, a multiple of 512: entries that stand for more keep
 * theirs.
 * For a sample gfn is a multiple of 512, and only the flags of its pages are.
 */
struct ept_pml_sample {
    unsigned int order;          /* one page of 1 << order; 0: all */
    uint32_t draw;               /* see XEN_PML_DRAW */
    bool again;                  /* clear the flags of the next sample, too: */
    uint32_t next;               /* its draw */
};
struct ept_pml_harvest ept_pml_harvest(struct p2m_domain *p2m,
                                       unsigned long gfn, unsigned long end,
                                       unsigned int how,
                                       const struct ept_pml_sample *sample,
                                       unsigned long *accessed);

/*
 * The same, but for those of the pages only that have a bit in `wanted` (NULL:
 * for all).  What was accessed goes to `taken` like with ept_pml_take(), and
 * gfn is a multiple of 512.
 */
struct ept_pml_harvest ept_pml_take_region(struct p2m_domain *p2m,
                                           unsigned long gfn, unsigned int how,
                                           const uint64_t *wanted,
                                           uint64_t *taken, unsigned int kind);

/*
 * Clear the accessed flags of these pages.  Returns how many were set; their
 * entries, with `kind` added, go to `taken`, which may be `entries`.
 */
unsigned int ept_pml_take(struct p2m_domain *p2m, const uint64_t *entries,
                          unsigned int nr, uint64_t *taken, unsigned int kind);

#endif /* X86_MM_PML_EPT_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

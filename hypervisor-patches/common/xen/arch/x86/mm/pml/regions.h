/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is known of a guest's frames, by regions of 2 MiB: those that something
 * is known of, and no others.  Where in its address space a guest has its
 * memory makes no difference.
 *
 * The structure changes in operations only, while the domain is paused: vCPUs
 * that run find what is there without a lock.
 *
 * Nothing in here depends on the hypervisor: tools/tests/pml builds it for
 * user space.
 */
#ifndef X86_MM_PML_REGIONS_H
#define X86_MM_PML_REGIONS_H

#ifdef __XEN__
#include <xen/lib.h>
#include <xen/types.h>
#include <xen/xmalloc.h>
#endif

#define PML_REGION_SHIFT  9
#define PML_REGION        (1U << PML_REGION_SHIFT) /* frames */
#define PML_REGION_WORDS  (PML_REGION / 64)

struct pml_region {
    struct pml_region *next;       /* of all */
    struct pml_region *next_noted; /* of those that a harvest looks at */
    uint64_t number;               /* GFN >> PML_REGION_SHIFT */
    uint64_t noted[PML_REGION_WORDS]; /* frames that it looks at, if not... */
    bool whole;                    /* ...all of them */
    bool listed;                   /* among those */
    uint32_t draw;                 /* of which flags are clear; 0: of any */
    uint16_t *frames;              /* FRAME_* of each, if any is a page table */
};

/* A tree: nodes of 64 pointers. */
#define PML_NODE_SHIFT    6
#define PML_NODE          (1U << PML_NODE_SHIFT)
#define PML_NODE_LEVELS   5
#define PML_REGIONS_MAX   (1ULL << (PML_NODE_SHIFT * PML_NODE_LEVELS))

struct pml_node {
    struct pml_node *next;         /* of all */
    void *slot[PML_NODE];
};

struct pml_regions {
    struct pml_node *top, *nodes;
    struct pml_region *all;
    uint64_t bytes, max_bytes;
};

/* No more than this for `pages` pages of memory: 1/256 of it, and 1 MiB. */
#define PML_REGIONS_BYTES(pages) (((uint64_t)(pages) << 4) + (1U << 20))

void pml_regions_init(struct pml_regions *r, uint64_t max_bytes);

/* What there is of this GFN's region; NULL if nothing is known of it. */
struct pml_region *pml_region(const struct pml_regions *r, uint64_t gfn);

/* The same, but make one.  NULL: there is no memory for it. */
struct pml_region *pml_region_make(struct pml_regions *r, uint64_t gfn);

/* Of a frame; NULL if no page table is known in its region. */
static inline uint16_t *pml_region_frame(struct pml_region *region,
                                         uint64_t gfn)
{
    return region && region->frames ? &region->frames[gfn & (PML_REGION - 1)]
                                    : NULL;
}

static inline uint16_t *pml_frame(const struct pml_regions *r, uint64_t gfn)
{
    return pml_region_frame(pml_region(r, gfn), gfn);
}

/* The same, but make place for it.  NULL: there is no memory. */
uint16_t *pml_frame_make(struct pml_regions *r, uint64_t gfn);

/* Free up to so many of regions and nodes.  Returns whether none is left. */
bool pml_regions_free(struct pml_regions *r, unsigned int budget);

#endif /* X86_MM_PML_REGIONS_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

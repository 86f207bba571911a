/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is known of a guest's page tables: for those who keep it.
 */
#ifndef X86_MM_PML_TABLES_H
#define X86_MM_PML_TABLES_H

#include "private.h"

/*
 * What is known of a frame: the levels at which the walk that is going on has
 * met it, and what it was last known to be.  It is known of the GFN: if the
 * guest has given the frame away meanwhile, this comes out once the one in its
 * place is written to, as with tables that the guest has freed.
 */
#define FRAME_VISITED(level) (1U << (level)) /* levels 1 to 5 */
#define FRAME_VISITED_ANY    0x003eU
#define FRAME_NARROW         0x0040U         /* 32-bit entries */
#define FRAME_LOGGED         0x0080U         /* in this round, or new in it */
#define FRAME_LEVEL_SHIFT    8
#define FRAME_LEVEL_MASK     0x0700U
#define FRAME_LEVEL(f)       (((f) & FRAME_LEVEL_MASK) >> FRAME_LEVEL_SHIFT)
#define FRAME_ROOT           0x1000U         /* CR3 has pointed to it */
#define FRAME_LIVE           0x2000U         /* found below a CR3 as of now */
#define FRAME_CLEARED        0x4000U         /* flags were clear as it began */
#define FRAME_STALE          0x8000U         /* ... are to be, on its use */

/* A list of GFNs, in blocks that are allocated as it grows. */
#define GFNS_PER_BLOCK (PAGE_SIZE / sizeof(uint64_t))
struct pml_gfns {
    uint64_t **blocks;
    unsigned int nr_blocks, max_blocks;
    unsigned int nr;          /* GFNs */
};

struct pml_tables {
    unsigned int nr, max;     /* of page tables */

    /* Those logged in this round; vCPUs drain at the same time. */
    spinlock_t lock;
    struct pml_gfns logged;

    /* Progress of the walk. */
    unsigned int vcpu, root, old_root;
    bool live, walking;
    struct pml_walk walk;
    bool armed;               /* was all when the round began? */
    unsigned int noted;       /* entries of the table that is being noted */
    struct pml_region *cursor; /* regions whose frames have been reset */

    /* Clearing the guest's accessed flags, by vCPUs that run or for all. */
    spinlock_t clear_lock;
    bool watching;            /* loads of CR3 */
    unsigned int may_load, may_clear, at_once;
    uint64_t cleared;         /* in this round or at its end */
};

static inline uint64_t pml_logged_gfn(const struct pml_tables *t,
                                      unsigned int i)
{
    return t->logged.blocks[i / GFNS_PER_BLOCK][i % GFNS_PER_BLOCK];
}

/* The root that a vCPU uses now; 0 levels: it does not page. */
struct pml_root pml_current_root(const struct vcpu *v);
/* Remember it for the walk at the end of the round. */
void pml_note_root(struct pml_domain *pml, struct pml_vcpu *pv,
                   const struct vcpu *v);

/* For walks: ctx is the domain. */
const void *cf_check pml_map_table(void *ctx, uint64_t gfn);
void cf_check pml_unmap_table(void *ctx, const void *map);

/* A snapshot has been taken: clear the flags, now or once it is used. */
void pml_clear_accessed(struct domain *d, struct pml_tables *t,
                        unsigned long gfn, uint16_t *frame);

#endif /* X86_MM_PML_TABLES_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A walk over all the page tables below a guest's CR3.
 *
 * Nothing in here depends on the hypervisor: tools/tests/pml builds it for
 * user space.  What a guest has in its page tables is not to be trusted: a
 * table may be part of many trees, and of its own.  The caller's enter()
 * decides whether to descend, and ends all loops by allowing each table once
 * at each level.
 */
#ifndef X86_MM_PML_WALK_H
#define X86_MM_PML_WALK_H

#ifdef __XEN__
#include <xen/bitops.h>
#include <xen/lib.h>
#include <xen/types.h>
#include <public/pml.h>
#endif

#define PML_WALK_MAX_LEVELS 5U

/* Of an entry of 64 bits. */
#define PTE_PRESENT  0x001U
#define PTE_LARGE    0x080U
#define PTE_FRAMES   0x000ffffffffff000ULL
/* What is beyond an EPT of four levels cannot be used. */
#define PTE_BEYOND   0x000f000000000000ULL

/* Most entries are empty: has none of the 8 from this one on any of this? */
#define PML_WALK_GROUP 8U
static inline bool pml_walk_skip(const volatile uint64_t *e, uint64_t any)
{
    return !((e[0] | e[1] | e[2] | e[3] | e[4] | e[5] | e[6] | e[7]) & any);
}

/* A root, as it is to be walked. */
struct pml_root {
    uint64_t cr3;
    uint8_t levels;        /* 2, 3 (PAE), 4 or 5; 0: the guest does not page */
    bool pse;              /* 2 levels: CR4.PSE, large pages are possible */
};

struct pml_walk_ops {
    /* Map a page of the guest; NULL if there is none. */
    const void *(*map)(void *ctx, uint64_t gfn);
    void (*unmap)(void *ctx, const void *table);
    /*
     * A table was found; wide: its entries are 64 bits.  Descend into it?
     */
    bool (*enter)(void *ctx, uint64_t gfn, unsigned int level, bool wide);
};

struct pml_walk {
    const struct pml_walk_ops *ops;
    void *ctx;
    struct pml_root root;
    unsigned int depth;    /* tables on the stack */
    struct {
        uint64_t gfn;
        uint16_t next;     /* entry to look at next */
        uint16_t end;
        uint8_t level;
    } stack[PML_WALK_MAX_LEVELS];
};

void pml_walk_start(struct pml_walk *walk, const struct pml_walk_ops *ops,
                    void *ctx, const struct pml_root *root);

/*
 * Look at up to `budget` tables.  Returns true once the walk is over; else it
 * goes on with the next call, provided that the guest has not run meanwhile.
 */
bool pml_walk_run(struct pml_walk *walk, unsigned int budget);

/*
 * Can this be a root that a processor has used?  Whatever it has in place of a
 * page table by now is told apart by entries which no processor would take, or
 * by leading to something of that kind.
 */
bool pml_walk_plausible(const struct pml_walk_ops *ops, void *ctx,
                        const struct pml_root *root);

/*
 * What entry i of a table of this level says: 0 if it is not present, else the
 * GFN that it points to and XEN_PML_ENTRY_* flags.
 */
uint64_t pml_walk_entry(const void *table, unsigned int i, unsigned int level,
                        bool wide);

/*
 * The same of all 512 entries of a table (of the upper half of a table of 1024
 * 32-bit entries, with `upper`).  Returns whether any of them maps a page.
 */
bool pml_walk_snapshot(uint64_t *to, const void *table, unsigned int level,
                       bool wide, bool upper);

/*
 * Clear the accessed flags of those of the 512 entries of a table that map a
 * page.  Returns how many.
 */
unsigned int pml_walk_clear(void *table, unsigned int level);

#endif /* X86_MM_PML_WALK_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

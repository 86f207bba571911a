/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A walk over all the page tables below a guest's CR3: see walk.h.
 */
#include "walk.h"

#define PTE_WRITABLE 0x002U
#define PTE_USER     0x004U
#define PTE_ACCESSED 0x020U
#define PTE_ACCESSED_BIT 5
#define PTE_DIRTY    0x040U
#define PDPTE_RESERVED 0x1e6U          /* of PAE paging */
#define PTE_PSE36    0x1fe000ULL       /* bits 39:32 of a 4M page's address */

static uint64_t read_entry(const void *table, unsigned int i, bool wide)
{
    return wide ? ((const volatile uint64_t *)table)[i]
                : ((const volatile uint32_t *)table)[i];
}

/* Does an entry of a table of this level map a page (not a table)? */
static bool is_leaf(uint64_t entry, unsigned int level, bool wide, bool pse)
{
    if ( level == 1 )
        return true;
    if ( !wide )
        return pse && (entry & PTE_LARGE);

    return level <= 3 && (entry & PTE_LARGE);
}

static void push(struct pml_walk *walk, uint64_t gfn, unsigned int level,
                 unsigned int first, unsigned int nr)
{
    unsigned int i = walk->depth++;

    walk->stack[i].gfn = gfn;
    walk->stack[i].level = level;
    walk->stack[i].next = first;
    walk->stack[i].end = first + nr;
}

void pml_walk_start(struct pml_walk *walk, const struct pml_walk_ops *ops,
                    void *ctx, const struct pml_root *root)
{
    unsigned int levels = root->levels;

    walk->ops = ops;
    walk->ctx = ctx;
    walk->root = *root;
    walk->depth = 0;

    if ( levels < 2 || levels > PML_WALK_MAX_LEVELS )
        return;

    if ( levels == 3 )
        /*
         * The four pointers of PAE paging are loaded with CR3 and not walked
         * again: the page that they are in, which may hold other things, is
         * no page table as far as accessed and dirty flags go.
         */
        push(walk, (uint32_t)root->cr3 >> 12, 3,
             (root->cr3 & 0xfe0) / sizeof(uint64_t), 4);
    else
    {
        bool wide = levels > 2;
        uint64_t gfn = (wide ? root->cr3 & PTE_FRAMES
                             : (uint32_t)root->cr3) >> 12;

        if ( ops->enter(ctx, gfn, levels, wide) )
            push(walk, gfn, levels, 0, wide ? 512 : 1024);
    }
}

/*
 * Go on with the table on top of the stack, until it is done or one of its
 * entries leads to a table that is to be looked at first.
 */
static void walk_table(struct pml_walk *walk)
{
    unsigned int top = walk->depth - 1, level = walk->stack[top].level;
    bool wide = walk->root.levels > 2;
    const void *table = walk->ops->map(walk->ctx, walk->stack[top].gfn);
    /* The pointers of PAE paging have no large pages: bit 7 is reserved. */
    bool pdpt = walk->root.levels == 3 && level == 3;

    while ( table && walk->stack[top].next < walk->stack[top].end )
    {
        uint64_t entry, gfn;

        if ( wide && !pdpt && !(walk->stack[top].next % PML_WALK_GROUP) &&
             pml_walk_skip((const uint64_t *)table + walk->stack[top].next,
                           PTE_PRESENT) )
        {
            walk->stack[top].next += PML_WALK_GROUP;
            continue;
        }

        entry = read_entry(table, walk->stack[top].next++, wide);
        gfn = (entry & (wide ? PTE_FRAMES : 0xfffff000U)) >> 12;

        if ( !(entry & PTE_PRESENT) ||
             (!pdpt && is_leaf(entry, level, wide, walk->root.pse)) ||
             !walk->ops->enter(walk->ctx, gfn, level - 1, wide) )
            continue;

        if ( level > 2 )
        {
            push(walk, gfn, level - 1, 0, 512);
            break;
        }
    }

    if ( table )
        walk->ops->unmap(walk->ctx, table);

    if ( walk->depth == top + 1 )
        walk->depth--;
}

bool pml_walk_run(struct pml_walk *walk, unsigned int budget)
{
    while ( walk->depth && budget-- )
        walk_table(walk);

    return !walk->depth;
}

/* The bits that have to be 0 in an entry. */
static uint64_t reserved_bits(const struct pml_root *root, unsigned int level,
                              uint64_t entry)
{
    bool wide = root->levels > 2;

    if ( root->levels == 3 && level == 3 )
        return PTE_BEYOND | PDPTE_RESERVED;
    if ( level > 3 )
        return PTE_BEYOND | PTE_LARGE;
    if ( level == 1 || !is_leaf(entry, level, wide, root->pse) )
        return wide ? PTE_BEYOND : 0;

    /* A large page's address, without the attribute in its lowest bit. */
    return wide ? PTE_BEYOND | ((1ULL << (3 + 9 * level)) - (1U << 13))
                : 1U << 21;
}

/*
 * Can these entries be of a page table?  *next is where the first of those
 * that were used leads to, 0 if none is; *large: one that was maps a page.
 */
static bool plausible_table(const struct pml_root *root, const void *table,
                            unsigned int level, unsigned int first,
                            unsigned int nr, uint64_t *next, bool *large)
{
    bool wide = root->levels > 2, pdpt = root->levels == 3 && level == 3;
    bool present = false;
    unsigned int i;

    *next = 0;
    *large = false;
    for ( i = first; i < first + nr; i++ )
    {
        uint64_t entry = read_entry(table, i, wide);

        if ( !(entry & PTE_PRESENT) )
            continue;
        if ( entry & reserved_bits(root, level, entry) )
            return false;

        present = true;
        if ( !pdpt && !(entry & PTE_ACCESSED) )
            continue;
        if ( !pdpt && is_leaf(entry, level, wide, root->pse) )
            *large = true;
        else if ( !*next )
            *next = entry & (wide ? PTE_FRAMES : 0xfffff000U);
    }

    return present;
}

bool pml_walk_plausible(const struct pml_walk_ops *ops, void *ctx,
                        const struct pml_root *root)
{
    unsigned int level = root->levels, nr = level == 2 ? 1024 : 512, first = 0;
    uint64_t at = level > 3 ? root->cr3 & PTE_FRAMES
                            : (uint32_t)root->cr3 & ~0xfffULL;
    bool good, large;
    uint64_t next;

    if ( level < 2 || level > PML_WALK_MAX_LEVELS )
        return false;

    if ( level == 3 )
    {
        first = (root->cr3 & 0xfe0) / sizeof(uint64_t);
        nr = 4;
    }

    /* The root, and the first table that it leads to. */
    for ( ; ; )
    {
        const void *table = ops->map(ctx, at >> 12);

        if ( !table )
            return false;
        good = plausible_table(root, table, level, first, nr, &next,
                               &large);
        ops->unmap(ctx, table);

        if ( !good || level < root->levels )
            return good;
        /* A root of large pages only has nothing else to be told by. */
        if ( !next )
            return large;

        at = next;
        level--;
        first = 0;
        nr = root->levels == 2 ? 1024 : 512;
    }
}

static inline uint64_t walk_entry(const void *table, unsigned int i,
                                  unsigned int level, bool wide)
{
    uint64_t entry = read_entry(table, i, wide), address, word;

    if ( !(entry & PTE_PRESENT) )
        return 0;

    word = XEN_PML_ENTRY_PRESENT;
    if ( entry & PTE_ACCESSED )
        word |= XEN_PML_ENTRY_ACCESSED;
    if ( entry & PTE_WRITABLE )
        word |= XEN_PML_ENTRY_WRITABLE;
    if ( entry & PTE_USER )
        word |= XEN_PML_ENTRY_USER;
    address = entry & (wide ? PTE_FRAMES : 0xfffff000U);

    if ( is_leaf(entry, level, wide, true) )
    {
        word |= XEN_PML_ENTRY_LEAF;
        if ( entry & PTE_DIRTY )
            word |= XEN_PML_ENTRY_DIRTY;
        /* The low bits of a large page's address are attributes... */
        if ( level > 1 )
            address &= ~0ULL << (wide ? 3 + 9 * level : 22);
        /* ...or (32-bit entries) its high bits. */
        if ( level > 1 && !wide )
            address |= (entry & PTE_PSE36) << 19;
    }

    return address | word;
}

uint64_t pml_walk_entry(const void *table, unsigned int i, unsigned int level,
                        bool wide)
{
    return walk_entry(table, i, level, wide);
}

bool pml_walk_snapshot(uint64_t *to, const void *table, unsigned int level,
                       bool wide, bool upper)
{
    unsigned int i, first = upper ? 512 : 0;
    uint64_t all = 0;

    /* By far the most frequent kind is worth a loop of its own. */
    if ( wide && level == 1 )
        for ( i = 0; i < 512; i++ )
            all |= to[i] = walk_entry(table, i, 1, true);
    else
        for ( i = 0; i < 512; i++ )
            all |= to[i] = walk_entry(table, first + i, level, wide);

    return all & XEN_PML_ENTRY_LEAF;
}

unsigned int pml_walk_clear(void *table, unsigned int level)
{
    volatile uint64_t *entries = table;
    unsigned int i, nr = 0;

    for ( i = 0; i < 512; i++ )
    {
        uint64_t entry = entries[i];

        if ( (entry & PTE_PRESENT) && (entry & PTE_ACCESSED) &&
             is_leaf(entry, level, true, true) )
        {
            /* This flag alone: who else has the page mapped may be writing. */
            clear_bit(PTE_ACCESSED_BIT, &entries[i]);
            nr++;
        }
    }

    return nr;
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

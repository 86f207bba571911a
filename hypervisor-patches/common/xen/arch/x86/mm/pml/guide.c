/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which frames page tables lead to: see guide.h.
 */
#include "guide.h"
#include "walk.h"

void pml_guide_init(struct pml_guide *g, struct pml_regions *regions,
                    uint64_t (*next)(void *ctx, uint64_t gfn), void *ctx)
{
    g->regions = regions;
    g->next = next;
    g->ctx = ctx;
    g->first = g->recent = NULL;
    g->last = &g->first;
    g->lost = 0;
}

/* The region of a GFN, and the first GFN that may be of another one. */
static struct pml_region *get_region(struct pml_guide *g, uint64_t gfn,
                                     uint64_t *after)
{
    struct pml_region *region = g->recent;

    *after = (gfn | (PML_REGION - 1)) + 1;
    if ( !region || region->number != gfn >> PML_REGION_SHIFT )
        region = g->recent = pml_region(g->regions, gfn);

    if ( !region )
    {
        uint64_t next = g->next(g->ctx, gfn);

        if ( next == gfn )
        {
            region = g->recent = pml_region_make(g->regions, gfn);
            g->lost += !region;
        }
        else
            *after = next;
    }

    if ( region && !region->listed )
    {
        region->listed = true;
        region->next_noted = NULL;
        *g->last = region;
        g->last = &region->next_noted;
    }

    return region;
}

/* These are of one word of a region's bitmap. */
static void note_frames(struct pml_guide *g, uint64_t word, uint64_t frames)
{
    uint64_t after;
    struct pml_region *region = get_region(g, word * 64, &after);

    if ( region )
        region->noted[word % PML_REGION_WORDS] |= frames;
}

/* All frames of these regions; of those of 1 GiB most may be absent. */
static void note_regions(struct pml_guide *g, uint64_t gfn, unsigned int nr)
{
    const uint64_t end = gfn + (uint64_t)nr * PML_REGION;
    uint64_t after;

    for ( ; gfn < end; gfn = after )
    {
        struct pml_region *region = get_region(g, gfn, &after);

        if ( region )
            region->whole = true;
    }
}

/* By far the most frequent kind of table: 4k pages, 64-bit entries. */
static unsigned int note_pages(struct pml_guide *g, const void *table,
                               unsigned int first, unsigned int entries)
{
    const volatile uint64_t *e = (const uint64_t *)table + first;
    const volatile uint64_t *end = e + entries, *stop;
    uint64_t word = 0, frames = 0;
    unsigned int nr = 0;

    while ( e < end )
    {
        if ( pml_walk_skip(e, PTE_PRESENT) )
        {
            e += PML_WALK_GROUP;
            continue;
        }

        for ( stop = e + PML_WALK_GROUP; e < stop; e++ )
        {
            uint64_t gfn = *e;

            if ( !(gfn & PTE_PRESENT) )
                continue;

            /* Neighbours lead to neighbours, most often. */
            gfn = (gfn & PTE_FRAMES) >> XEN_PML_ENTRY_SHIFT;
            if ( gfn / 64 != word )
            {
                if ( frames )
                    note_frames(g, word, frames);
                word = gfn / 64;
                frames = 0;
            }
            frames |= 1ULL << (gfn % 64);
            nr++;
        }
    }
    if ( frames )
        note_frames(g, word, frames);

    return nr;
}

unsigned int pml_guide_note(struct pml_guide *g, const void *table,
                            unsigned int level, bool wide, unsigned int first,
                            unsigned int entries)
{
    unsigned int i, nr = 0;
    unsigned int regions = level > 2 ? 512 : wide ? 1 : 2;

    if ( level == 1 && wide )
        return note_pages(g, table, first, entries);

    for ( i = first; i < first + entries; i++ )
    {
        uint64_t word, gfn;

        if ( wide && !(i % PML_WALK_GROUP) &&
             pml_walk_skip((const uint64_t *)table + i, PTE_LARGE) )
        {
            i += PML_WALK_GROUP - 1;
            continue;
        }

        word = pml_walk_entry(table, i, level, wide);
        gfn = word >> XEN_PML_ENTRY_SHIFT;
        if ( !(word & XEN_PML_ENTRY_LEAF) )
            continue;

        nr++;
        if ( level == 1 )
            note_frames(g, gfn / 64, 1ULL << (gfn % 64));
        else
            note_regions(g, gfn, regions);
    }

    return nr;
}

void pml_guide_forget_first(struct pml_guide *g)
{
    struct pml_region *region = g->first;

    g->first = region->next_noted;
    if ( !g->first )
        g->last = &g->first;
    memset(region->noted, 0, sizeof(region->noted));
    region->whole = region->listed = false;
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

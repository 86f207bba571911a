/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is known of a guest's frames, by regions of 2 MiB: see regions.h.
 */
#include "regions.h"

void pml_regions_init(struct pml_regions *r, uint64_t max_bytes)
{
    memset(r, 0, sizeof(*r));
    r->max_bytes = max_bytes;
}

static unsigned int slot_of(uint64_t number, unsigned int level)
{
    return (number >> (level * PML_NODE_SHIFT)) & (PML_NODE - 1);
}

struct pml_region *pml_region(const struct pml_regions *r, uint64_t gfn)
{
    uint64_t number = gfn >> PML_REGION_SHIFT;
    unsigned int level;
    void *found = r->top;

    if ( number >= PML_REGIONS_MAX )
        return NULL;

    for ( level = PML_NODE_LEVELS; found && level--; )
        found = ((struct pml_node *)found)->slot[slot_of(number, level)];

    return found;
}

/* Zeroed memory within the bound. */
static void *get_memory(struct pml_regions *r, size_t size)
{
    void *p;

    if ( r->bytes + size > r->max_bytes )
        return NULL;

    p = xzalloc_bytes(size);
    if ( p )
        r->bytes += size;

    return p;
}

static void free_memory(struct pml_regions *r, void *p, size_t size)
{
    if ( p )
        r->bytes -= size;
    xfree(p);
}

static struct pml_node *make_node(struct pml_regions *r)
{
    struct pml_node *node = get_memory(r, sizeof(*node));

    if ( node )
    {
        node->next = r->nodes;
        r->nodes = node;
    }

    return node;
}

struct pml_region *pml_region_make(struct pml_regions *r, uint64_t gfn)
{
    uint64_t number = gfn >> PML_REGION_SHIFT;
    struct pml_region *region = pml_region(r, gfn);
    struct pml_node *node;
    unsigned int level;

    if ( region || number >= PML_REGIONS_MAX )
        return region;

    if ( !r->top )
        r->top = make_node(r);
    node = r->top;

    for ( level = PML_NODE_LEVELS - 1; node && level; level-- )
    {
        void **slot = &node->slot[slot_of(number, level)];

        if ( !*slot )
            *slot = make_node(r);
        node = *slot;
    }

    if ( !node )
        return NULL;

    region = get_memory(r, sizeof(*region));
    if ( !region )
        return NULL;

    region->number = number;
    region->next = r->all;
    r->all = region;
    node->slot[slot_of(number, 0)] = region;

    return region;
}

uint16_t *pml_frame_make(struct pml_regions *r, uint64_t gfn)
{
    struct pml_region *region = pml_region_make(r, gfn);

    if ( region && !region->frames )
        region->frames = get_memory(r, PML_REGION * sizeof(*region->frames));

    return pml_region_frame(region, gfn);
}

bool pml_regions_free(struct pml_regions *r, unsigned int budget)
{
    /* Nothing is found in a tree that is being taken down. */
    r->top = NULL;

    for ( ; r->all && budget; budget-- )
    {
        struct pml_region *region = r->all;

        r->all = region->next;
        free_memory(r, region->frames, PML_REGION * sizeof(*region->frames));
        free_memory(r, region, sizeof(*region));
    }

    for ( ; r->nodes && budget; budget-- )
    {
        struct pml_node *node = r->nodes;

        r->nodes = node->next;
        free_memory(r, node, sizeof(*node));
    }

    return !r->all && !r->nodes;
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

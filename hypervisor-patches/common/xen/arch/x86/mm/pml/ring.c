/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The writer of a vCPU's PML log: see ring.h and public/pml.h.
 */
#ifdef __XEN__
#include <asm/atomic.h>
#include <asm/system.h>
#endif

#include "ring.h"

static unsigned int desc_frames(uint32_t nr_slots)
{
    return DIV_ROUND_UP(nr_slots * sizeof(struct xen_pml_desc), PML_RING_PAGE);
}

bool pml_ring_valid_slots(uint32_t nr_slots)
{
    return nr_slots >= XEN_PML_MIN_SLOTS && nr_slots <= XEN_PML_MAX_SLOTS &&
           !(nr_slots & (nr_slots - 1));
}

unsigned int pml_ring_frames(uint32_t nr_slots)
{
    return 1 + desc_frames(nr_slots) + nr_slots;
}

void pml_ring_init(struct pml_ring *ring, void *memory, uint16_t *counts,
                   uint32_t nr_slots)
{
    struct xen_pml_log *log = memory;
    unsigned int i;

    *ring = (struct pml_ring){
        .log = log,
        .desc = memory + PML_RING_PAGE,
        .data = memory + PML_RING_PAGE * (1 + desc_frames(nr_slots)),
        .counts = counts,
        .nr_slots = nr_slots,
    };

    for ( i = 0; i < nr_slots; i++ )
        counts[i] = 0;

    log->version = XEN_PML_LOG_VERSION;
    log->nr_slots = nr_slots;
    log->nr_frames = pml_ring_frames(nr_slots);
    log->desc_offset = (void *)ring->desc - memory;
    log->data_offset = (void *)ring->data - memory;
    smp_wmb();
    log->magic = XEN_PML_LOG_MAGIC;
}

uint64_t *pml_ring_begin(struct pml_ring *ring)
{
    uint32_t slot = ring->produced & (ring->nr_slots - 1);

    ring->overwritten += ring->counts[slot];
    ring->counts[slot] = 0;

    /* Readers have to see that the slot is void before it changes. */
    write_atomic(&ring->log->begun, ring->produced + 1);
    smp_wmb();

    return ring->data + slot * XEN_PML_SLOT_WORDS;
}

void pml_ring_commit(struct pml_ring *ring, const struct xen_pml_desc *desc)
{
    uint32_t slot = ring->produced & (ring->nr_slots - 1);
    struct xen_pml_desc *to = &ring->desc[slot];

    *to = *desc;
    to->seq = ring->produced;
    to->first = ring->entries;

    if ( desc->type == XEN_PML_TYPE_LOG )
    {
        ring->counts[slot] = desc->count;
        ring->entries += desc->count;
    }
    ring->produced++;

    /* The record has to be complete before readers are told of it. */
    smp_wmb();
    write_atomic(&ring->log->entries, ring->entries);
    write_atomic(&ring->log->overwritten, ring->overwritten);
    write_atomic(&ring->log->produced, ring->produced);
}

unsigned int pml_ring_copy(uint64_t *to, const uint64_t *from,
                           unsigned int nr, bool drop)
{
    unsigned int done = 0;

    while ( nr-- )
    {
        if ( drop && (from[nr] & XEN_PML_KIND_TABLE) )
            continue;
        to[done++] = from[nr];
    }

    return done;
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

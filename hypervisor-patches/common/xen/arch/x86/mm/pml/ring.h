/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The writer of a vCPU's PML log (public/pml.h).
 *
 * Nothing in here depends on the hypervisor: tools/tests/pml builds it for
 * user space.  Xen never reads the log back, as whoever maps it may be able to
 * write it: whatever the writer needs to know is in struct pml_ring.
 */
#ifndef X86_MM_PML_RING_H
#define X86_MM_PML_RING_H

#ifdef __XEN__
#include <xen/lib.h>
#include <xen/types.h>
#include <public/pml.h>
#endif

#define PML_RING_PAGE 4096U

struct pml_ring {
    struct xen_pml_log *log;
    struct xen_pml_desc *desc;
    uint64_t *data;
    uint16_t *counts;      /* LOG entries in each slot; not shared */
    uint32_t nr_slots;
    uint64_t produced, entries, overwritten;
};

/* Is this a size that a ring can have? */
bool pml_ring_valid_slots(uint32_t nr_slots);

/* Frames that a ring of this many slots takes, its header included. */
unsigned int pml_ring_frames(uint32_t nr_slots);

/*
 * Lay out a log in zeroed memory of pml_ring_frames() pages.  `counts` has
 * room for nr_slots values.
 */
void pml_ring_init(struct pml_ring *ring, void *memory, uint16_t *counts,
                   uint32_t nr_slots);

/*
 * Claim the next slot, overwriting the oldest record if need be.  Returns
 * where the data go, XEN_PML_SLOT_WORDS of them.
 */
uint64_t *pml_ring_begin(struct pml_ring *ring);

/*
 * Hand the slot to readers.  `desc` says all but seq and first, which are the
 * ring's business.
 */
void pml_ring_commit(struct pml_ring *ring, const struct xen_pml_desc *desc);

/*
 * The hardware writes its buffer from the last entry to the first: copy `nr`
 * entries in the order in which they were logged.  With `drop`, leave out
 * those that are marked as page tables.  Returns how many were copied.
 */
unsigned int pml_ring_copy(uint64_t *to, const uint64_t *from,
                           unsigned int nr, bool drop);

#endif /* X86_MM_PML_RING_H */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

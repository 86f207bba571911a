/* SPDX-License-Identifier: MIT */
/*
 * pml.h
 *
 * Layout of the log of Page Modification Logging (PML) entries that Xen keeps
 * per vCPU, and that the control domain maps as XENMEM_resource_pml_log.
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy
 * of this software and associated documentation files (the "Software"), to
 * deal in the Software without restriction, including without limitation the
 * rights to use, copy, modify, merge, publish, distribute, sublicense, and/or
 * sell copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in
 * all copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 * IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 * FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 * AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 * LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING
 * FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
 * DEALINGS IN THE SOFTWARE.
 */

#ifndef __XEN_PUBLIC_PML_H__
#define __XEN_PUBLIC_PML_H__

/*
 * A log is a ring of slots in three areas, each of them page aligned:
 *
 *   page 0                      struct xen_pml_log
 *   desc_offset / PAGE_SIZE     nr_slots descriptors, struct xen_pml_desc
 *   data_offset / PAGE_SIZE     nr_slots pages of data, 512 words of 64 bits
 *
 * Xen writes records, one per slot; record number n lives in slot
 * n & (nr_slots - 1).  It never waits for a reader and never reads the log
 * back: the oldest record is overwritten once the ring is full.
 *
 * A reader keeps the number of the record that it wants next, `r`:
 *
 *   1. read `produced` (acquire).  r == produced: nothing new.
 *   2. copy the descriptor and the data of slot r & (nr_slots - 1)
 *   3. read barrier, then read `begun`.  If begun - r > nr_slots, the slot was
 *      (or was being) overwritten in the meantime: the copy is void, the
 *      reader has been lapped.  The oldest record that can still be had is
 *      begun - nr_slots.
 *
 * How many entries a lapped reader has missed is exact: `first` of the next
 * record that it gets, minus (`first` + `count`) of the last one that it got.
 * Only records of type XEN_PML_TYPE_LOG advance `first`.
 */
#define XEN_PML_LOG_MAGIC     0x4c4d5058U /* "XPML" */
#define XEN_PML_LOG_VERSION   2U

struct xen_pml_log {
    uint32_t magic;           /*  0: XEN_PML_LOG_MAGIC */
    uint32_t version;         /*  4: XEN_PML_LOG_VERSION */
    uint32_t nr_slots;        /*  8: a power of two */
    uint32_t nr_frames;       /* 12: pages of the whole log, with this one */
    uint32_t desc_offset;     /* 16: in bytes from the start of the log */
    uint32_t data_offset;     /* 20: in bytes from the start of the log */
    uint32_t domid;           /* 24 */
    uint32_t vcpu;            /* 28 */
    uint64_t generation;      /* 32: another value at each enabling */
    uint64_t tsc_khz;         /* 40: the unit of all TSC stamps */
    uint64_t epoch_tsc;       /* 48: the TSC when logging began... */
    uint64_t epoch_ns;        /* 56: ... and Xen's system time, same moment */
    uint64_t begun;           /* 64: records begun */
    uint64_t produced;        /* 72: records complete */
    uint64_t entries;         /* 80: entries in complete LOG records, ever */
    uint64_t overwritten;     /* 88: of those, in slots used again since */
};

struct xen_pml_desc {
    uint64_t seq;             /*  0: number of the record */
    uint64_t first;           /*  8: LOG entries logged before this record */
    uint64_t tsc_start;       /* 16: the hardware began to fill the buffer */
    uint64_t tsc_end;         /* 24: the buffer was full, or was taken */
    uint64_t arg;             /* 32: LOG: TSC ticks from taking the buffer to
                                 this record; TABLES: which table, see below */
    uint32_t round;           /* 40: from 0; XEN_PML_close_round ends one */
    uint32_t count;           /* 44: of entries (LOG), or of words (TABLES) */
    uint16_t type;            /* 48: XEN_PML_TYPE_* */
    uint16_t reason;          /* 50: XEN_PML_REASON_* */
    uint32_t flags;           /* 52: XEN_PML_DESC_* */
    uint32_t dropped;         /* 56: page-table entries left out (OPT_DROP) */
    uint32_t vcpu;            /* 60 */
};

#define XEN_PML_SLOT_WORDS    512U

/* Sizes that a ring can have (powers of two), and what asking for 0 gives. */
#define XEN_PML_MIN_SLOTS     2U
#define XEN_PML_DEFAULT_SLOTS 64U
#define XEN_PML_MAX_SLOTS     4096U

/* What a record is. */
#define XEN_PML_TYPE_LOG      1U  /* data: PML entries, oldest first */
#define XEN_PML_TYPE_TABLES   2U  /* data: the 512 entries of a page table */

/* Why the hardware's buffer was taken. */
#define XEN_PML_REASON_FULL   1U
#define XEN_PML_REASON_ROUND  2U
#define XEN_PML_REASON_STOP   3U

#define XEN_PML_DESC_DEFERRED (1U << 0) /* drained while the guest ran on */
#define XEN_PML_DESC_WAITED   (1U << 1) /* the guest waited: all buffers full */
#define XEN_PML_DESC_REARMED  (1U << 2) /* its pages were re-armed in that */

/*
 * An entry is (gfn << 12) | kind; kind is in the bits that the hardware keeps
 * zero.  Data that are in the log have been written.  Page tables have been
 * walked or written: no walk is missed, but speculation may add some on real
 * processors.
 */
#define XEN_PML_ENTRY_SHIFT        12
#define XEN_PML_ENTRY_KIND_MASK    0xffU
#define XEN_PML_KIND_UNKNOWN       0x00U /* page tables are not told apart */
#define XEN_PML_KIND_ACCESSED      0x01U
#define XEN_PML_KIND_WRITTEN       0x02U
#define XEN_PML_KIND_TABLE         0x10U /* a page table of the guest... */
#define XEN_PML_KIND_LEVEL_MASK    0x07U /* ... of this level, 1 = leaf table */

/*
 * A TABLES record is a page table of the guest, as found when a round was
 * closed in which it was logged.  `arg` is (gfn << 12) | XEN_PML_KIND_TABLE |
 * level; a page of 32-bit entries (2-level paging) holds 1024 of them and
 * yields two records, the second one with XEN_PML_TABLE_UPPER.  The words are 0
 * for an entry that is not present, else (gfn << 12) | flags, where gfn is what
 * the entry points to: a page (of a large one, the first frame) or a table.
 */
#define XEN_PML_TABLE_UPPER        (1U << 8)

#define XEN_PML_ENTRY_PRESENT      (1U << 0)
#define XEN_PML_ENTRY_ACCESSED     (1U << 1)
#define XEN_PML_ENTRY_LEAF         (1U << 2) /* maps a page, not a table */
#define XEN_PML_ENTRY_DIRTY        (1U << 3)
#define XEN_PML_ENTRY_WRITABLE     (1U << 4)
#define XEN_PML_ENTRY_USER         (1U << 5)
/*
 * XEN_PML_OPT_CLEAR: ACCESSED is of this round.  All of the table's flags were
 * clear when it began; without this, they may be older.
 */
#define XEN_PML_ENTRY_CLEARED      (1U << 6)

/*
 * XEN_PML_ROUND_SAMPLE: of each 1 << order pages, this one is in the sample;
 * which of them differs from group to group (gfn >> order).  It is always the
 * same, or with XEN_PML_ROUND_REDRAW another one from round to round: `draw` is
 * then 1 + the number of the round; 0 is the draw without it.
 *
 * What is drawn next has its flags cleared whenever a sample is taken.  Hence a
 * region of 512 pages has the draw that followed the last look at it: another
 * than the rest if it was not used in the round before (XEN_PML_ROUND_PRUNED).
 */
#define XEN_PML_MAX_SAMPLE         9U
#define XEN_PML_HASH(x)                                                       \
    (((x) * 0x9e3779b97f4a7c15ULL) ^ (((x) * 0x9e3779b97f4a7c15ULL) >> 32))
#define XEN_PML_SAMPLE(group, order)                                          \
    ((((uint64_t)(group) * 0x9e3779b97f4a7c15ULL) >> 40) &                    \
     ((1U << (order)) - 1))
#define XEN_PML_DRAW(group, order, draw)                                      \
    XEN_PML_SAMPLE((draw) ? XEN_PML_HASH((uint64_t)(group) +                  \
                                         ((uint64_t)(draw) << 40))            \
                          : (uint64_t)(group), order)

/* Why a domain cannot be logged: see XEN_DOMCTL_pml_op. */
#define XEN_PML_REFUSED_NOT           0U
#define XEN_PML_REFUSED_PV            1U /* Not an HVM or PVH guest. */
#define XEN_PML_REFUSED_SHADOW        2U /* Shadow paging, not EPT. */
#define XEN_PML_REFUSED_NO_CPU        3U /* No PML in this CPU. */
#define XEN_PML_REFUSED_NO_PML_OPTION 4U /* Booted with ept=no-pml. */
#define XEN_PML_REFUSED_DEVICES       5U /* Assigned devices. */
#define XEN_PML_REFUSED_DYING         6U
#define XEN_PML_REFUSED_MIGRATING     7U /* Log-dirty mode is in use. */
#define XEN_PML_REFUSED_NESTED        8U /* Nested virtualisation. */
#define XEN_PML_REFUSED_ALTP2M        9U
#define XEN_PML_REFUSED_IOREQ        10U /* p2m_ioreq_server pages. */
#define XEN_PML_REFUSED_SELF         11U
#define XEN_PML_REFUSED_NO_VCPUS     12U /* Not all of them exist yet. */
#define XEN_PML_REFUSED_ACTIVE       13U /* Being logged already. */
#define XEN_PML_REFUSED_MEMORY       14U /* Xen has none left for the log... */
#define XEN_PML_REFUSED_POOL         15U /* ... the paging pool has none. */

#endif /* __XEN_PUBLIC_PML_H__ */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

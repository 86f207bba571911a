/* SPDX-License-Identifier: MIT */
/*
 * pml_ctl.h
 *
 * XEN_DOMCTL_pml_op: for domctl.h, which includes this.
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

#ifndef __XEN_PUBLIC_PML_CTL_H__
#define __XEN_PUBLIC_PML_CTL_H__

#include "xen.h"

/*
 * XEN_DOMCTL_pml_op
 *
 * Hands out what Page Modification Logging logs of a domain.  The log itself
 * is mapped as XENMEM_resource_pml_log; see public/pml.h for its layout.
 */
struct xen_domctl_pml_enable {
#define XEN_PML_OPT_TABLES        (1U << 0) /* Tell page tables apart. */
#define XEN_PML_OPT_DROP          (1U << 1) /* Leave them out of the log. */
#define XEN_PML_OPT_SNAPSHOTS     (1U << 2) /* Snapshots of logged tables. */
#define XEN_PML_OPT_ACCESSED      (1U << 3) /* Allow XEN_PML_ROUND_ACCESSED. */
/*
 * Whenever a snapshot of a table has been taken, clear the accessed flags of
 * its entries that map pages: the guest's own, which it may use to choose what
 * to reclaim.  Only with 4 levels of page tables, and not of all at any price:
 * XEN_PML_ENTRY_CLEARED tells.  Needs SNAPSHOTS and a re-arm policy.
 */
#define XEN_PML_OPT_CLEAR         (1U << 4)
    uint32_t flags;       /* IN */
    uint32_t slots;       /* IN: records in a vCPU's ring, 0 or a power of 2 */
    uint32_t buffers;     /* IN: hardware buffers per vCPU (0: 2) */
#define XEN_PML_MAX_BUFFERS       8U
#define XEN_PML_REARM_NEVER       0U
#define XEN_PML_REARM_ROUND       1U
#define XEN_PML_REARM_FLUSH       2U
    uint32_t rearm;       /* IN */
    uint32_t rearm_every; /* IN: buffers per re-arm (REARM_FLUSH; 0: 1) */
#define XEN_PML_MAX_REARM_EVERY   64U
    uint32_t pad;         /* IN: must be zero */
};

struct xen_domctl_pml_round {
#define XEN_PML_ROUND_REARM       (1U << 0) /* Re-arm whatever the policy. */
/*
 * Harvest accessed flags.  Of this and GUIDED: no page touched is missed, but
 * speculation may add some on real processors.
 */
#define XEN_PML_ROUND_ACCESSED    (1U << 1)
#define XEN_PML_ROUND_KEEP        (1U << 2) /* Keep the log-dirty bitmap. */
#define XEN_PML_ROUND_GUIDED      (1U << 3) /* Harvest under logged tables. */
#define XEN_PML_ROUND_PRUNED      (1U << 4) /* ACCESSED: follow upper flags. */
#define XEN_PML_ROUND_REDRAW      (1U << 5) /* SAMPLE: a new one each round. */
/*
 * ACCESSED: look at one of 2^n pages; n, up to XEN_PML_MAX_SAMPLE.  Once there
 * has been a sample, n and REDRAW cannot change: the others' flags are older.
 */
#define XEN_PML_ROUND_SAMPLE      (0xfU << 8)
    uint32_t flags;           /* IN */
    uint32_t round;           /* OUT: the round which has been closed */
    /*
     * IN: buffers for bitmaps of the round's dirty and accessed pages (or
     * NULL), and their size in bits, a multiple of 32768.  Xen writes only
     * those pages of them which are not all zero: the caller clears them.
     * Guest pages that a buffer has no room for are left as they are: neither
     * counted nor cleared nor re-armed, but handed out once it has.
     */
    XEN_GUEST_HANDLE_64(uint8) dirty;
    XEN_GUEST_HANDLE_64(uint8) accessed;
    uint64_aligned_t pages;
    uint64_aligned_t dirty_pages;    /* OUT */
    uint64_aligned_t accessed_pages; /* OUT */
    uint64_aligned_t rearmed;        /* OUT */
    uint64_aligned_t entries;        /* OUT */
    uint64_aligned_t tables;         /* OUT */
    uint64_aligned_t snapshots;      /* OUT */
    uint64_aligned_t tsc_pause;      /* OUT */
    uint64_aligned_t tsc_resume;     /* OUT */
    uint64_aligned_t bitmap_failed;  /* OUT */
};

/*
 * The frames that were touched in a round that was closed with
 * XEN_PML_ROUND_GUIDED, (gfn << 12) | XEN_PML_KIND_*.  Xen keeps them while the
 * domain runs on, until the next round is closed (-ENODATA from then on, and
 * for rounds without GUIDED) or logging is disabled.  They are fetched from the
 * first to the last one, in as many calls as it takes.  A call that fails has
 * fetched nothing: after -EFAULT, the same one can be made again.
 */
struct xen_domctl_pml_fetch {
    uint32_t round;           /* IN: the round, as XEN_DOMCTL_pml_close_round */
    uint32_t pad;             /* IN: must be zero */
    /*
     * IN: how many have been fetched so far: 0 begins (anew), else it is what
     * the calls before have come to (-EINVAL: another caller is fetching, too).
     */
    uint64_aligned_t first;
    XEN_GUEST_HANDLE_64(uint64) words;
    uint64_aligned_t nr;      /* IN: room, in words; OUT: the words written */
    uint64_aligned_t total;   /* OUT: all that there are */
    uint64_aligned_t lost;    /* OUT: more which there was no memory for */
};

/* What the closing of the last round has cost, in TSC ticks and in looks. */
struct xen_domctl_pml_costs {
    uint64_aligned_t walk_tsc;       /* OUT: finding page tables */
    uint64_aligned_t drain_tsc;      /* OUT: draining */
    uint64_aligned_t tables_tsc;     /* OUT: snapshots */
    uint64_aligned_t rearm_tsc;      /* OUT: bitmap and re-arming */
    uint64_aligned_t guided_tsc;     /* OUT: harvest under the tables */
    uint64_aligned_t scan_tsc;       /* OUT: harvest of the whole domain */
    uint64_aligned_t guided_tables;  /* OUT: tables read */
    uint64_aligned_t guided_entries; /* OUT: entries of them that map pages */
    uint64_aligned_t guided_frames;  /* OUT: accessed flags looked at */
    uint64_aligned_t scan_frames;    /* OUT: the same of the scan */
    uint64_aligned_t cleared;        /* OUT: the guest's accessed flags */
    /*
     * OUT: address spaces that a vCPU used, and which were forgotten for want
     * of room; those whose root was none any more at the end; page tables that
     * there was no room to note.  If there are any of the first or third, a
     * guided harvest looks at all memory that was used.
     */
    uint32_t roots_dropped;
    uint32_t roots_stale;
    uint32_t tables_dropped;
    uint32_t pad;
    uint64_aligned_t memory;         /* OUT: as in xen_domctl_pml_status */
};

struct xen_domctl_pml_status {
#define XEN_PML_STATE_OFF         0U
#define XEN_PML_STATE_STARTING    1U
#define XEN_PML_STATE_LOGGING     2U
/* An operation was broken off, or is to be undone: only pml_disable is left. */
#define XEN_PML_STATE_BROKEN      3U
    uint32_t state;                  /* OUT */
    uint32_t round;                  /* OUT: the round which is running */
    struct xen_domctl_pml_enable options; /* OUT: in force */
    uint32_t vcpus;                  /* OUT */
    uint32_t tables;                 /* OUT: page tables that are known */
    uint64_aligned_t generation;     /* OUT */
    uint64_aligned_t tsc_khz;        /* OUT */
    uint64_aligned_t max_gfn;        /* OUT */
    uint64_aligned_t entries;        /* OUT */
    uint64_aligned_t overwritten;    /* OUT */
    uint64_aligned_t rearmed;        /* OUT */
    uint64_aligned_t bitmap_failed;  /* OUT */
    uint64_aligned_t superpages;     /* OUT: split in order to log */
    uint64_aligned_t bitmap_pages;   /* OUT: room for those of all its memory */
    uint64_aligned_t memory;         /* OUT: held for the log now, in bytes */
};

struct xen_domctl_pml_vcpu {
    uint32_t vcpu;                   /* IN */
    uint32_t pad;                    /* IN: must be zero */
    uint64_aligned_t exits;          /* OUT: log-full VM exits */
    uint64_aligned_t exit_tsc;       /* OUT: TSC ticks, exit to re-entry */
    uint64_aligned_t drains;         /* OUT: buffers drained, any reason */
    uint64_aligned_t drain_tsc;      /* OUT: TSC ticks spent on that */
    uint64_aligned_t deferred;       /* OUT: drained while the guest ran on */
    uint64_aligned_t waited;         /* OUT: both buffers were full */
    uint64_aligned_t entries;        /* OUT */
    uint64_aligned_t dropped;        /* OUT: page tables left out */
    uint64_aligned_t overwritten;    /* OUT */
    uint64_aligned_t rearmed;        /* OUT */
};

struct xen_domctl_pml_op {
#define XEN_DOMCTL_pml_enable         1
#define XEN_DOMCTL_pml_disable        2
#define XEN_DOMCTL_pml_close_round    3
#define XEN_DOMCTL_pml_status         4 /* Any domain, whatever its kind. */
#define XEN_DOMCTL_pml_vcpu_status    5
#define XEN_DOMCTL_pml_costs          6
#define XEN_DOMCTL_pml_fetch          7
    uint16_t cmd;         /* IN */
    /*
     * OUT: why the domain cannot be logged (pml_enable when it fails), why a
     * round goes on (pml_close_round, -ENOMEM), or what pml_enable would say
     * now (pml_status): XEN_PML_REFUSED_*, see public/pml.h.
     */
    uint16_t refusal;
    /*
     * IN: 0.  Xen has the operation that it continues in here, of which all
     * other fields are those of its first call.  One caller at a time: another
     * one's call meanwhile fails with -EBUSY, except that pml_disable breaks
     * off any other operation.  That one's caller gets -ENOENT.
     */
    uint32_t cookie;
    union {
        struct xen_domctl_pml_enable enable;
        struct xen_domctl_pml_round round;
        struct xen_domctl_pml_fetch fetch;
        struct xen_domctl_pml_status status;
        struct xen_domctl_pml_vcpu vcpu;
        struct xen_domctl_pml_costs costs;
    } u;
};
typedef struct xen_domctl_pml_op xen_domctl_pml_op_t;
DEFINE_XEN_GUEST_HANDLE(xen_domctl_pml_op_t);

#endif /* __XEN_PUBLIC_PML_CTL_H__ */

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

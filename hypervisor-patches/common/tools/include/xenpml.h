/*
 * libxenpml: the log of Page Modification Logging of a domain.
 *
 * This library is free software; you can redistribute it and/or
 * modify it under the terms of the GNU Lesser General Public
 * License as published by the Free Software Foundation;
 * version 2.1 of the License.
 *
 * This library is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU
 * Lesser General Public License for more details.
 *
 * You should have received a copy of the GNU Lesser General Public
 * License along with this library; If not, see <http://www.gnu.org/licenses/>.
 */
#ifndef XENPML_H
#define XENPML_H

#include <stdint.h>

/* Callers who don't care don't need to #include <xentoollog.h> */
struct xentoollog_logger;

typedef struct xenpml_handle xenpml_handle;
typedef struct xenpml_log xenpml_log;

/*
 * Functions returning int give 0 (or what is said) on success, and -1 with
 * errno set on failure.  Functions returning a pointer give NULL with errno
 * set.
 */

/* Option flags of xenpml_enable(). */
#define XENPML_OPT_TABLES     1u  /* tell the guest's page tables apart */
#define XENPML_OPT_DROP       2u  /* ... and leave them out of the log */
#define XENPML_OPT_SNAPSHOTS  4u  /* snapshots of tables logged in a round */
#define XENPML_OPT_ACCESSED   8u  /* rounds can harvest EPT accessed flags */
/*
 * After each snapshot clear the accessed flags of its entries that map pages,
 * in the guest's memory: the next one has those of its own round only, where
 * XENPML_ENTRY_CLEARED says so.  The guest may take these pages for idle.
 */
#define XENPML_OPT_CLEAR     16u

/* When is a logged page armed again, so that its next write is logged? */
#define XENPML_REARM_NEVER    0u  /* only when the round says so itself */
#define XENPML_REARM_ROUND    1u  /* when a round is closed */
#define XENPML_REARM_FLUSH    2u  /* and after `rearm_every` drained buffers */

struct xenpml_options {
    uint32_t flags;         /* XENPML_OPT_* */
    uint32_t slots;         /* records that a vCPU's log holds; 0: 64 */
    uint32_t buffers;       /* 1 to 8 hardware buffers per vCPU; 0: 2 */
    uint32_t rearm;         /* XENPML_REARM_* */
    uint32_t rearm_every;   /* with XENPML_REARM_FLUSH: 1..64; 0: 1 */
    uint32_t reserved;      /* 0 */
};

/* Why logging cannot be enabled now; xenpml_refusal_text() has the words. */
#define XENPML_REFUSED_NOT           0u
#define XENPML_REFUSED_PV            1u
#define XENPML_REFUSED_SHADOW        2u
#define XENPML_REFUSED_NO_CPU        3u  /* this CPU has no PML */
#define XENPML_REFUSED_NO_PML_OPTION 4u  /* Xen was booted with ept=no-pml */
#define XENPML_REFUSED_DEVICES       5u
#define XENPML_REFUSED_DYING         6u
#define XENPML_REFUSED_MIGRATING     7u  /* log-dirty is on already */
#define XENPML_REFUSED_NESTED        8u
#define XENPML_REFUSED_ALTP2M        9u
#define XENPML_REFUSED_IOREQ        10u  /* emulated memory of an I/O server */
#define XENPML_REFUSED_SELF         11u
#define XENPML_REFUSED_NO_VCPUS     12u  /* not all of them exist yet */
#define XENPML_REFUSED_ACTIVE       13u  /* it is being logged already */
#define XENPML_REFUSED_MEMORY       14u  /* Xen has no memory for the log... */
#define XENPML_REFUSED_POOL         15u  /* ... its paging pool has none */

#define XENPML_STATE_OFF       0u
#define XENPML_STATE_STARTING  1u
#define XENPML_STATE_LOGGING   2u
#define XENPML_STATE_BROKEN    3u  /* broken off: it can only be disabled */

struct xenpml_status {
    uint32_t state;         /* XENPML_STATE_* */
    uint32_t refusal;       /* XENPML_REFUSED_*: what enabling would meet */
    struct xenpml_options options;  /* in force */
    uint32_t round;         /* the round that is running */
    uint32_t vcpus;
    uint64_t generation;
    uint64_t tsc_khz;
    uint64_t max_gfn;
    uint64_t entries;       /* logged, all vCPUs */
    uint64_t overwritten;   /* of those, no longer in the rings */
    uint64_t rearmed;
    uint64_t tables;        /* page tables marked now */
    uint64_t bitmap_failed; /* pages that found no memory in the bitmap */
    uint64_t superpages;    /* split in order to log */
    uint64_t bitmap_pages;  /* for bitmaps with room for all of its memory,
                               wherever it has mapped something */
    uint64_t memory;        /* that Xen holds for the log now, in bytes; not
                               counted: what log-dirty mode as such takes */
};

struct xenpml_vcpu_status {
    uint64_t exits;         /* log-full VM exits */
    uint64_t exit_tsc;      /* TSC ticks in them, exit to re-entry */
    uint64_t drains;        /* buffers drained, all reasons */
    uint64_t drain_tsc;     /* TSC ticks in draining (and re-arming) */
    uint64_t deferred;      /* buffers drained after the guest had resumed */
    uint64_t waited;        /* all buffers were full: drained in the exit */
    uint64_t entries;
    uint64_t dropped;       /* page-table entries left out */
    uint64_t overwritten;
    uint64_t rearmed;       /* in drains; rounds count in xenpml_round */
};

/*
 * Flags of xenpml_close_round().  Of both harvests: no page touched is missed,
 * but speculation may add some on real processors.
 */
#define XENPML_ROUND_REARM     1u  /* re-arm now, whatever the policy */
#define XENPML_ROUND_ACCESSED  2u  /* harvest EPT accessed flags (and clear) */
#define XENPML_ROUND_KEEP      4u  /* do not clear the log-dirty bitmap */
/*
 * Harvest the accessed flags of just those frames that were logged, or that the
 * page tables logged in the round map: all that vCPUs have touched.  Before
 * ACCESSED, if both are asked for.  Needs the options ACCESSED and TABLES, and
 * a re-arm policy; not with KEEP.
 */
#define XENPML_ROUND_GUIDED    8u
/*
 * ACCESSED: leave out regions that are untouched as EPT's upper levels tell.
 * After a guided harvest these tell no more: all is looked at.
 */
#define XENPML_ROUND_PRUNED   16u
/*
 * With SAMPLE: draw another sample in each round.  `order` and this flag cannot
 * change once there has been a sample (EINVAL).
 */
#define XENPML_ROUND_REDRAW   32u
/*
 * ACCESSED: look at one of 1 << order frames only, order 1 to 9: of those
 * whose GFN >> order is g, at (g << order) + XEN_PML_SAMPLE(g, order).  With
 * REDRAW, it is XEN_PML_DRAW(g, order, 1 + round) if the region was looked at
 * in the round before (without PRUNED: all are); else that of the round after
 * its last look.
 */
#define XENPML_ROUND_SAMPLE(order) ((order) << 8)

struct xenpml_round {
    uint32_t flags;         /* in: XENPML_ROUND_* */
    uint32_t round;         /* out: number of the round now closed, from 0 */
    /*
     * in: bitmaps to fill, or NULL, and their size in bits, a multiple of
     * 32768 (bitmaps are of whole 4096-byte pages): bitmap_pages of the status.
     * What is above stays as it is until there is room for it.
     * `dirty`: every page dirtied in the round, the ring notwithstanding.
     * `accessed`: every page accessed in it (with GUIDED: that is not in
     * `touched`); needs XENPML_ROUND_ACCESSED.
     */
    void *dirty;
    void *accessed;
    uint64_t pages;
    uint64_t dirty_pages;   /* out: bits set in the log-dirty bitmap */
    uint64_t accessed_pages;/* out: bits set in `accessed` */
    uint64_t rearmed;       /* out: pages re-armed by this closing */
    uint64_t entries;       /* out: entries logged in the round, all vCPUs */
    uint64_t tables;        /* out: page tables marked after it */
    uint64_t snapshots;     /* out: TABLES records written to the logs */
    uint64_t tsc_pause;     /* out: TSC at which the domain was paused... */
    uint64_t tsc_resume;    /* out: ... and released: the round's boundaries */
    uint64_t bitmap_failed; /* out: pages missing from `dirty`: no memory */
    /*
     * out: XENPML_ROUND_GUIDED: the frames touched, (gfn << 12) | kind, each
     * once, in no order: XENPML_KIND_ACCESSED those which were only read.
     * The array is the library's, until the next xenpml_close_round() or
     * xenpml_close() with this handle.
     */
    const uint64_t *touched;
    uint64_t touched_count;
    /* out: TSC ticks that closing the round took */
    uint64_t walk_tsc;      /* finding the page tables in use */
    uint64_t drain_tsc;     /* draining buffers */
    uint64_t tables_tsc;    /* snapshots */
    uint64_t rearm_tsc;     /* bitmap, re-arming, flags of logged frames */
    uint64_t guided_tsc;    /* flags of frames below the page tables logged */
    uint64_t scan_tsc;      /* XENPML_ROUND_ACCESSED */
    /* out: what that consisted of */
    uint64_t guided_tables; /* page tables read */
    uint64_t guided_entries;/* entries of them that map pages */
    uint64_t guided_frames; /* accessed flags looked at because of them */
    uint64_t scan_frames;   /* accessed flags looked at by the scan */
    uint64_t cleared;       /* XENPML_OPT_CLEAR: the guest's accessed flags */
    /* out: tables that were not followed; GUIDED then looks at all in use */
    uint64_t roots_dropped; /* address spaces: too many on a vCPU in a round */
    uint64_t roots_stale;   /* those whose root is no page table any more (no
                               harm: what was below is gone) */
    uint64_t tables_dropped;/* no memory to note them */
    uint64_t memory;        /* that Xen holds for the log, as in the status */
    /*
     * out, on failure: if not XENPML_REFUSED_NOT, nothing has been done to the
     * round, which goes on, and this is why.
     */
    uint32_t refusal;
    uint32_t reserved;      /* out: 0 */
};

xenpml_handle *xenpml_open(struct xentoollog_logger *logger,
                           unsigned open_flags);
int xenpml_close(xenpml_handle *h);

/* 0 on success; on failure *refusal (if not NULL) says more than errno. */
int xenpml_enable(xenpml_handle *h, uint32_t domid,
                  const struct xenpml_options *options, uint32_t *refusal);
/* Breaks off what others are doing with the log: they get ENOENT. */
int xenpml_disable(xenpml_handle *h, uint32_t domid);
/*
 * EBUSY: somebody else is closing a round.  ENOMEM with GUIDED: there is no
 * memory for what was touched; if `refusal` says so, the round goes on.  Else,
 * and with ENODATA (somebody else has closed one before `touched` was fetched),
 * the round is closed; `round` and all that is out, but `touched`, are of it.
 * ETIME: an operation was broken off as its caller was gone.
 */
int xenpml_close_round(xenpml_handle *h, uint32_t domid,
                       struct xenpml_round *round);
int xenpml_get_status(xenpml_handle *h, uint32_t domid,
                      struct xenpml_status *status);
int xenpml_get_vcpu_status(xenpml_handle *h, uint32_t domid, uint32_t vcpu,
                           struct xenpml_vcpu_status *status);
const char *xenpml_refusal_text(uint32_t refusal);

/* ---- reading a vCPU's log ---- */

#define XENPML_TYPE_LOG       1u
#define XENPML_TYPE_TABLES    2u

#define XENPML_REASON_FULL    1u
#define XENPML_REASON_ROUND   2u
#define XENPML_REASON_STOP    3u

#define XENPML_RECORD_DEFERRED 1u
#define XENPML_RECORD_WAITED   2u
#define XENPML_RECORD_REARMED  4u

/* data[i] of a LOG record is (gfn << 12) | kind */
#define XENPML_KIND_UNKNOWN   0x00u
#define XENPML_KIND_ACCESSED  0x01u
#define XENPML_KIND_WRITTEN   0x02u
#define XENPML_KIND_TABLE     0x10u
#define XENPML_KIND_LEVEL_MASK 0x07u

struct xenpml_record {
    uint64_t seq;           /* number of the record on this vCPU */
    uint64_t first;         /* LOG entries of this vCPU before this record */
    uint64_t tsc_start;
    uint64_t tsc_end;
    uint64_t drain_tsc;     /* LOG: ticks from taking the buffer until then */
    uint64_t table;         /* TABLES: (gfn << 12) | XENPML_KIND_TABLE | level,
                               | XENPML_TABLE_UPPER */
    uint64_t lost_entries;  /* missed by the reader just before this record */
    uint64_t lost_records;
    uint32_t round;
    uint32_t count;
    uint16_t type;
    uint16_t reason;
    uint32_t flags;
    uint32_t dropped;
    uint32_t vcpu;
    uint64_t data[512];
};

/*
 * A TABLES record is a page of 512 entries of a page table of the guest, as
 * found when a round was closed in which it was logged.  UPPER: the second half
 * of one with 1024 entries.  data[i] is 0 for an entry that is not present,
 * else (gfn << 12) | flags: what it points to.
 */
#define XENPML_TABLE_UPPER    0x100u

#define XENPML_ENTRY_PRESENT  0x01u
#define XENPML_ENTRY_ACCESSED 0x02u
#define XENPML_ENTRY_LEAF     0x04u  /* maps a page (level > 1: a large one) */
#define XENPML_ENTRY_DIRTY    0x08u
#define XENPML_ENTRY_WRITABLE 0x10u
#define XENPML_ENTRY_USER     0x20u
#define XENPML_ENTRY_CLEARED  0x40u  /* ACCESSED is of this round */

struct xenpml_log_info {
    uint32_t slots;
    uint32_t frames;
    uint32_t domid;
    uint32_t vcpu;
    uint64_t generation;
    uint64_t tsc_khz;
    uint64_t epoch_tsc;
    uint64_t epoch_ns;
    uint64_t produced;
    uint64_t entries;
    uint64_t overwritten;
};

/*
 * Maps the log read-only, until it is unmapped, which has to be before
 * xenpml_close().  EPROTO: not a log, or of another version.
 */
xenpml_log *xenpml_log_map(xenpml_handle *h, uint32_t domid, uint32_t vcpu);
int xenpml_log_unmap(xenpml_log *log);
int xenpml_log_get_info(xenpml_log *log, struct xenpml_log_info *info);

/* 1: *record is the next one; 0: nothing new; -1: errno. */
int xenpml_log_read(xenpml_log *log, struct xenpml_record *record);

/* The same reader over memory of the caller's (tests, dumps). */
xenpml_log *xenpml_log_attach(const void *memory, uint64_t size);

#endif

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

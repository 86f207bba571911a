/* SPDX-License-Identifier: Apache-2.0
 * For cffi: what libxenpml.so.1 offers, as in tools/include/xenpml.h of the patched Xen. */
typedef struct xenpml_handle xenpml_handle;
typedef struct xenpml_log xenpml_log;

#define XENPML_OPT_TABLES     1
#define XENPML_OPT_DROP       2
#define XENPML_OPT_SNAPSHOTS  4
#define XENPML_OPT_ACCESSED   8
#define XENPML_OPT_CLEAR     16

#define XENPML_REARM_NEVER    0
#define XENPML_REARM_ROUND    1
#define XENPML_REARM_FLUSH    2

struct xenpml_options {
    uint32_t flags;
    uint32_t slots;
    uint32_t buffers;
    uint32_t rearm;
    uint32_t rearm_every;
    uint32_t reserved;
};

#define XENPML_REFUSED_NOT           0
#define XENPML_REFUSED_PV            1
#define XENPML_REFUSED_SHADOW        2
#define XENPML_REFUSED_NO_CPU        3
#define XENPML_REFUSED_NO_PML_OPTION 4
#define XENPML_REFUSED_DEVICES       5
#define XENPML_REFUSED_DYING         6
#define XENPML_REFUSED_MIGRATING     7
#define XENPML_REFUSED_NESTED        8
#define XENPML_REFUSED_ALTP2M        9
#define XENPML_REFUSED_IOREQ        10
#define XENPML_REFUSED_SELF         11
#define XENPML_REFUSED_NO_VCPUS     12
#define XENPML_REFUSED_ACTIVE       13
#define XENPML_REFUSED_MEMORY       14
#define XENPML_REFUSED_POOL         15

#define XENPML_STATE_OFF       0
#define XENPML_STATE_STARTING  1
#define XENPML_STATE_LOGGING   2
#define XENPML_STATE_BROKEN    3

struct xenpml_status {
    uint32_t state;
    uint32_t refusal;
    struct xenpml_options options;
    uint32_t round;
    uint32_t vcpus;
    uint64_t generation;
    uint64_t tsc_khz;
    uint64_t max_gfn;
    uint64_t entries;
    uint64_t overwritten;
    uint64_t rearmed;
    uint64_t tables;
    uint64_t bitmap_failed;
    uint64_t superpages;
    uint64_t bitmap_pages;
    uint64_t memory;
};

struct xenpml_vcpu_status {
    uint64_t exits;
    uint64_t exit_tsc;
    uint64_t drains;
    uint64_t drain_tsc;
    uint64_t deferred;
    uint64_t waited;
    uint64_t entries;
    uint64_t dropped;
    uint64_t overwritten;
    uint64_t rearmed;
};

#define XENPML_ROUND_REARM     1
#define XENPML_ROUND_ACCESSED  2
#define XENPML_ROUND_KEEP      4

#define XENPML_ROUND_GUIDED    8

#define XENPML_ROUND_PRUNED   16

#define XENPML_ROUND_REDRAW   32

struct xenpml_round {
    uint32_t flags;
    uint32_t round;

    void *dirty;
    void *accessed;
    uint64_t pages;
    uint64_t dirty_pages;
    uint64_t accessed_pages;
    uint64_t rearmed;
    uint64_t entries;
    uint64_t tables;
    uint64_t snapshots;
    uint64_t tsc_pause;
    uint64_t tsc_resume;
    uint64_t bitmap_failed;

    const uint64_t *touched;
    uint64_t touched_count;

    uint64_t walk_tsc;
    uint64_t drain_tsc;
    uint64_t tables_tsc;
    uint64_t rearm_tsc;
    uint64_t guided_tsc;
    uint64_t scan_tsc;

    uint64_t guided_tables;
    uint64_t guided_entries;
    uint64_t guided_frames;
    uint64_t scan_frames;
    uint64_t cleared;

    uint64_t roots_dropped;
    uint64_t roots_stale;
    uint64_t tables_dropped;
    uint64_t memory;
    uint32_t refusal;
    uint32_t reserved;
};

xenpml_handle *xenpml_open(void *logger,
                           unsigned open_flags);
int xenpml_close(xenpml_handle *h);

int xenpml_enable(xenpml_handle *h, uint32_t domid,
                  const struct xenpml_options *options, uint32_t *refusal);
int xenpml_disable(xenpml_handle *h, uint32_t domid);
int xenpml_close_round(xenpml_handle *h, uint32_t domid,
                       struct xenpml_round *round);
int xenpml_get_status(xenpml_handle *h, uint32_t domid,
                      struct xenpml_status *status);
int xenpml_get_vcpu_status(xenpml_handle *h, uint32_t domid, uint32_t vcpu,
                           struct xenpml_vcpu_status *status);
const char *xenpml_refusal_text(uint32_t refusal);

#define XENPML_TYPE_LOG       1
#define XENPML_TYPE_TABLES    2

#define XENPML_REASON_FULL    1
#define XENPML_REASON_ROUND   2
#define XENPML_REASON_STOP    3

#define XENPML_RECORD_DEFERRED 1
#define XENPML_RECORD_WAITED   2
#define XENPML_RECORD_REARMED  4

#define XENPML_KIND_UNKNOWN   0x00
#define XENPML_KIND_ACCESSED  0x01
#define XENPML_KIND_WRITTEN   0x02
#define XENPML_KIND_TABLE     0x10
#define XENPML_KIND_LEVEL_MASK 0x07

struct xenpml_record {
    uint64_t seq;
    uint64_t first;
    uint64_t tsc_start;
    uint64_t tsc_end;
    uint64_t drain_tsc;
    uint64_t table;
    uint64_t lost_entries;
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

#define XENPML_TABLE_UPPER    0x100

#define XENPML_ENTRY_PRESENT  0x01
#define XENPML_ENTRY_ACCESSED 0x02
#define XENPML_ENTRY_LEAF     0x04
#define XENPML_ENTRY_DIRTY    0x08
#define XENPML_ENTRY_WRITABLE 0x10
#define XENPML_ENTRY_USER     0x20
#define XENPML_ENTRY_CLEARED  0x40

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

xenpml_log *xenpml_log_map(xenpml_handle *h, uint32_t domid, uint32_t vcpu);
int xenpml_log_unmap(xenpml_log *log);
int xenpml_log_get_info(xenpml_log *log, struct xenpml_log_info *info);

int xenpml_log_read(xenpml_log *log, struct xenpml_record *record);

xenpml_log *xenpml_log_attach(const void *memory, uint64_t size);

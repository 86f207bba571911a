/* SPDX-License-Identifier: Apache-2.0
 *
 * The recorder: a TCG plugin that reports, per round, the guest frames that a VM reads, writes and
 * executes, and the log of an emulated PML buffer.  It streams messages over a pipe; recorder.py
 * converts them to a spool and a trace.  One vCPU; guest RAM below 4 GiB (QEMU's plugin interface
 * gives RAM offsets, which equal guest-physical addresses only there).
 *
 * Arguments: fd=N ram=BYTES clock=icount|host shift=N period=N unit=insn|ns boot=on|off check=on|off
 *
 * Three ideas:
 *  - Most accesses go to a page that was seen in this round already.  `seen` answers that by one
 *    load and one compare, without asking QEMU for the physical address.  It is a TLB in software
 *    and is emptied where the architecture says that translations may change (see changes_mapping)
 *    and at the end of a round.  check=on asks QEMU anyway, and counts the errors of `seen`.
 *  - Instruction fetches are not memory accesses in QEMU.  Each page that holds code has a counter
 *    that translated blocks bump inline; the counters are compared at the end of a round.
 *  - A guest's disk (optional) is a file that QEMU reads and writes straight from and into guest
 *    RAM. This library is preloaded then, and its preadv and pwritev come before the C library's:
 *    file offset and host address are sector and frame. QEMU's own trace events name the sectors
 *    only; tests/sources/test_recorder_disk.py compares the two.
 *  - Until the guest executes the ARM marker, only markers are instrumented, so that it boots at
 *    QEMU's own speed.
 */
#define _GNU_SOURCE
#include "qemu_plugin_api.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u
#define PML_ENTRIES 512  /* Intel SDM 29.3.6: one 4 KiB page of 64-bit addresses */
#define CHUNK 8192       /* access entries to a message */
#define SLOTS 1024       /* of the software TLB; a power of two */
#define WIDEST 64        /* bytes of the widest access */
#define HOST_CHECK 50000 /* instructions between two looks at the host's clock */

enum kind { READ = 1, WRITE = 2, EXEC = 4 };
enum reason { FULL, ROUND, STOP };
enum message { HELLO = 1, ACCESS, PML, ROUND_END, MARK, TOTALS, DISK };
enum marker { ARM = 1, PHASE, SAMPLE, END };

/* A moment of the recording: instructions executed and nanoseconds since its start. */
struct moment {
    uint64_t insn;
    int64_t ns;
};
struct span_message {
    uint32_t type, bytes; /* bytes that follow these two fields */
    uint32_t round, reason;
    struct moment start, end;
};
struct round_message {
    uint32_t type, bytes;
    uint32_t round, full_exits;
    struct moment start, end;
    uint64_t accessed, dirty;
};
struct mark_message {
    uint32_t type, bytes;
    uint32_t round, marker;
    struct moment at;
};
struct totals_message {
    uint32_t type, bytes;
    uint64_t slow, io, outside, crossing, unknown, flushes, wrong;
};
struct disk_part { /* the part of a request in one frame */
    uint64_t insn;
    int64_t ns;
    uint64_t sector;
    uint32_t gfn;
    uint16_t sectors, write;
};
struct disk_message {
    uint32_t type, bytes;
};
struct hello_message {
    uint32_t type, bytes;
    uint64_t version, pages;
};

static struct {
    int fd;
    bool icount, in_ns, boot, check;
    unsigned shift;
    uint64_t period, pages;
} conf = {.fd = -1};

static uint64_t insn;      /* executed since the recording began; bumped inline */
static uint64_t next_tick; /* the instruction count of the next tick() */
static bool recording;
static uint32_t round_no;
static struct moment round_start;
static uint64_t round_due; /* in the period's unit */
static int64_t host_start_ns;

static uint64_t seen[2][SLOTS]; /* virtual page numbers known to be noted as read, as written */
static uint8_t *state;          /* per frame: the kinds noted in this round */
static uint64_t accessed, dirty;
static uint32_t chunk[CHUNK], chunk_length; /* gfn << 3 | kind */
static struct moment chunk_start;
static uint32_t pml[PML_ENTRIES], pml_length, full_exits;
static struct moment pml_start;
static struct {
    uint64_t runs, runs_before;
} *code;                      /* per frame */
static uint32_t *code_frames, code_frames_length, code_frames_sorted; /* with translated code */
static uint8_t *has_code;
static char *ram; /* where QEMU mapped the guest's memory */
static struct totals_message totals;

static void die(const char *why)
{
    char line[256];
    snprintf(line, sizeof line, "pmlkit recorder: %s\n", why);
    if (write(2, line, strlen(line)) < 0) {
        /* there is no reader any more */
    }
    _exit(3); /* the reader of the pipe sees its end without TOTALS */
}

static void send_bytes(const void *data, size_t length)
{
    const char *at = data;
    while (length) {
        ssize_t sent = write(conf.fd, at, length);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            die("the reader has gone");
        at += sent;
        length -= sent;
    }
}

#define SEND(message) send_bytes(&(message), sizeof(message))

static struct moment now(void)
{
    if (conf.icount)
        return (struct moment){insn, (int64_t)(insn << conf.shift)};
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (struct moment){insn, t.tv_sec * 1000000000ll + t.tv_nsec - host_start_ns};
}

static void send_span(uint32_t type, enum reason reason, struct moment start, struct moment end,
                      const uint32_t *entries, uint32_t length)
{
    /* A buffer that filled within a block which runs over the round's end, or while the round was
     * being closed, began "later" than that: by its instructions, or by the clock alone. */
    if (start.insn > end.insn || start.ns > end.ns)
        start = end;
    struct span_message m = {type, sizeof m - 8 + length * 4, round_no, reason, start, end};
    SEND(m);
    send_bytes(entries, length * 4);
}

static void flush_chunk(enum reason reason, struct moment at)
{
    if (chunk_length)
        send_span(ACCESS, reason, chunk_start, at, chunk, chunk_length);
    chunk_length = 0;
    chunk_start = at;
}

static void flush_pml(enum reason reason, struct moment at)
{
    if (pml_length)
        send_span(PML, reason, pml_start, at, pml, pml_length);
    pml_length = 0;
    pml_start = at;
}

static void note(uint64_t gfn, enum kind kind)
{
    if (state[gfn] & kind)
        return;
    accessed += state[gfn] == 0;
    state[gfn] |= kind;
    if (chunk_length == CHUNK)
        flush_chunk(FULL, now());
    chunk[chunk_length++] = (uint32_t)(gfn << 3) | kind;
    if (kind != WRITE)
        return;
    dirty++;
    if (pml_length == PML_ENTRIES) { /* the exit comes before the entry that does not fit */
        full_exits++;
        flush_pml(FULL, now());
    }
    pml[pml_length++] = (uint32_t)gfn;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void note_code(void)
{
    if (code_frames_sorted != code_frames_length)
        qsort(code_frames, code_frames_length, sizeof *code_frames, ascending);
    code_frames_sorted = code_frames_length;
    for (uint32_t i = 0; i < code_frames_length; i++) {
        uint32_t gfn = code_frames[i];
        if (code[gfn].runs != code[gfn].runs_before)
            note(gfn, EXEC);
        code[gfn].runs_before = code[gfn].runs;
    }
}

static void forget_seen(void) { memset(seen, 0xff, sizeof seen); }

/* Requests from QEMU's worker threads, which the vCPU's thread sends later. */
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static struct disk_part *disk_parts;
static size_t disk_length, disk_room;

static void note_disk_part(struct moment at, uint64_t offset, uint64_t address, size_t length,
                           bool write)
{
    if (disk_length == disk_room) {
        disk_room = disk_room ? 2 * disk_room : 1024;
        disk_parts = realloc(disk_parts, disk_room * sizeof *disk_parts);
        if (!disk_parts)
            die("out of memory");
    }
    disk_parts[disk_length++] = (struct disk_part){
        at.insn, at.ns, offset >> 9, address >> PAGE_SHIFT, length >> 9, write};
}

static void flush_disk(void)
{
    pthread_mutex_lock(&disk_lock);
    if (disk_length) {
        struct disk_message m = {DISK, disk_length * sizeof *disk_parts};
        SEND(m);
        send_bytes(disk_parts, m.bytes);
    }
    disk_length = 0;
    pthread_mutex_unlock(&disk_lock);
}

static void end_round(enum reason reason, struct moment at)
{
    note_code();
    flush_disk();
    flush_chunk(reason, at);
    flush_pml(reason, at);
    struct round_message m = {ROUND_END, sizeof m - 8, round_no, full_exits, round_start,
                              at,        accessed,     dirty};
    SEND(m);
    memset(state, 0, conf.pages); /* re-arm */
    forget_seen();
    accessed = dirty = full_exits = 0;
    round_start = at;
    round_no++;
}

static uint64_t in_unit(struct moment at) { return conf.in_ns ? (uint64_t)at.ns : at.insn; }

static struct moment when_due(struct moment at)
{
    if (conf.icount && !conf.in_ns)
        return (struct moment){round_due, (int64_t)(round_due << conf.shift)};
    return (struct moment){conf.icount ? round_due >> conf.shift : at.insn, (int64_t)round_due};
}

/* Ends the rounds that are over.  They end when they were due if nothing was noted since: always
 * where the clock counts instructions, otherwise if the guest was idle.  The host's clock is
 * looked at now and then only: what was noted until now belongs to the round that ends now. */
static void end_rounds(bool quiet)
{
    struct moment at = now();
    while (in_unit(at) >= round_due) {
        bool late = !quiet && in_unit(at) >= round_due + conf.period;
        if (!late) /* of several rounds that passed, one is reported */
            end_round(ROUND, quiet ? when_due(at) : at);
        round_due += conf.period;
    }
    if (conf.in_ns && !conf.icount)
        next_tick = insn + HOST_CHECK;
    else
        next_tick = conf.in_ns ? (round_due + (1u << conf.shift) - 1) >> conf.shift : round_due;
}

static void tick(void) { end_rounds(conf.icount); }

/* Slow path of an access: asks QEMU for the frame. */
static void note_access(qemu_plugin_meminfo_t info, uint64_t vaddr, bool store)
{
    if (!recording)
        return;
    struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    totals.slow++;
    if (!where) {
        totals.unknown++;
        return;
    }
    if (qemu_plugin_hwaddr_is_io(where)) {
        totals.io++;
        return;
    }
    uint64_t gfn = qemu_plugin_hwaddr_phys_addr(where) >> PAGE_SHIFT;
    if (gfn >= conf.pages) { /* firmware, option ROMs */
        totals.outside++;
        return;
    }
    note(gfn, store ? WRITE : READ);
    seen[store][(vaddr >> PAGE_SHIFT) % SLOTS] = vaddr >> PAGE_SHIFT;
}

static void verify(qemu_plugin_meminfo_t info, uint64_t vaddr, bool store)
{
    struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    if (!where || qemu_plugin_hwaddr_is_io(where))
        return;
    uint64_t gfn = qemu_plugin_hwaddr_phys_addr(where) >> PAGE_SHIFT;
    totals.wrong += gfn < conf.pages && !(state[gfn] & (store ? WRITE : READ));
}

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
    (void)vcpu, (void)data;
    if (__builtin_expect(insn >= next_tick, 0))
        tick();
    bool store = qemu_plugin_mem_is_store(info);
    uint64_t page = vaddr >> PAGE_SHIFT, offset = vaddr % PAGE_SIZE;
    if (__builtin_expect(seen[store][page % SLOTS] != page, 0))
        note_access(info, vaddr, store);
    else if (__builtin_expect(conf.check, 0))
        verify(info, vaddr, store);
    if (__builtin_expect(offset > PAGE_SIZE - WIDEST, 0)) {
        unsigned size = 1u << qemu_plugin_mem_size_shift(info);
        if (offset + size > PAGE_SIZE) {
            totals.crossing++;
            note_access(info, vaddr + size - 1, store);
        }
    }
}

static void on_mapping_change(unsigned vcpu, void *data)
{
    (void)vcpu, (void)data;
    totals.flushes++;
    forget_seen();
}

static void on_idle(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id, (void)vcpu;
    if (recording)
        tick();
}

static void on_resume(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id, (void)vcpu;
    if (recording)
        end_rounds(conf.in_ns);
}

static void stop(void)
{
    if (!recording)
        return;
    tick();
    end_round(STOP, now());
    recording = false;
    next_tick = UINT64_MAX; /* QEMU 7.2 cannot drop the callbacks of a running block: they go quiet */
    totals.type = TOTALS;
    totals.bytes = sizeof totals - 8;
    SEND(totals);
}

static void on_exit_of_qemu(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    stop();
}

static qemu_plugin_id_t self;
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);

static void start(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    host_start_ns = t.tv_sec * 1000000000ll + t.tv_nsec;
    recording = true;
    insn = 0;
    round_start = chunk_start = pml_start = now();
    round_due = conf.period;
    next_tick = 0;
    forget_seen();
}

static void instrument(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_idle_cb(id, on_idle);
    qemu_plugin_register_vcpu_resume_cb(id, on_resume);
    qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
}

static void on_reset_to_start(qemu_plugin_id_t id)
{
    start();
    instrument(id);
}

static void on_marker(unsigned vcpu, void *data)
{
    (void)vcpu;
    enum marker marker = (enum marker)(uintptr_t)data;
    if (marker == ARM && !recording)
        qemu_plugin_reset(self, on_reset_to_start); /* drops all translated code */
    if (!recording)
        return;
    tick();
    if (marker == PHASE && insn > round_start.insn) {
        /* A phase begins with a new round: the last round of the previous phase is cut short. */
        end_round(ROUND, now());
        round_due = in_unit(round_start) + conf.period;
        next_tick = 0;
    }
    struct mark_message m = {MARK, sizeof m - 8, round_no, marker, now()};
    SEND(m);
    if (marker == END)
        stop();
}

/* The marker is `nopl 0x4d50LLNN(%rax)`: LL is the marker. */
static unsigned marker_of(const uint8_t *code_bytes, size_t size)
{
    bool is_marker = size == 7 && code_bytes[0] == 0x0f && code_bytes[1] == 0x1f &&
                     code_bytes[2] == 0x80 && code_bytes[5] == 0x50 && code_bytes[6] == 0x4d;
    return is_marker ? code_bytes[4] : 0;
}

/* Instructions after which a virtual address may map elsewhere without a page fault in between:
 * moves to control registers, INVLPG and its kin, INVPCID, WRMSR (EFER), RSM.  Hardware may keep
 * translations until one of them (Intel SDM 4.10.4), so a guest cannot rely on less. */
static bool changes_mapping(const uint8_t *b, size_t size)
{
    const uint8_t *end = b + size;
    while (b < end && (*b == 0x66 || *b == 0xf2 || *b == 0xf3 || *b == 0x2e || *b == 0x3e ||
                       *b == 0x64 || *b == 0x65 || *b == 0x67 || (*b & 0xf0) == 0x40))
        b++;
    if (end - b < 2 || b[0] != 0x0f)
        return false;
    switch (b[1]) {
    case 0x22: /* mov to CRn */
    case 0x30: /* wrmsr */
    case 0xaa: /* rsm */
        return true;
    case 0x01: /* invlpg (and others of its group, harmless here), lmsw */
        return end - b >= 3 && (b[2] >> 3 & 7) >= 6;
    case 0x38: /* invpcid */
        return end - b >= 3 && b[2] == 0x82;
    }
    return false;
}

/* QEMU gives code by its host address; guest RAM is the one mapping of the memfd that recorder.py
 * asks for. */
static void find_ram(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (strstr(line, "memfd:memory-backend") && sscanf(line, "%lx-%lx", &from, &to) == 2 &&
            to - from == conf.pages << PAGE_SHIFT)
            ram = (char *)from;
    }
    if (maps)
        fclose(maps);
    if (!ram)
        die("the guest's memory was not found in /proc/self/maps");
}

static void count_code(struct qemu_plugin_insn *one)
{
    uint64_t offset = (uint64_t)((char *)qemu_plugin_insn_haddr(one) - ram);
    uint64_t gfn = offset >> PAGE_SHIFT;
    if (gfn >= conf.pages)
        return;
    if (!has_code[gfn]) {
        has_code[gfn] = 1;
        code_frames[code_frames_length++] = (uint32_t)gfn;
    }
    qemu_plugin_register_vcpu_insn_exec_inline(one, QEMU_PLUGIN_INLINE_ADD_U64, &code[gfn].runs, 1);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    uint64_t page_before = ~0ull;
    if (!ram)
        find_ram();
    if (recording)
        qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &insn, count);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(tb, i);
        const uint8_t *bytes = qemu_plugin_insn_data(one);
        size_t size = qemu_plugin_insn_size(one);
        unsigned marker = marker_of(bytes, size);
        if (marker)
            qemu_plugin_register_vcpu_insn_exec_cb(one, on_marker, QEMU_PLUGIN_CB_NO_REGS,
                                                   (void *)(uintptr_t)marker);
        if (!recording)
            continue;
        if (changes_mapping(bytes, size))
            qemu_plugin_register_vcpu_insn_exec_cb(one, on_mapping_change, QEMU_PLUGIN_CB_NO_REGS,
                                                   NULL);
        uint64_t page = qemu_plugin_insn_vaddr(one) >> PAGE_SHIFT;
        if (page != page_before)
            count_code(one);
        page_before = page;
        qemu_plugin_register_vcpu_mem_cb(one, on_access, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_RW, NULL);
    }
}

/* The buffers of a request that lie in guest RAM, frame by frame. Only the disk's file is read and
 * written from there by position. */
static void note_request(const struct iovec *parts, int count, off_t offset, bool write)
{
    if (!ram || !recording)
        return;
    pthread_mutex_lock(&disk_lock);
    for (int i = 0; i < count; i++) {
        uint64_t address = (uint64_t)((char *)parts[i].iov_base - ram);
        size_t left = parts[i].iov_len;
        for (; left && address < conf.pages << PAGE_SHIFT;) {
            size_t here = PAGE_SIZE - address % PAGE_SIZE;
            here = here < left ? here : left;
            note_disk_part(now(), offset, address, here, write);
            address += here, offset += here, left -= here;
        }
        offset += left;
    }
    pthread_mutex_unlock(&disk_lock);
}

typedef ssize_t vector_call(int fd, const struct iovec *parts, int count, off_t offset);
typedef ssize_t plain_call(int fd, void *data, size_t length, off_t offset);

#define VECTOR(name, write)                                                                     \
    EXPORT ssize_t name(int fd, const struct iovec *parts, int count, off_t offset)             \
    {                                                                                           \
        static vector_call *next;                                                               \
        if (!next)                                                                              \
            next = (vector_call *)dlsym(RTLD_NEXT, #name);                                      \
        note_request(parts, count, offset, write);                                              \
        return next(fd, parts, count, offset);                                                  \
    }
#define PLAIN(name, constant, write)                                                            \
    EXPORT ssize_t name(int fd, constant void *data, size_t length, off_t offset)               \
    {                                                                                           \
        static plain_call *next;                                                                \
        struct iovec whole = {(void *)data, length};                                            \
        if (!next)                                                                              \
            next = (plain_call *)dlsym(RTLD_NEXT, #name);                                       \
        note_request(&whole, 1, offset, write);                                                 \
        return next(fd, (void *)data, length, offset);                                          \
    }
VECTOR(preadv, false)
VECTOR(preadv64, false)
VECTOR(pwritev, true)
VECTOR(pwritev64, true)
PLAIN(pread, , false)
PLAIN(pread64, , false)
PLAIN(pwrite, const, true)
PLAIN(pwrite64, const, true)

static bool is_on(const char *value) { return !strcmp(value, "on"); }

static bool set(const char *argument)
{
    const char *value = strchr(argument, '=');
    if (!value)
        return false;
    size_t length = value++ - argument;
#define NAMED(name) (length == sizeof name - 1 && !memcmp(argument, name, length))
    if (NAMED("fd"))
        conf.fd = atoi(value);
    else if (NAMED("ram"))
        conf.pages = strtoull(value, NULL, 10) >> PAGE_SHIFT;
    else if (NAMED("clock"))
        conf.icount = !strcmp(value, "icount");
    else if (NAMED("shift"))
        conf.shift = atoi(value);
    else if (NAMED("period"))
        conf.period = strtoull(value, NULL, 10);
    else if (NAMED("unit"))
        conf.in_ns = !strcmp(value, "ns");
    else if (NAMED("boot"))
        conf.boot = is_on(value);
    else if (NAMED("check"))
        conf.check = is_on(value);
    else
        return false;
    return true;
}

EXPORT int qemu_plugin_version = 1;

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (!set(argv[i]))
            return -1;
    bool usable = info->system_emulation && info->system.max_vcpus == 1 && conf.fd >= 0 &&
                  conf.pages && conf.pages <= 3u << 18 && conf.period;
    if (!usable)
        return -1;
    self = id;
    state = calloc(conf.pages, 1);
    has_code = calloc(conf.pages, 1);
    code = calloc(conf.pages, sizeof *code);
    code_frames = calloc(conf.pages, sizeof *code_frames);
    if (!state || !has_code || !code || !code_frames)
        return -1;
    struct hello_message hello = {HELLO, sizeof hello - 8, 1, conf.pages};
    SEND(hello);
    if (conf.boot)
        start();
    instrument(id);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* Tests of the PML log's writer and reader, of page tables, and of refusals. */
#include <errno.h>
#include <pthread.h>

#include <xenpml.h>

#include "guide.h"
#include "refuse.h"
#include "ring.h"
#include "walk.h"

#define PAGE 4096UL

/****************** ring ******************/

struct memory {
    struct pml_ring ring;
    void *memory;
    size_t size;
    uint16_t *counts;
    xenpml_log *log;
};

static void setup(struct memory *m, uint32_t slots)
{
    m->size = pml_ring_frames(slots) * PAGE;
    m->memory = aligned_alloc(PAGE, m->size);
    memset(m->memory, 0, m->size);
    m->counts = calloc(slots, sizeof(*m->counts));
    pml_ring_init(&m->ring, m->memory, m->counts, slots);
    m->log = xenpml_log_attach(m->memory, m->size);
    CHECK(m->log, "attach: errno %d", errno);
}

static void teardown(struct memory *m)
{
    xenpml_log_unmap(m->log);
    free(m->memory);
    free(m->counts);
}

/* A record whose entries count up from `value`. */
static void produce(struct memory *m, uint32_t count, uint64_t value)
{
    struct xen_pml_desc desc = {
        .type = XEN_PML_TYPE_LOG, .count = count, .round = value,
        .reason = XEN_PML_REASON_FULL, .arg = 9,
    };
    uint64_t *to = pml_ring_begin(&m->ring);
    uint32_t i;

    for ( i = 0; i < count; i++ )
        to[i] = (value + i) << XEN_PML_ENTRY_SHIFT;
    pml_ring_commit(&m->ring, &desc);
}

static void test_sizes(void)
{
    CHECK(!pml_ring_valid_slots(0) && !pml_ring_valid_slots(1) &&
          !pml_ring_valid_slots(3) && !pml_ring_valid_slots(8192) &&
          pml_ring_valid_slots(2) && pml_ring_valid_slots(4096), "slots");
    CHECK(pml_ring_frames(2) == 4, "%u", pml_ring_frames(2));
    CHECK(pml_ring_frames(64) == 66, "%u", pml_ring_frames(64));
    CHECK(pml_ring_frames(128) == 131, "%u", pml_ring_frames(128));
    CHECK(sizeof(struct xen_pml_desc) == 64, "descriptor");
}

/* The hardware writes its newest entry first. */
static void test_order(void)
{
    uint64_t hw[512], out[512];
    unsigned int i, n;

    for ( i = 0; i < 512; i++ )
        hw[511 - i] = ((uint64_t)i << 12) |
                      (i % 3 ? XEN_PML_KIND_WRITTEN : XEN_PML_KIND_TABLE | 1);

    CHECK(pml_ring_copy(out, hw, 512, false) == 512, "all");
    for ( i = 0; i < 512; i++ )
        CHECK(out[i] >> 12 == i, "entry %u is %lx", i, (long)out[i]);

    n = pml_ring_copy(out, hw + 500, 12, true);
    CHECK(n == 8, "%u", n);
    for ( i = 0; i < n; i++ )
        CHECK(out[i] >> 12 == i / 2 * 3 + i % 2 + 1, "%u: %lx", i,
              (long)out[i]);
}

static void test_read(void)
{
    struct xenpml_record r;
    struct xenpml_log_info info;
    struct memory m;
    unsigned int i;

    setup(&m, 4);
    CHECK(xenpml_log_read(m.log, &r) == 0, "empty");
    produce(&m, 512, 1000);
    produce(&m, 0, 2000);
    produce(&m, 7, 3000);
    CHECK(xenpml_log_read(m.log, &r) == 1 && r.count == 512 && !r.seq, "1");
    for ( i = 0; i < 512; i++ )
        CHECK(r.data[i] >> 12 == 1000 + i, "%u", i);
    CHECK(xenpml_log_read(m.log, &r) == 1 && !r.count && r.first == 512, "2");
    CHECK(xenpml_log_read(m.log, &r) == 1 && r.count == 7 && !r.lost_records &&
          !r.lost_entries && r.data[6] >> 12 == 3006, "3");
    CHECK(xenpml_log_read(m.log, &r) == 0, "end");
    xenpml_log_get_info(m.log, &info);
    CHECK(info.produced == 3 && info.entries == 519 && !info.overwritten,
          "info");
    teardown(&m);
}

/* A reader that is lapped is told by exactly how much. */
static void test_lapped(void)
{
    struct xenpml_record r;
    struct memory m;
    uint64_t seen = 0, lost = 0, made = 0;
    unsigned int i;

    setup(&m, 8);
    for ( i = 0; i < 1000; i++ )
    {
        uint32_t count = (i * 37) % 513;

        produce(&m, count, made);
        made += count;

        if ( i % 29 == 28 || i == 999 )
            while ( xenpml_log_read(m.log, &r) == 1 )
            {
                uint32_t k;

                lost += r.lost_entries;
                CHECK(r.first == seen + lost, "first");
                for ( k = 0; k < r.count; k++ )
                    CHECK(r.data[k] >> 12 == r.first + k, "entry");
                seen += r.count;
            }
    }
    CHECK(seen + lost == made && lost, "%lu + %lu != %lu", (long)seen,
          (long)lost, (long)made);
    CHECK(m.ring.entries == made, "entries");
    CHECK(m.ring.overwritten + 8 * 512 >= made, "overwritten");
    teardown(&m);
}

/* TABLES records take slots, but are no entries. */
static void test_tables_record(void)
{
    struct xen_pml_desc desc = {
        .type = XEN_PML_TYPE_TABLES, .count = 512, .arg = 0x7011,
    };
    struct xenpml_record r;
    struct memory m;

    setup(&m, 2);
    produce(&m, 5, 0);
    pml_ring_begin(&m.ring)[511] = 0x1003;
    pml_ring_commit(&m.ring, &desc);
    CHECK(xenpml_log_read(m.log, &r) == 1 && !r.table && r.drain_tsc == 9,
          "log");
    CHECK(xenpml_log_read(m.log, &r) == 1 && r.type == XENPML_TYPE_TABLES &&
          r.count == 512 && r.data[511] == 0x1003 && r.table == 0x7011 &&
          !r.drain_tsc, "tables");
    produce(&m, 5, 5);
    CHECK(xenpml_log_read(m.log, &r) == 1 && r.first == 5 && !r.lost_entries,
          "after");
    /* Two records lost, one of them with entries. */
    produce(&m, 3, 10);
    pml_ring_begin(&m.ring);
    pml_ring_commit(&m.ring, &desc);
    produce(&m, 1, 13);
    produce(&m, 1, 14);
    CHECK(xenpml_log_read(m.log, &r) == 1 && r.lost_records == 2 &&
          r.lost_entries == 3, "%lu %lu", (long)r.lost_records,
          (long)r.lost_entries);
    teardown(&m);
}

/* A record that is being written is no record yet, and void as the old one. */
static void test_unfinished(void)
{
    struct xenpml_record r;
    struct memory m;

    setup(&m, 2);
    produce(&m, 1, 0);
    produce(&m, 1, 1);
    pml_ring_begin(&m.ring);
    CHECK(xenpml_log_read(m.log, &r) == 1 && r.lost_records == 1 &&
          r.lost_entries == 1 && r.data[0] >> 12 == 1, "void");
    CHECK(xenpml_log_read(m.log, &r) == 0, "unfinished");
    teardown(&m);
}

static void test_refused(void)
{
    struct memory m;
    struct xen_pml_log *head;

    setup(&m, 4);
    head = m.memory;
    CHECK(!xenpml_log_attach(m.memory, PAGE - 1) && errno == EINVAL, "short");
    CHECK(!xenpml_log_attach(m.memory, m.size - 1) && errno == EPROTO, "size");
    head->version++;
    CHECK(!xenpml_log_attach(m.memory, m.size) && errno == EPROTO, "version");
    head->version--;
    head->magic++;
    CHECK(!xenpml_log_attach(m.memory, m.size) && errno == EPROTO, "magic");
    head->magic--;
    head->nr_slots = 3;
    CHECK(!xenpml_log_attach(m.memory, m.size) && errno == EPROTO, "slots");
    head->nr_slots = 4;
    head->data_offset = 0xfffff000;
    CHECK(!xenpml_log_attach(m.memory, m.size) && errno == EPROTO, "offset");
    teardown(&m);
}

/* Writer and reader at the same time: each entry is seen or counted as lost. */
#define RACE_RECORDS 30000

static void *race_writer(void *data)
{
    struct memory *m = data;
    uint64_t made = 0;
    unsigned int i;

    for ( i = 0; i < RACE_RECORDS; i++ )
    {
        uint32_t count = (i * 31) % 513;

        produce(m, count, made);
        made += count;
    }

    return NULL;
}

static void test_race(void)
{
    struct xenpml_record r;
    struct memory m;
    pthread_t writer;
    uint64_t seen = 0, lost = 0, next = 0;
    int rc;

    setup(&m, 4);
    pthread_create(&writer, NULL, race_writer, &m);
    while ( next < RACE_RECORDS )
    {
        uint32_t k;

        rc = xenpml_log_read(m.log, &r);
        CHECK(rc >= 0, "errno %d", errno);
        if ( !rc )
            continue;
        lost += r.lost_entries;
        for ( k = 0; k < r.count; k++ )
            CHECK(r.data[k] >> 12 == r.first + k, "torn: record %lu",
                  (long)r.seq);
        seen += r.count;
        CHECK(r.first + r.count == seen + lost, "sums");
        next = r.seq + 1;
    }
    pthread_join(writer, NULL);
    CHECK(seen + lost == m.ring.entries, "all");
    printf("race: %lu seen, %lu lost, of %lu\n", (long)seen, (long)lost,
           (long)m.ring.entries);
    teardown(&m);
}

/****************** walk ******************/

#define FRAMES 64

struct guest {
    uint64_t page[FRAMES][512];
    uint8_t levels[FRAMES];    /* visited at, as a mask */
    bool narrow[FRAMES];
    unsigned int entered, mapped;
};

static const void *guest_map(void *ctx, uint64_t gfn)
{
    struct guest *g = ctx;

    if ( gfn >= FRAMES )
        return NULL;
    g->mapped++;

    return g->page[gfn];
}

static void guest_unmap(void *ctx, const void *table)
{
    struct guest *g = ctx;

    CHECK(g->mapped-- == 1, "unbalanced");
}

static bool guest_enter(void *ctx, uint64_t gfn, unsigned int level, bool wide)
{
    struct guest *g = ctx;

    CHECK(level >= 1 && level <= 5, "level %u", level);
    if ( gfn >= FRAMES || (g->levels[gfn] & (1U << level)) )
        return false;
    g->levels[gfn] |= 1U << level;
    g->narrow[gfn] = !wide;
    g->entered++;

    return true;
}

static const struct pml_walk_ops guest_ops = {
    .map = guest_map, .unmap = guest_unmap, .enter = guest_enter,
};

static unsigned int walk(struct guest *g, struct pml_root root,
                         unsigned int budget)
{
    struct pml_walk w;
    unsigned int calls = 1;

    memset(g->levels, 0, sizeof(g->levels));
    g->entered = 0;
    pml_walk_start(&w, &guest_ops, g, &root);
    while ( !pml_walk_run(&w, budget) )
        calls++;
    CHECK(!g->mapped, "left mapped");

    return calls;
}

static void test_walk_4(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct pml_root root = { .cr3 = 1 << 12, .levels = 4 };
    unsigned int i;

    g->page[1][0] = (2 << 12) | 0x63;
    g->page[1][511] = (3 << 12) | 0x63 | (1ULL << 63);
    g->page[1][5] = 4 << 12;                        /* not present */
    g->page[2][0] = (5 << 12) | 1;
    g->page[2][1] = (uint64_t)1 << 30 | 0x81;       /* 1 GiB page */
    g->page[3][0] = (5 << 12) | 1;                  /* shared table */
    g->page[5][7] = (6 << 12) | 1;
    g->page[5][8] = (7ULL << 21) | 0x81;            /* 2 MiB page */
    g->page[5][9] = (uint64_t)FRAMES << 12 | 1;     /* beyond memory */
    for ( i = 0; i < 512; i++ )
        g->page[6][i] = ((uint64_t)(i + 10) << 12) | 0x81; /* bit 7 is PAT */

    for ( i = 1; i < 20; i++ )
    {
        walk(g, root, i);
        CHECK(g->levels[1] == 1 << 4 && g->levels[2] == 1 << 3 &&
              g->levels[3] == 1 << 3 && g->levels[5] == 1 << 2 &&
              g->levels[6] == 1 << 1 && g->entered == 5, "%u", g->entered);
    }
    free(g);
}

static void test_walk_pae(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct pml_root root = { .cr3 = (1 << 12) + 0x40, .levels = 3 };

    g->page[1][7] = (9 << 12) | 1;                  /* not one of the four */
    g->page[1][8] = (2 << 12) | 1;
    g->page[1][11] = (3 << 12) | 1;
    g->page[1][12] = (9 << 12) | 1;
    g->page[2][1] = (4 << 12) | 1;
    g->page[3][1] = (4 << 12) | 1;
    walk(g, root, 1000);
    CHECK(!g->levels[1] && g->levels[2] == 1 << 2 && g->levels[3] == 1 << 2 &&
          g->levels[4] == 1 << 1 && g->entered == 3, "%u", g->entered);
    free(g);
}

static void test_walk_2(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct pml_root root = { .cr3 = 1 << 12, .levels = 2, .pse = true };
    uint32_t *dir = (void *)g->page[1];

    dir[0] = (2 << 12) | 1;
    dir[1023] = (3 << 12) | 1;
    dir[1] = (4 << 12) | 0x81;
    walk(g, root, 1000);
    CHECK(g->levels[1] == 1 << 2 && g->narrow[1] && g->levels[2] == 1 << 1 &&
          g->levels[3] == 1 << 1 && g->entered == 3, "%u", g->entered);
    root.pse = false;
    walk(g, root, 1000);
    CHECK(g->levels[4] == 1 << 1 && g->entered == 4, "no PSE");
    free(g);
}

/* Tables that are their own: the walk ends, each table met once per level. */
static void test_walk_loops(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct pml_root root = { .cr3 = 0, .levels = 4 };
    unsigned int i, k;

    for ( i = 0; i < FRAMES; i++ )
        for ( k = 0; k < 512; k++ )
            g->page[i][k] = ((uint64_t)(k % FRAMES) << 12) | 1;
    walk(g, root, 7);
    CHECK(g->entered == 1 + 3 * FRAMES, "%u", g->entered);
    free(g);
}

static void test_walk_none(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct pml_root root = { .cr3 = 1 << 12 };

    CHECK(walk(g, root, 1) == 1 && !g->entered, "no paging");
    root.levels = 9;
    CHECK(walk(g, root, 1) == 1 && !g->entered, "nonsense");
    root.levels = 4;
    root.cr3 = 0x000ffffffffff000ULL;
    CHECK(walk(g, root, 1) == 1 && !g->entered, "beyond");
    free(g);
}

#define P XEN_PML_ENTRY_PRESENT
#define A XEN_PML_ENTRY_ACCESSED
#define L XEN_PML_ENTRY_LEAF
#define D XEN_PML_ENTRY_DIRTY
#define W XEN_PML_ENTRY_WRITABLE
#define U XEN_PML_ENTRY_USER

static void test_snapshot(void)
{
    uint64_t table[512] = {
        [0] = 0x5001, [1] = 0x6021, [2] = 0x7020, [64] = 0x80000000002000a1,
        [65] = 0x8000000012345067, [511] = 0x000ffffffffff061,
    };
    uint32_t narrow[1024] = {
        [0] = 0x9021, [512] = 0xa001, [1023] = 0xffc07fe7,
    };
    uint64_t t[512];

    CHECK(pml_walk_snapshot(t, table, 1, true, false), "leaf");
    CHECK(t[0] == (0x5000 | P | L) && t[1] == (0x6000 | P | A | L) && !t[2] &&
          t[64] == (0x200000 | P | A | L) && !t[3] &&
          t[65] == (0x12345000 | P | A | D | W | U | L) &&
          t[511] == (0x000ffffffffff000 | P | A | D | L), "level 1");
    CHECK(pml_walk_snapshot(t, table, 2, true, false), "large");
    CHECK(t[0] == (0x5000 | P) && t[64] == (0x200000 | P | A | L) &&
          t[65] == (0x12345000 | P | A | W | U), "level 2");
    table[64] |= 0x1ff000;             /* PAT and other attributes */
    pml_walk_snapshot(t, table, 2, true, false);
    CHECK(t[64] == (0x200000 | P | A | L), "attributes");
    CHECK(!pml_walk_snapshot(t, table, 4, true, false), "level 4");
    CHECK(pml_walk_snapshot(t, narrow, 1, false, false) &&
          t[0] == (0x9000 | P | A | L) && !t[511], "lower");
    CHECK(pml_walk_snapshot(t, narrow, 1, false, true) &&
          t[0] == (0xa000 | P | L) &&
          t[511] == (0xffc07000 | P | A | D | L | W | U), "upper");
    /* A large page of PSE-36: bits 13 to 20 are bits 32 to 39. */
    CHECK(pml_walk_snapshot(t, narrow, 2, false, true) && t[0] == (0xa000 | P),
          "directory");
    CHECK(t[511] == (0x3ffc00000ULL | P | A | D | L | W | U), "%lx",
          (long)t[511]);
}

static void test_clear(void)
{
    uint64_t table[512] = {
        [0] = 0x5001, [1] = 0x6021, [2] = 0x7020, [64] = 0x80000000002000a1,
        [65] = 0x8000000012345067, [511] = 0x000ffffffffff061,
    };

    CHECK(!pml_walk_clear(table, 4), "level 4 maps no page");
    CHECK(pml_walk_clear(table, 2) == 1 && table[64] == 0x8000000000200081 &&
          table[1] == 0x6021, "what leads to a table is left");
    CHECK(pml_walk_clear(table, 1) == 3, "leaf");
    CHECK(table[0] == 0x5001 && table[1] == 0x6001 && table[2] == 0x7020 &&
          table[65] == 0x8000000012345047 && table[511] == 0x000ffffffffff041,
          "one bit of each, if it is present");
    CHECK(!pml_walk_clear(table, 1), "nothing is left");
}

/****************** regions, guided harvest ******************/

#define GIB (1UL << 18)     /* in frames */

/* Memory: 2 GiB, and one region far away. */
static uint64_t guide_next(void *ctx, uint64_t gfn)
{
    unsigned int *calls = ctx;

    ++*calls;
    if ( gfn < 2 * GIB || gfn >> 9 == 1 << 26 )
        return gfn;

    return gfn < 1UL << 35 ? 1UL << 35 : (gfn | (GIB - 1)) + 1;
}

/* The next region that is noted is this one; of which these frames, 0: all. */
static void noted(struct pml_guide *g, uint64_t number, unsigned int word,
                  uint64_t frames)
{
    struct pml_region *r = pml_guide_first(g);
    const uint64_t *wanted;
    unsigned int i;

    CHECK(r && r->number == number, "%lx", r ? (long)r->number : -1L);
    wanted = pml_guide_wanted(r);
    CHECK(!wanted == !frames, "region %lx", (long)number);
    for ( i = 0; wanted && i < PML_REGION_WORDS; i++ )
        CHECK(wanted[i] == (i == word ? frames : 0), "%lx: %u: %lx",
              (long)number, i, (long)wanted[i]);
    pml_guide_forget_first(g);
}

static void test_regions(void)
{
    static const uint64_t gfns[] = { 0, 511, 512, 1UL << 20, 1UL << 32,
                                     1UL << 35, (1UL << 39) - 1 };
    struct pml_regions r;
    unsigned int i;

    pml_regions_init(&r, PML_REGIONS_BYTES(0));
    CHECK(!pml_region(&r, 0) && !pml_frame(&r, 5), "empty");
    for ( i = 0; i < 7; i++ )
    {
        CHECK(pml_region_make(&r, gfns[i]) &&
              (i == 1 || !pml_frame(&r, gfns[i])), "%u", i);
        *pml_frame_make(&r, gfns[i]) = 7 + i;
    }
    for ( i = 0; i < 7; i++ )
        CHECK(*pml_frame(&r, gfns[i]) == 7 + i &&
              pml_region(&r, gfns[i])->number == gfns[i] >> 9, "%u", i);
    CHECK(pml_region(&r, 0) == pml_region(&r, 511), "one region");
    CHECK(!pml_region(&r, 1024) && !pml_region(&r, 1UL << 39) &&
          !pml_region(&r, ~0UL) && !pml_region_make(&r, 1UL << 39), "beyond");
    /* Far apart or not, what there is makes the difference; and the bound. */
    CHECK(r.bytes < 40000, "%lu", (long)r.bytes);
    for ( i = 0; pml_frame_make(&r, (uint64_t)i << 18); i++ )
        CHECK(r.bytes <= PML_REGIONS_BYTES(0), "bound");
    CHECK(i > 200 && r.bytes > PML_REGIONS_BYTES(0) - 5000, "%u", i);
    for ( i = 1; !pml_regions_free(&r, 64); i++ )
        CHECK(!pml_region(&r, 0), "found while it is freed");
    CHECK(i > 10 && !r.bytes, "%u", i);
    CHECK(pml_regions_free(&r, 1), "nothing left");
}

static void test_guide(void)
{
    uint64_t table[512] = {
        [3] = 0x5001, [7] = 0x6021, [8] = 0x9000, [9] = 0x6001,
        [510] = 0x000ffffffffff001, [511] = 0x40000081,
    };
    uint32_t narrow[1024] = { [5] = 0x7001, [600] = 0x00c00081 };
    unsigned int calls = 0;
    struct pml_regions regions;
    struct pml_guide g;
    uint64_t r;

    pml_regions_init(&regions, 4 << 20);
    pml_guide_init(&g, &regions, guide_next, &calls);
    CHECK(!pml_guide_first(&g), "nothing yet");
    CHECK(pml_guide_note(&g, table, 1, true, 0, 512) == 5, "leaf");
    noted(&g, 0, 0, 1 << 5 | 1 << 6);
    noted(&g, 512, 0, 1);
    CHECK(!pml_guide_first(&g) && regions.bytes, "frame beyond memory");
    CHECK(pml_guide_note(&g, table, 1, true, 8, 8) == 1, "a part");
    noted(&g, 0, 0, 1 << 6);

    CHECK(pml_guide_note(&g, table, 2, true, 0, 512) == 1, "2 MiB");
    pml_guide_note(&g, table, 1, true, 0, 512);
    noted(&g, 512, 0, 0);
    noted(&g, 0, 0, 1 << 5 | 1 << 6);
    CHECK(pml_guide_note(&g, table, 3, true, 0, 256) == 0 &&
          pml_guide_note(&g, table, 3, true, 256, 256) == 1, "1 GiB");
    for ( r = 512; r < 1024; r++ )
        noted(&g, r, 0, 0);
    CHECK(!pml_guide_first(&g), "no more");

    /* What is absent costs nothing; what is far away is found. */
    calls = 0;
    table[511] = 0x80000081;
    CHECK(pml_guide_note(&g, table, 3, true, 0, 512) == 1 && calls < 10 &&
          !pml_guide_first(&g), "%u calls", calls);
    table[511] = (1ULL << 47) | 0x81;
    pml_guide_note(&g, table, 3, true, 0, 512);
    noted(&g, 1 << 26, 0, 0);
    CHECK(!pml_guide_first(&g) && !g.lost, "that one");

    CHECK(pml_guide_note(&g, narrow, 1, false, 512, 512) == 1, "narrow leaf");
    noted(&g, 6, 0, 1);
    CHECK(!pml_guide_note(&g, narrow, 2, false, 0, 512), "no large page");
    CHECK(pml_guide_note(&g, narrow, 2, false, 512, 512) == 1, "4 MiB");
    noted(&g, 6, 0, 0);
    noted(&g, 7, 0, 0);
    CHECK(!pml_guide_first(&g), "4 MiB");

    /* Without memory for a note, this is said. */
    regions.max_bytes = regions.bytes;
    narrow[600] = 0x10000081;
    pml_guide_note(&g, narrow, 2, false, 0, 1024);
    CHECK(g.lost == 2 && !pml_guide_first(&g), "%lu lost", (long)g.lost);
    while ( !pml_regions_free(&regions, 100) )
        ;
}

/* A root, or what is in its place by now? */
static bool plausible(struct guest *g, unsigned int levels, uint64_t cr3)
{
    struct pml_root root = { .cr3 = cr3, .levels = levels, .pse = true };
    bool good = pml_walk_plausible(&guest_ops, g, &root);

    CHECK(!g->mapped, "left mapped");

    return good;
}

static void test_plausible(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    uint32_t *dir = (void *)g->page[8];
    unsigned int i, k, found[5] = {};
    uint64_t x = 88172645463325252ULL;

    g->page[1][5] = 0x2063 | (1ULL << 63);
    g->page[2][0] = 0x3023;
    CHECK(plausible(g, 4, 0x1000), "a root");
    g->page[1][6] = 0xffff8063;
    CHECK(plausible(g, 4, 0x1000), "only what was used has to lead on");
    g->page[1][6] = 0x0004000000003063;
    CHECK(!plausible(g, 4, 0x1000), "address too wide");
    g->page[1][6] = 0x30e3;
    CHECK(!plausible(g, 4, 0x1000), "large pages have no such level");
    g->page[1][6] = 0;
    g->page[2][1] = 0x400010e3;
    CHECK(plausible(g, 4, 0x1000), "PAT of a large page");
    g->page[2][1] = 0x400020e3;
    CHECK(!plausible(g, 4, 0x1000), "address of a large page");
    g->page[2][1] = g->page[2][0] = 0;
    CHECK(!plausible(g, 4, 0x1000), "it leads to nothing");
    CHECK(!plausible(g, 4, 0x3000), "zeros");
    CHECK(!plausible(g, 4, (uint64_t)FRAMES << 12), "no memory");
    CHECK(!plausible(g, 1, 0x1000) && !plausible(g, 6, 0x1000), "levels");

    g->page[4][4] = 0x5001;
    g->page[5][9] = 0x6063;
    CHECK(plausible(g, 3, 0x4020) && !plausible(g, 3, 0x4040), "PAE");
    g->page[4][5] = 0x5021;
    CHECK(!plausible(g, 3, 0x4020), "PAE pointers have no flags");
    dir[7] = 0x9067;
    ((uint32_t *)g->page[9])[1] = 0x2001;
    CHECK(plausible(g, 2, 0x8000), "two levels");
    dir[7] = 0x9047;
    CHECK(!plausible(g, 2, 0x8000), "never used");
    dir[8] = 0x004000e7;
    CHECK(plausible(g, 2, 0x8000), "4 MiB");
    dir[8] = 0x002000e7;
    CHECK(!plausible(g, 2, 0x8000), "not aligned");

    /* Other things: text, small numbers, pointers, noise. */
    for ( i = 0; i < 4000; i++ )
    {
        for ( k = 0; k < 512; k++ )
        {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            g->page[10][k] =
                i % 4 == 0 ? (x & 0x5f5f5f5f5f5f5f5f) + 0x2020202020202020
                : i % 4 == 1 ? x & 0x3fff
                : i % 4 == 2 ? 0xffff888000000000 | (x & 0x7ffffff) : x;
        }
        for ( k = 2; k < 5; k++ )
            found[k] += plausible(g, k, 0xa000);
    }
    /* Entries of 32 bits have hardly any that no processor would take. */
    CHECK(!found[3] && !found[4] && found[2] < 400,
          "%u, %u and %u of 4000 pages of data pass for roots", found[2],
          found[3], found[4]);
    free(g);
}

/****************** refusals ******************/

static void test_refusals(void)
{
    const struct pml_facts good = {
        .hvm = true, .hap = true, .pml = true, .pml_in_cpu = true,
        .vcpus = true,
    };
    /* An AMD CPU: NPT is HAP as well, but there is no PML. */
    const struct pml_facts amd = { .hvm = true, .hap = true, .vcpus = true };
    uint32_t why = ~0U;

    CHECK(!pml_refuse(&good, &why) && why == XEN_PML_REFUSED_NOT, "good");
    CHECK(pml_refuse(&amd, &why) == -EOPNOTSUPP &&
          why == XEN_PML_REFUSED_NO_CPU, "AMD: %u", why);

#define REFUSED(change, rc, name)                                       \
    do {                                                                \
        struct pml_facts f = good;                                      \
                                                                        \
        change;                                                         \
        CHECK(pml_refuse(&f, &why) == (rc) &&                           \
              why == XEN_PML_REFUSED_ ## name, #name ": %u", why);      \
    } while ( 0 )

    REFUSED(f.dying = true, -ESRCH, DYING);
    REFUSED(f.self = true, -EINVAL, SELF);
    REFUSED(f.hvm = f.hap = false, -EOPNOTSUPP, PV);
    REFUSED(f.hap = false, -EOPNOTSUPP, SHADOW);
    REFUSED(f.pml = f.pml_in_cpu = false, -EOPNOTSUPP, NO_CPU);
    REFUSED(f.pml = false, -EOPNOTSUPP, NO_PML_OPTION);
    REFUSED(f.vcpus = false, -EINVAL, NO_VCPUS);
    REFUSED(f.devices = true, -EXDEV, DEVICES);
    REFUSED(f.nested = true, -EOPNOTSUPP, NESTED);
    REFUSED(f.altp2m = true, -EOPNOTSUPP, ALTP2M);
    REFUSED(f.active = f.log_dirty = true, -EBUSY, ACTIVE);
    REFUSED(f.log_dirty = true, -EBUSY, MIGRATING);
    REFUSED(f.ioreq_pages = true, -EBUSY, IOREQ);
    /* What cannot be changed is said before what can. */
    REFUSED(f.hvm = false; f.devices = f.log_dirty = true, -EOPNOTSUPP, PV);
    REFUSED(f.dying = f.active = true, -ESRCH, DYING);
}

/****************** sample ******************/

static void test_sample(void)
{
    static const uint8_t of_16[] = { 0, 9, 3, 13, 6, 0, 10, 4, 13, 7 };
    unsigned int order, g;

    for ( order = 0; order <= XEN_PML_MAX_SAMPLE; order++ )
        for ( g = 0; g < 100000; g++ )
            CHECK(XEN_PML_SAMPLE(g, order) < 1U << order, "%u %u", order, g);
    for ( g = 0; g < sizeof(of_16); g++ )
        CHECK(XEN_PML_SAMPLE(g, 4) == of_16[g], "%u: %u", g,
              (unsigned int)XEN_PML_SAMPLE(g, 4));
}

/* Drawn anew, each page of a group has its turn, whatever was drawn before. */
static void test_draw(void)
{
    unsigned int order, draw, g, k;

    for ( order = 1; order <= 4; order++ )
    {
        unsigned int of[16] = {}, again = 0, beside = 0, nr = 1U << order;

        for ( draw = 0; draw < 1000; draw++ )
            for ( g = 0; g < 100; g++ )
            {
                k = XEN_PML_DRAW(g, order, draw);
                CHECK(k < nr, "%u", k);
                of[k]++;
                again += k == XEN_PML_DRAW(g, order, draw + 1);
                beside += k == XEN_PML_DRAW(g + 1, order, draw);
            }
        for ( k = 0; k < nr; k++ )
            CHECK(abs((int)of[k] - 100000 / (int)nr) < 1500, "%u: %u", k,
                  of[k]);
        CHECK(abs((int)again - 100000 / (int)nr) < 1500, "again: %u", again);
        CHECK(abs((int)beside - 100000 / (int)nr) < 1500, "beside: %u", beside);
        /* One and the same page: in every so many draws. */
        for ( g = 0; g < 50; g++ )
        {
            for ( k = draw = 0; draw < 4096; draw++ )
                k += XEN_PML_DRAW(g, order, draw) == 1;
            CHECK(abs((int)k - 4096 / (int)nr) < 260, "%u: %u", g, k);
        }
    }
    CHECK(XEN_PML_DRAW(7, 4, 0) == XEN_PML_SAMPLE(7, 4), "not drawn anew");
}

static unsigned int passed;
#define RUN(test) do { test; passed++; } while ( 0 )

int main(void)
{
    RUN(test_sizes());
    RUN(test_order());
    RUN(test_read());
    RUN(test_lapped());
    RUN(test_tables_record());
    RUN(test_unfinished());
    RUN(test_refused());
    RUN(test_walk_4());
    RUN(test_walk_pae());
    RUN(test_walk_2());
    RUN(test_walk_loops());
    RUN(test_walk_none());
    RUN(test_snapshot());
    RUN(test_clear());
    RUN(test_regions());
    RUN(test_guide());
    RUN(test_plausible());
    RUN(test_draw());
    RUN(test_sample());
    RUN(test_refusals());
    RUN(test_race());
    printf("%u passed\n", passed);

    return 0;
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

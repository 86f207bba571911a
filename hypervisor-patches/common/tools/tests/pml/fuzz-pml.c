/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fuzzing of the PML log, of the page-table walk and of the guided harvest.
 *
 * An input is a script: its first byte says what is fuzzed.  Without
 * libFuzzer, main() runs files that it is given, or random scripts:
 *     fuzz-pml [FILE... | [COUNT [SEED]]]
 */
#include <errno.h>

#include <xenpml.h>

#include "guide.h"
#include "ring.h"
#include "walk.h"

#define PAGE 4096UL

struct script {
    const uint8_t *at;
    size_t left;
};

static unsigned int next(struct script *s)
{
    if ( !s->left )
        return 0;
    s->left--;

    return *s->at++;
}

/* A writer and a reader against a model: nothing is lost unnoticed. */
static void fuzz_ring(struct script *s)
{
    uint32_t slots = 2U << (next(s) % 5);
    size_t size = pml_ring_frames(slots) * PAGE;
    void *memory = aligned_alloc(PAGE, size);
    uint16_t *counts = calloc(slots, sizeof(*counts));
    struct pml_ring ring;
    struct xenpml_record *r = malloc(sizeof(*r));
    uint64_t hw[512], made = 0, known = 0, records = 0, seen = 0;
    xenpml_log *log;

    memset(memory, 0, size);
    pml_ring_init(&ring, memory, counts, slots);
    log = xenpml_log_attach(memory, size);
    CHECK(log, "attach");

    while ( s->left )
    {
        unsigned int op = next(s), i;

        if ( op & 1 )
        {
            struct xen_pml_desc desc = { .type = XEN_PML_TYPE_LOG };
            unsigned int nr = (next(s) * 2 + (op >> 7)) % 513;

            for ( i = 0; i < nr; i++ )
                hw[511 - i] = (made + i) << 12;
            desc.count = pml_ring_copy(pml_ring_begin(&ring), hw + 512 - nr,
                                       nr, op & 2);
            CHECK(desc.count == nr, "dropped");
            pml_ring_commit(&ring, &desc);
            made += nr;
            records++;
        }
        else if ( op & 2 )
        {
            struct xen_pml_desc desc = { .type = XEN_PML_TYPE_TABLES,
                                         .count = next(s) };

            pml_ring_begin(&ring);
            pml_ring_commit(&ring, &desc);
            records++;
        }
        else
        {
            int rc = xenpml_log_read(log, r);

            CHECK(rc >= 0, "errno %d", errno);
            CHECK(rc || seen == records, "unread");
            if ( !rc )
                continue;
            CHECK(r->seq == seen + r->lost_records, "seq");
            CHECK(r->lost_records == (records - seen > slots
                                      ? records - seen - slots : 0), "lost");
            known += r->lost_entries;
            CHECK(known == r->first, "first");
            if ( r->type == XENPML_TYPE_LOG )
            {
                for ( i = 0; i < r->count; i++ )
                    CHECK(r->data[i] >> 12 == known + i, "entry");
                known += r->count;
            }
            seen = r->seq + 1;
        }
    }

    CHECK(ring.entries == made && ring.produced == records, "sums");
    xenpml_log_unmap(log);
    free(r);
    free(counts);
    free(memory);
}

/* A reader over anything at all: no access out of bounds, and it ends. */
static void fuzz_reader(struct script *s)
{
    uint32_t slots = 2;
    size_t size = pml_ring_frames(slots) * PAGE;
    uint8_t *memory = aligned_alloc(PAGE, size);
    uint16_t counts[2];
    struct pml_ring ring;
    struct xenpml_record *r = malloc(sizeof(*r));
    struct xenpml_log_info info;
    xenpml_log *log;
    unsigned int i;

    memset(memory, 0, size);
    pml_ring_init(&ring, memory, counts, slots);
    for ( i = 0; i < 64 && s->left; i++ )
    {
        unsigned int where = next(s);

        memory[where < 128 ? where : PAGE + where - 128] = next(s);
    }
    log = xenpml_log_attach(memory, size);
    if ( log )
    {
        for ( i = 0; i < 100 && xenpml_log_read(log, r) == 1; i++ )
            CHECK(r->count <= 512, "count");
        xenpml_log_get_info(log, &info);
        xenpml_log_unmap(log);
    }
    free(r);
    free(memory);
}

#define FRAMES 16

struct guest {
    uint64_t page[FRAMES][512];
    uint8_t levels[FRAMES];
    int mapped;
    unsigned int entered;
};

static const void *guest_map(void *ctx, uint64_t gfn)
{
    struct guest *g = ctx;

    if ( gfn >= FRAMES )
        return NULL;
    CHECK(!g->mapped++, "two are mapped");

    return g->page[gfn];
}

static void guest_unmap(void *ctx, const void *table)
{
    struct guest *g = ctx;

    CHECK(!--g->mapped, "none was mapped");
}

static bool guest_enter(void *ctx, uint64_t gfn, unsigned int level, bool wide)
{
    struct guest *g = ctx;

    CHECK(level >= 1 && level <= 5, "level");
    CHECK(gfn < 1ULL << 40, "gfn");
    if ( gfn >= FRAMES || (g->levels[gfn] & (1 << level)) )
        return false;
    g->levels[gfn] |= 1 << level;
    g->entered++;

    return true;
}

/* One bit of those entries changes which map a page and were used. */
static void check_clear(uint64_t *page, unsigned int level)
{
    uint64_t before[512];
    unsigned int i, nr = 0, cleared;

    memcpy(before, page, sizeof(before));
    cleared = pml_walk_clear(page, level);
    for ( i = 0; i < 512; i++ )
    {
        uint64_t e = before[i];
        bool leaf = level == 1 || (level < 4 && (e & 0x80));

        if ( leaf && (e & 0x21) == 0x21 )
        {
            e &= ~0x20ULL;
            nr++;
        }
        CHECK(page[i] == e, "entry %u", i);
    }
    CHECK(cleared == nr, "%u", cleared);
}

/* Page tables of all kinds: the walk ends, and the budget changes nothing. */
static void fuzz_walk(struct script *s)
{
    static const struct pml_walk_ops ops = {
        .map = guest_map, .unmap = guest_unmap, .enter = guest_enter,
    };
    struct guest *g = calloc(1, sizeof(*g));
    struct pml_root root = {
        .levels = next(s) % 7, .cr3 = next(s) << 8, .pse = next(s) & 1,
    };
    uint8_t levels[FRAMES];
    struct pml_walk w;
    uint64_t t[512];
    unsigned int budget = 1 + next(s), calls = 0;

    root.cr3 |= (uint64_t)(next(s) % FRAMES) << 12;
    while ( s->left )
    {
        unsigned int page = next(s) % FRAMES, at = next(s) * 2 + (page & 1);
        uint64_t entry = (uint64_t)(next(s) % (FRAMES + 2)) << 12;

        g->page[page][at % 512] = entry | next(s) | (uint64_t)next(s) << 32;
    }

    pml_walk_start(&w, &ops, g, &root);
    while ( !pml_walk_run(&w, budget) )
        CHECK(++calls < 100000, "endless");
    CHECK(!g->mapped && g->entered <= 5 * FRAMES, "left");
    memcpy(levels, g->levels, sizeof(levels));

    memset(g->levels, 0, sizeof(g->levels));
    pml_walk_start(&w, &ops, g, &root);
    CHECK(pml_walk_run(&w, ~0U), "in one go");
    CHECK(!memcmp(levels, g->levels, sizeof(levels)), "budget matters");

    pml_walk_plausible(&ops, g, &root);
    CHECK(!g->mapped, "left mapped");
    pml_walk_snapshot(t, g->page[0], 1 + budget % 5, budget & 8, false);
    pml_walk_snapshot(t, g->page[1], 1 + budget % 2, false, true);
    check_clear(g->page[2], 1 + budget % 5);
    free(g);
}

/*
 * A guided harvest against an oracle.  The guest's memory is of FRAMES pages,
 * all of which may be page tables; it uses some addresses, as a CPU would,
 * which tells what the hardware logs (page tables on the way) and which frames
 * it touches.  Below what was logged, all those have to be found.
 */
struct touch {
    bool accessed[1 << 12];       /* frames, of which memory has the first */
    bool logged[FRAMES];
    uint8_t level[FRAMES];        /* of tables which were used */
    bool found[1 << 12];
};

/* What the architecture says; written without a look at walk.c. */
static void cpu_access(struct guest *g, struct touch *t, unsigned int levels,
                       uint64_t root, uint64_t va)
{
    unsigned int level, bits = levels == 2 ? 10 : 9;
    uint64_t gfn = root;

    for ( level = levels; level; level-- )
    {
        unsigned int shift = 12 + bits * (level - 1);
        unsigned int i = (va >> shift) & ((1U << bits) - 1);
        uint64_t e;

        if ( gfn >= FRAMES )
            return;
        t->accessed[gfn] = t->logged[gfn] = true;
        t->level[gfn] |= 1 << level;
        e = levels == 2 ? ((uint32_t *)g->page[gfn])[i] : g->page[gfn][i];
        if ( !(e & 1) )
            return;
        gfn = (e & 0x000ffffffffff000ULL) >> 12;
        if ( level > 1 && level < 4 && (e & 0x80) )
        {
            uint64_t mask = (1ULL << (shift - 12)) - 1;

            if ( levels == 2 )
                gfn = ((e & 0xffc00000) | (e & 0x1fe000) << 19) >> 12;
            gfn = (gfn & ~mask) | ((va >> 12) & mask);
            break;
        }
    }
    if ( gfn < 1 << 12 )
        t->accessed[gfn] = true;
}

/* There is memory for all that an entry can lead to, in 8 regions. */
static uint64_t fuzz_next(void *ctx, uint64_t gfn)
{
    return gfn < 8 * PML_REGION ? gfn : (gfn | (PML_REGION - 1)) + 1;
}

static void fuzz_guide(struct script *s)
{
    struct pml_regions regions;
    struct pml_region *region;
    struct pml_guide guide;
    struct guest *g = calloc(1, sizeof(*g));
    struct touch *t = calloc(1, sizeof(*t));
    unsigned int levels = next(s) & 1 ? 4 : 2, root = next(s) % FRAMES, i, k;
    unsigned int accesses = 1 + next(s);

    pml_regions_init(&regions, 1 << 20);
    pml_guide_init(&guide, &regions, fuzz_next, NULL);
    for ( i = 0; s->left && i < 100; i++ )
    {
        unsigned int page = next(s) % FRAMES, at = next(s) * 2 + (page & 1);
        uint64_t entry = (uint64_t)next(s) << 12 | next(s);

        /* Few bits of an address: that they meet entries which are there. */
        at = at & 1 ? at % 512 : at % 8;
        if ( levels == 2 )
            ((uint32_t *)g->page[page])[at * 2 % 1024] = entry | 1;
        else
            g->page[page][at] = entry | 1;
    }
    for ( i = 0; i < accesses; i++ )
    {
        uint64_t va = 0;

        for ( k = 0; k < levels; k++ )
        {
            unsigned int bits = levels == 2 ? 10 : 9, at = next(s);

            at = at & 1 ? (at * 2) % 512 : at % 8;
            va = va << bits | (levels == 2 ? at * 2 % 1024 : at);
        }
        cpu_access(g, t, levels, root, va << 12 | next(s));
    }

    for ( i = 0; i < FRAMES; i++ )
    {
        if ( t->logged[i] )
            t->found[i] = true;
        for ( k = 1; k <= 3; k++ )
        {
            unsigned int half;

            for ( half = 0; half < (levels == 2 ? 2 : 1); half++ )
                if ( t->level[i] & (1 << k) )
                    pml_guide_note(&guide, g->page[i], k, levels != 2,
                                   half * 512, 512);
        }
    }
    CHECK(!guide.lost, "lost");
    while ( (region = pml_guide_first(&guide)) )
    {
        const uint64_t *wanted = pml_guide_wanted(region);

        CHECK(region->number < 8, "region %lx", (long)region->number);
        for ( i = 0; i < PML_REGION; i++ )
            if ( !wanted || (wanted[i / 64] >> (i % 64) & 1) )
                t->found[region->number * PML_REGION + i] |=
                    t->accessed[region->number * PML_REGION + i];
        pml_guide_forget_first(&guide);
    }
    for ( region = regions.all; region; region = region->next )
        for ( i = 0; i < PML_REGION_WORDS; i++ )
            CHECK(!region->noted[i], "left");
    while ( !pml_regions_free(&regions, 1 + accesses % 7) )
        ;
    for ( i = 0; i < 1 << 12; i++ )
        CHECK(t->found[i] == t->accessed[i], "frame %x", i);

    free(t);
    free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = { data, size };

    switch ( next(&s) % 4 )
    {
    case 0: fuzz_ring(&s); break;
    case 1: fuzz_reader(&s); break;
    case 2: fuzz_walk(&s); break;
    case 3: fuzz_guide(&s); break;
    }

    return 0;
}

#ifndef LIBFUZZER
static uint64_t state;

static uint64_t random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return state;
}

static void run_file(const char *name)
{
    static uint8_t buf[1 << 16];
    FILE *f = fopen(name, "rb");

    CHECK(f, "%s: errno %d", name, errno);
    LLVMFuzzerTestOneInput(buf, fread(buf, 1, sizeof(buf), f));
    fclose(f);
}

int main(int argc, char **argv)
{
    unsigned long count = 5000, i;
    char *end;
    int arg;

    state = 0x9e3779b97f4a7c15ULL;
    if ( argc > 1 )
    {
        count = strtoul(argv[1], &end, 0);
        if ( *end )
        {
            for ( arg = 1; arg < argc; arg++ )
                run_file(argv[arg]);
            return 0;
        }
    }
    if ( argc > 2 )
        state = strtoull(argv[2], NULL, 0) | 1;

    for ( i = 0; i < count; i++ )
    {
        size_t size = 1 + random64() % 600, k;
        uint8_t *data = malloc(size);

        for ( k = 0; k < size; k++ )
            data[k] = random64() >> 32;
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    printf("%lu scripts, no finding\n", count);

    return 0;
}
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

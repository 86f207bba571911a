/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rounds of a guest with page tables, over a mock EPT: what its processors
 * have touched is what a guided harvest hands out, each frame once, whatever
 * the guest does, in however many pieces it is fetched; and no piece of work is
 * longer than a bound.
 */
#include "private.h"
#include "tables.h"

#define FAR (1UL << 32)
#define FRAMES 4096UL               /* of RAM, from 0 on */
#define WORDS (FRAMES + 4096)
#define MAX_SPACES 64

/* Looks between two checks: a table of 512 entries, at 4 each. */
#define LONGEST 3000

static unsigned long longest;
static unsigned int rounds, fetches;
static uint64_t state = 0x9e3779b97f4a7c15ULL;

static unsigned long any(unsigned long n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return (state >> 20) % n;
}

struct world {
    struct domain *d;
    struct pml_domain *pml;
    unsigned long root[MAX_SPACES]; /* GFNs, 0: none */
    unsigned int spaces;
    unsigned long next;             /* free frames, from here on */
    bool touched[FRAMES];           /* in the round that goes on */
    bool closed[FRAMES];            /* in the one that was closed last */
    uint64_t *words;                /* handed out of that */
    unsigned int nr_words;
};

static void start_guest(struct world *w, unsigned int vcpus,
                        unsigned int options)
{
    struct domain *d = mock_domain(vcpus);
    struct pml_domain *pml =
        calloc(1, sizeof(*pml) + vcpus * sizeof(pml->vcpu[0]));
    unsigned int i;

    memset(w, 0, sizeof(*w));
    w->d = d;
    w->pml = pml;
    w->next = 16;
    w->words = malloc(WORDS * sizeof(*w->words));
    pml->options.flags = options | XEN_PML_OPT_TABLES | XEN_PML_OPT_ACCESSED;
    pml->options.rearm = XEN_PML_REARM_ROUND;
    pml->leaf = calloc(1, PAGE_SIZE);
    pml->nr_vcpus = vcpus;
    INIT_PAGE_LIST_HEAD(&pml->spool.pages);
    d->arch.hvm.pml = pml;
    for ( i = 0; i < vcpus; i++ )
    {
        pml->vcpu[i].vcpu = d->vcpu[i];
        d->vcpu[i]->paging = d->vcpu[i]->lma = d->vcpu[i]->pae = true;
    }
    for ( i = 0; i < FRAMES; i++ )
        mock_populate(d, i, p2m_ram_logdirty, i >= 16 && i < 2048);
}

/*
 * What is held is what was given out, and no more than the domain's memory
 * accounts for: for each page 16 bytes of what is known of frames, 8 of the
 * spool, a 64th part of 8 of tables.
 */
static void check_memory(const struct world *w)
{
    long pages = w->d->tot_pages, held = pml_memory(w->pml);

    CHECK(held == mock_held, "%ld held, %ld given out", held, mock_held);
    CHECK(held <= pages * 24 + pages / 8 + (1L << 20) + (16L << 12), "%ld",
          held);
}

static void begin_pieces(void)
{
    hypercall_preempt_check();
    mock_longest = 0;
}

static void end_pieces(struct world *w)
{
    hypercall_preempt_check();
    CHECK(mock_longest < LONGEST, "%lu looks in one piece", mock_longest);
    longest = max(longest, mock_longest);
    check_memory(w);
    CHECK(!w->d->paused && !w->d->p2m.lock.held && !mock_mapped && !mock_refs,
          "left");
}

/* The end of enabling. */
static void close_none(struct world *w)
{
    int rc;

    begin_pieces();
    pml_begin_close(w->d, w->pml);
    while ( (rc = pml_do_close(w->d, w->pml, NULL)) )
        CHECK(rc == -ERESTART, "%d", rc);
    pml_release(w->d, w->pml);
    end_pieces(w);
    memset(w->touched, 0, sizeof(w->touched));
}

static void close_by(struct world *w, struct xen_domctl_pml_round *op)
{
    uint32_t round = w->pml->round;
    uint16_t why;
    int rc;

    begin_pieces();
    while ( (rc = pml_close_round(w->d, w->pml, op, &why)) )
        CHECK(rc == -ERESTART, "%d", rc);
    end_pieces(w);
    CHECK(op->round == round && w->pml->round == round + 1, "round %u, not %u",
          op->round, round);
}

static void close_guided(struct world *w)
{
    struct xen_domctl_pml_round op = { .flags = XEN_PML_ROUND_GUIDED };

    close_by(w, &op);
    memcpy(w->closed, w->touched, sizeof(w->touched));
    memset(w->touched, 0, sizeof(w->touched));
}

static void enable(struct world *w)
{
    CHECK(!pml_alloc_tables(w->d, w->pml) &&
          !pml_alloc_touched(w->d, w->pml), "enabling");
    w->pml->state = XEN_PML_STATE_STARTING;
    close_none(w);
    w->pml->state = XEN_PML_STATE_LOGGING;
}

static void end_guest(struct world *w)
{
    unsigned int pieces = 1;
    int rc;

    while ( !pml_free_tables(w->pml, 16) )
        pieces++;
    CHECK(pieces < 10000, "%u pieces", pieces);
    while ( (rc = pml_spool_free(w->d, w->pml)) )
        CHECK(rc == -ERESTART, "%d", rc);
    pml_free_touched(w->pml);
    free(w->pml->leaf);
    free(w->pml);
    free(w->words);
    mock_destroy(w->d);
}

/****************** The guest's page tables ******************/

static unsigned long new_frame(struct world *w)
{
    CHECK(w->next < 2048, "no frame is left for tables");

    return w->next++;
}

/* A vCPU maps a frame; the tables on the way are new, or there. */
static void map(struct world *w, unsigned long root, uint64_t va,
                unsigned long to)
{
    unsigned long gfn = root;
    unsigned int level;

    for ( level = 4; level > 1; level-- )
    {
        uint64_t *e = (uint64_t *)mock_content(w->d, gfn) +
                      ((va >> (12 + 9 * (level - 1))) & 511);

        if ( !(*e & 1) )
        {
            mock_touch(w->d, gfn, true);
            w->touched[gfn] = true;
            *e = (uint64_t)new_frame(w) << 12 | 7;
        }
        gfn = *e >> 12;
    }
    mock_touch(w->d, gfn, true);
    w->touched[gfn] = true;
    ((uint64_t *)mock_content(w->d, gfn))[(va >> 12) & 511] = to << 12 | 7;
}

static unsigned int new_space(struct world *w)
{
    w->root[w->spaces] = new_frame(w);

    return w->spaces++;
}

static void run(struct world *w, unsigned int vcpu, unsigned int space)
{
    struct vcpu *v = w->d->vcpu[vcpu];

    v->arch.hvm.guest_cr[3] = w->root[space] << 12;
    pml_note_cr3(v);
}

static void use(struct world *w, unsigned int space, uint64_t va, bool write)
{
    unsigned long gfn = w->root[space], frame;
    unsigned int level;

    frame = mock_access(w->d, gfn, va, write);
    for ( level = 4; level; level-- )
    {
        uint64_t e = ((uint64_t *)mock_content(w->d, gfn))
                     [(va >> (12 + 9 * (level - 1))) & 511];

        w->touched[gfn] = true;
        if ( !(e & 1) )
            return;
        gfn = (e & 0x000ffffffffff000ULL) >> 12;
    }
    w->touched[frame] = true;
}

/****************** Rounds ******************/

static unsigned int word_of(const struct world *w, unsigned long gfn)
{
    unsigned int i;

    for ( i = 0; i < w->nr_words; i++ )
        if ( w->words[i] >> XEN_PML_ENTRY_SHIFT == gfn )
            return w->words[i] & XEN_PML_ENTRY_KIND_MASK;

    return ~0U;
}

/* Fetch all words, `most` of them at once or fewer. */
static void fetch(struct world *w, unsigned int most)
{
    struct xen_domctl_pml_fetch op;
    uint64_t total = 0;

    w->nr_words = 0;
    do {
        /* Of that size exactly: what is written beyond is found. */
        unsigned int room = 1 + any(most);
        uint64_t *piece = malloc(room * sizeof(*piece));
        int rc;

        op = (struct xen_domctl_pml_fetch){
            .round = w->pml->round - 1, .first = w->nr_words, .words.p = piece,
            .nr = room,
        };
        begin_pieces();
        rc = pml_spool_fetch(&w->pml->spool, &op);
        fetches++;
        end_pieces(w);
        CHECK(!rc, "%d", rc);
        CHECK(!op.lost, "%lu lost", (long)op.lost);
        CHECK(op.nr <= room && w->nr_words + op.nr <= WORDS, "%lu words",
              (long)op.nr);
        CHECK(!w->nr_words || op.total == total, "%lu in all, %lu before",
              (long)op.total, (long)total);
        total = op.total;
        CHECK(mock_preempt || IS_ENABLED(CONFIG_DEBUG_PML_PREEMPT) ||
              op.nr == min((uint64_t)room, total - w->nr_words),
              "%lu words, %u of %lu before", (long)op.nr, w->nr_words,
              (long)total);
        CHECK(op.nr || w->nr_words == total, "no more, but %u of %lu",
              w->nr_words, (long)total);
        memcpy(w->words + w->nr_words, piece, op.nr * sizeof(*piece));
        w->nr_words += op.nr;
        free(piece);
    } while ( op.nr );
}

/* Compare what is handed out of the round that was closed. */
static void compare(struct world *w)
{
    static const unsigned int sizes[] = { 1, 100, 512, 513, WORDS };
    static bool found[FRAMES];
    unsigned int i;

    fetch(w, sizes[any(ARRAY_SIZE(sizes))]);
    rounds++;

    memset(found, 0, sizeof(found));
    for ( i = 0; i < w->nr_words; i++ )
    {
        unsigned long gfn = w->words[i] >> XEN_PML_ENTRY_SHIFT;

        if ( gfn >= FRAMES )
            continue;
        CHECK(!found[gfn], "gfn %lx twice", gfn);
        found[gfn] = true;
    }
    for ( i = 0; i < FRAMES; i++ )
        CHECK(found[i] == w->closed[i], "gfn %x: touched %d, found %d", i,
              w->closed[i], found[i]);

    /* What the log says of a frame is what the harvest says. */
    for ( i = 0; i < mock_nr_taken; i++ )
    {
        unsigned long gfn = mock_taken[i] >> XEN_PML_ENTRY_SHIFT;

        if ( gfn < FRAMES )
            CHECK((mock_taken[i] & XEN_PML_ENTRY_KIND_MASK) == word_of(w, gfn),
                  "gfn %lx is %x in the log, %x in the harvest", gfn,
                  (unsigned int)(mock_taken[i] & XEN_PML_ENTRY_KIND_MASK),
                  word_of(w, gfn));
    }
}

static void round_over(struct world *w)
{
    close_guided(w);
    compare(w);
}

static bool is_mapped(struct world *w, unsigned long root, uint64_t va)
{
    unsigned long gfn = root;
    unsigned int level;

    for ( level = 4; level; level-- )
    {
        uint64_t e = ((uint64_t *)mock_content(w->d, gfn))
                     [(va >> (12 + 9 * (level - 1))) & 511];

        if ( !(e & 1) )
            return false;
        gfn = e >> 12;
    }

    return true;
}

/*
 * A guest with some address spaces, which maps and uses this and that.  It
 * removes nothing: what was read by a mapping that is gone is not found.
 */
static void live(struct world *w, unsigned int accesses, unsigned int running)
{
    unsigned int i;

    for ( i = 0; i < accesses; i++ )
    {
        unsigned int space = any(min(w->spaces, running));
        /* A few places in each space, some of them shared by frame. */
        uint64_t va = (any(3) << 39) + (any(2) << 21) + (any(40) << 12);

        run(w, any(w->d->max_vcpus), space);
        if ( !any(3) && w->next < 2000 &&
             !is_mapped(w, w->root[space], va) )
            map(w, w->root[space], va, 2048 + any(FRAMES - 2048));
        use(w, space, va, any(2));
    }
}

static void test_guided(unsigned int count)
{
    struct world *w = malloc(sizeof(*w));
    unsigned int i, k;

    for ( i = 0; i < count; i++ )
    {
        start_guest(w, 1 + any(3), 0);
        mock_preempt = any(2);
        for ( k = 1 + any(5); k; k-- )
            new_space(w);
        for ( k = 0; k < w->d->max_vcpus; k++ )
            w->d->vcpu[k]->arch.hvm.guest_cr[3] = w->root[0] << 12;
        live(w, any(100), 5);
        enable(w);
        for ( k = 0; k < 5; k++ )
        {
            if ( !any(3) && w->spaces < 8 )
                new_space(w);
            live(w, any(200), 8);
            close_guided(w);
            /* It runs on while they are fetched. */
            live(w, any(2) * any(100), 8);
            compare(w);
        }
        end_guest(w);
    }
    mock_preempt = false;
    free(w);
}

static struct world *one_space(unsigned int vcpus)
{
    struct world *w = malloc(sizeof(*w));
    unsigned int i;

    start_guest(w, vcpus, 0);
    new_space(w);
    for ( i = 0; i < 16; i++ )
        map(w, w->root[0], i << 12, 2048 + i);
    for ( i = 0; i < vcpus; i++ )
        run(w, i, 0);
    enable(w);
    use(w, 0, 0, false);
    round_over(w);

    return w;
}

static void end_world(struct world *w)
{
    end_guest(w);
    free(w);
}

/* More address spaces in a round than there is room for: none is missed. */
static void test_many_roots(void)
{
    struct world *w = one_space(1);
    unsigned int i;

    for ( i = 1; i < 50; i++ )
    {
        map(w, w->root[new_space(w)], 0x5000, 2100 + i);
        run(w, 0, i);
        use(w, i, 0x5000, false);
    }
    round_over(w);
    CHECK(w->pml->costs.roots_dropped == 49 - MAX_ROOTS, "%lu dropped",
          (long)w->pml->costs.roots_dropped);

    /* Those that have been found are known from now on, and are found again. */
    for ( i = 0; i < 50; i++ )
    {
        run(w, 0, i);
        use(w, i, i ? 0x5000 : 0, false);
    }
    round_over(w);
    for ( i = 0; i < 50; i++ )
    {
        run(w, 0, i);
        use(w, i, i ? 0x5000 : 0, false);
    }
    round_over(w);
    end_world(w);
}

/* A vCPU that is not there does not page, but touches nothing either. */
static void test_offline(void)
{
    struct world *w = one_space(2);

    w->d->vcpu[1]->online = w->d->vcpu[1]->paging = false;
    use(w, 0, 0x1000, false);
    round_over(w);
    CHECK(!w->pml->vcpu[1].unpaged, "unpaged");
    /* 16 frames are mapped by the one table that was used. */
    CHECK(w->pml->costs.guided_frames == 16, "%lu looked at",
          (long)w->pml->costs.guided_frames);

    /* One that is there does: in a region that page tables lead to, too. */
    w->d->vcpu[1]->online = true;
    pml_note_cr3(w->d->vcpu[1]);
    use(w, 0, 0x1000, false);
    mock_touch(w->d, 2048 + 300, false);
    mock_touch(w->d, 3000, false);
    w->touched[2048 + 300] = w->touched[3000] = true;
    round_over(w);
    end_world(w);
}

/* An address space is left and its root used for data, within a round. */
static void test_stale_root(void)
{
    struct world *w = one_space(1);
    unsigned int nr = pml_nr_tables(w->pml), i, space = new_space(w);
    uint64_t *root;

    map(w, w->root[space], 0x5000, 2100);
    run(w, 0, space);
    run(w, 0, 0);
    use(w, 0, 0, true);
    root = mock_content(w->d, w->root[space]);
    for ( i = 0; i < 512; i++ )
        root[i] = state * (i + 1) * 0x2545f4914f6cdd1dULL | 0x21;
    /* And such as lead on. */
    for ( i = 0; i < 50; i++ )
        root[i] = (2200UL + i) << 12 | 0x21;
    round_over(w);
    CHECK(w->pml->costs.roots_stale == 1 && pml_nr_tables(w->pml) == nr,
          "%lu stale, %u tables, %u before", (long)w->pml->costs.roots_stale,
          pml_nr_tables(w->pml), nr);
    end_world(w);
}

/* What no table leads to is left for a scan in the same closing. */
static void test_rest(void)
{
    static const unsigned int flags[] = { 0, XEN_PML_ROUND_PRUNED };
    unsigned int i;

    for ( i = 0; i < 2; i++ )
    {
        struct world *w = one_space(1);
        uint64_t *bits = calloc(1, PAGE_SIZE);
        struct xen_domctl_pml_round op = {
            .flags = XEN_PML_ROUND_GUIDED | XEN_PML_ROUND_ACCESSED | flags[i],
            .accessed.p = (uint8_t *)bits, .pages = PAGES_PER_LEAF,
        };

        use(w, 0, 0x1000, false);
        /* One in the region of what is mapped, and one of another. */
        mock_touch(w->d, 2048 + 300, false);
        mock_touch(w->d, 3000, false);
        close_by(w, &op);
        CHECK(w->pml->result.accessed_pages == 2 &&
              bits[(2048 + 300) / 64] == 1UL << (2048 + 300) % 64 &&
              bits[3000 / 64] == 1UL << 3000 % 64, "%lu pages are left",
              (long)w->pml->result.accessed_pages);
        free(bits);
        end_world(w);
    }
}

/* Large pages, of 1 GiB and 2 MiB: all of memory by one, or by hundreds. */
static void test_large(void)
{
    unsigned int round, i;
    struct world *w = one_space(1);
    unsigned long root = w->root[0], l3, l2;

    map(w, root, 1ULL << 39, 5);
    l3 = ((uint64_t *)mock_content(w->d, root))[1] >> 12;
    l2 = ((uint64_t *)mock_content(w->d, l3))[0] >> 12;
    for ( i = 1; i < 512; i++ )
        ((uint64_t *)mock_content(w->d, l3))[i] = 0x87;
    for ( i = 1; i < 9; i++ )
        ((uint64_t *)mock_content(w->d, l2))[i] = (i - 1) << 21 | 0x87;
    for ( round = 0; round < 4; round++ )
    {
        mock_preempt = round & 1;
        run(w, 0, 0);
        for ( i = 0; i < 20; i++ )
        {
            unsigned long gfn = any(FRAMES);
            bool huge = any(2);
            uint64_t va = (1ULL << 39) +
                          (huge ? (1 + any(511)) << 30 : 1UL << 21)
                          + (gfn << 12);

            CHECK(mock_access(w->d, root, va, any(2)) == gfn, "%lx", gfn);
            w->touched[root] = w->touched[l3] = w->touched[gfn] = true;
            if ( !huge )
                w->touched[l2] = true;
        }
        round_over(w);
    }
    mock_preempt = false;
    end_world(w);
}

/* A page table's frame is given away and another one taken: data. */
static void test_balloon(void)
{
    struct world *w = one_space(1);
    unsigned long table = w->root[0] + 3;
    uint64_t entry = table << 12;

    pml_add_kinds(w->pml, &entry, 1);
    CHECK(entry == (table << 12 | XEN_PML_KIND_TABLE | 1), "%lx", (long)entry);
    memset((uint64_t *)mock_content(w->d, table - 1), 0, 8);
    mock_touch(w->d, table - 1, true);
    mock_remove(w->d, table);
    mock_populate(w->d, table, p2m_ram_logdirty, true);
    mock_touch(w->d, table, true);
    w->touched[table - 1] = w->touched[table] = true;
    run(w, 0, 0);
    use(w, 0, 1ULL << 39, false);
    round_over(w);
    mock_touch(w->d, table, true);
    w->touched[table] = true;
    round_over(w);
    CHECK(word_of(w, table) == XEN_PML_KIND_WRITTEN, "%x", word_of(w, table));
    end_world(w);
}

/* Whatever cannot be allocated is made up for by looking at more. */
static void test_no_memory(void)
{
    unsigned int left;

    for ( left = 0; left < 30; left++ )
    {
        struct world *w = malloc(sizeof(*w));
        unsigned int i, k;

        start_guest(w, 1, 0);
        for ( i = 0; i < 3; i++ )
        {
            new_space(w);
            for ( k = 0; k < 5; k++ )
                map(w, w->root[i], (uint64_t)k << 39, 2048 + 512 * i + k);
        }
        run(w, 0, 0);
        CHECK(!pml_alloc_tables(w->d, w->pml) &&
              !pml_alloc_touched(w->d, w->pml), "enabling");
        mock_alloc_left = left;
        w->pml->state = XEN_PML_STATE_LOGGING;
        close_none(w);
        for ( k = 0; k < 20; k++ )
        {
            run(w, 0, any(3));
            for ( i = 0; i < 3; i++ )
            {
                run(w, 0, i);
                use(w, i, (uint64_t)any(5) << 39, any(2));
            }
            round_over(w);
        }
        CHECK(left > 5 || w->pml->costs.tables_dropped, "%u allocations", left);
        mock_alloc_left = -1;
        /* Once there is memory, no more than what is needed is looked at. */
        for ( k = 0; k < 2; k++ )
        {
            for ( i = 0; i < 3; i++ )
            {
                run(w, 0, i);
                use(w, i, 0, false);
            }
            round_over(w);
        }
        CHECK(!w->pml->costs.tables_dropped && !w->pml->guide.lost &&
              w->pml->costs.guided_frames == 3, "%lu looked at",
              (long)w->pml->costs.guided_frames);
        end_guest(w);
        free(w);
    }
}

/* A page where no memory is makes no difference, wherever that is. */
static void test_far(void)
{
    static const unsigned long where[] = { 0, FAR, 1UL << 35 };
    unsigned long bytes[3], checks[3], frames[3];
    unsigned int i, k;

    for ( i = 0; i < 3; i++ )
    {
        struct world *w = malloc(sizeof(*w));

        state = 12345;
        start_guest(w, 1, 0);
        if ( where[i] )
            mock_populate(w->d, where[i], p2m_ram_logdirty, false);
        for ( k = 0; k < 4; k++ )
            new_space(w);
        /* Its page tables point there, too, and to where nothing is. */
        map(w, w->root[0], 1ULL << 45, where[i] ?: 5);
        map(w, w->root[0], (1ULL << 45) + PAGE_SIZE, (1UL << 34) + 5);
        run(w, 0, 0);
        enable(w);
        bytes[i] = mock_bytes;
        for ( k = 0; k < 4; k++ )
        {
            live(w, 150, 4);
            round_over(w);
            frames[i] = w->nr_words;
        }
        CHECK(pml_memory(w->pml) < 250000, "%lu bytes",
              (long)pml_memory(w->pml));
        checks[i] = mock_checks;
        end_guest(w);
        free(w);
    }
    for ( i = 1; i < 3; i++ )
        CHECK(bytes[i] == bytes[0] && frames[i] == frames[0] &&
              checks[i] < checks[0] + 40,
              "%lx: %lu bytes (%lu), %lu pieces (%lu)",
              where[i], bytes[i], bytes[0], checks[i], checks[0]);
}

/* All of a guest's many page tables are written and gone, in one round. */
static void test_many_tables(void)
{
    struct world *w = one_space(1);
    unsigned int i;

    /* 1500 leaf tables, by 3 tables of level 2. */
    new_space(w);
    for ( i = 0; i < 1500; i++ )
        map(w, w->root[1], (uint64_t)i << 21, 2048 + i);
    run(w, 0, 1);
    round_over(w);
    CHECK(pml_nr_tables(w->pml) > 1500, "%u", pml_nr_tables(w->pml));
    for ( i = w->root[1]; i < w->next; i++ )
    {
        memset(mock_content(w->d, i), 0, PAGE_SIZE);
        mock_touch(w->d, i, true);
        w->touched[i] = true;
    }
    run(w, 0, 0);
    round_over(w);
    CHECK(pml_nr_tables(w->pml) == 4, "%u", pml_nr_tables(w->pml));
    end_world(w);
}

/****************** Clearing the guest's accessed flags ******************/

#define VA 0x5000UL                 /* each space maps a page there */

/* Its accessed flag in a space's table. */
static bool flag_of(struct world *w, unsigned int space)
{
    unsigned long gfn = w->root[space];
    unsigned int level;

    for ( level = 4; level > 1; level-- )
        gfn = (*(uint64_t *)mock_content(w->d, gfn) & 0x000ffffffffff000ULL)
              >> 12;

    return ((uint64_t *)mock_content(w->d, gfn))[VA >> 12] & 0x20;
}

/* An exit after which CR3 is that of a space. */
static void load(struct world *w, unsigned int space)
{
    w->d->vcpu[0]->arch.hvm.guest_cr[3] = w->root[space] << 12;
    pml_cr3_loaded(w->d->vcpu[0]);
}

/* A round begins in space 0; the tables of space 1 are known, and wait. */
static struct world *two_spaces(void)
{
    struct world *w = malloc(sizeof(*w));
    unsigned int i;

    start_guest(w, 1, XEN_PML_OPT_CLEAR);
    enable(w);
    w->pml->state = XEN_PML_STATE_STARTING;
    for ( i = 0; i < 2; i++ )
        map(w, w->root[new_space(w)], VA, 2100 + i);
    for ( i = 2; i--; )
    {
        run(w, 0, i);
        use(w, i, VA, false);
    }
    close_none(w);
    pml_watch_cr3(w->d, w->pml, true);
    CHECK(!flag_of(w, 0) && flag_of(w, 1), "cleared: %d, %d", !flag_of(w, 0),
          !flag_of(w, 1));

    return w;
}

/* What waits is cleared by the first load, and by none after it. */
static void test_first_load(void)
{
    struct world *w = two_spaces();

    load(w, 1);
    CHECK(!flag_of(w, 1), "not cleared");
    use(w, 1, VA, false);
    load(w, 0);
    load(w, 1);
    CHECK(flag_of(w, 1), "an access is lost");
    end_world(w);
}

/*
 * A monitor has a load take place later, or has it emulated without an exit:
 * the tables have been used by the time of the first one that is seen.
 */
static void test_monitor(bool exits)
{
    struct world *w = two_spaces();
    struct vcpu *v = w->d->vcpu[0];

    v->arch.vm_event = w;
    if ( exits )
        load(w, 0);
    v->arch.hvm.guest_cr[3] = w->root[1] << 12;
    use(w, 1, VA, false);
    load(w, 0);
    load(w, 1);
    CHECK(flag_of(w, 1), "an access is lost");
    CHECK(!v->arch.hvm.vmx.pml_watch_cr3, "loads leave the guest for nothing");

    /* The monitor has gone, but not what it has hidden. */
    v->arch.vm_event = NULL;
    load(w, 0);
    load(w, 1);
    CHECK(flag_of(w, 1), "an access is lost later");
    end_world(w);
}

int main(int argc, char **argv)
{
    unsigned int count = argc > 1 ? atoi(argv[1]) : 60;

    if ( argc > 2 )
        state = strtoull(argv[2], NULL, 0) | 1;
    test_guided(count);
    test_many_roots();
    test_offline();
    test_stale_root();
    test_rest();
    test_large();
    test_balloon();
    test_no_memory();
    test_far();
    test_many_tables();
    test_first_load();
    test_monitor(true);
    test_monitor(false);
    printf("%u rounds, fetched by %u calls, no finding; "
           "%lu looks in the longest piece\n", rounds, fetches, longest);

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

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Scans of accessed flags, and the bitmaps that are handed out, over a mock
 * EPT: what a processor has touched is what the caller gets, and nothing but
 * the caller's buffer is written to.
 */
#include "private.h"

#define CANARY 0xa5
#define BEHIND (2 * PAGE_SIZE)
#define EVERYTHING (~0UL)

static uint64_t state = 0x9e3779b97f4a7c15ULL;

static unsigned long any(unsigned long n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return (state >> 20) % n;
}

/****************** A domain that is logged ******************/

static struct domain *start(unsigned int vcpus, unsigned int options)
{
    struct domain *d = mock_domain(vcpus);
    struct pml_domain *pml =
        calloc(1, sizeof(*pml) + vcpus * sizeof(pml->vcpu[0]));
    unsigned int i;

    pml->options.flags = options;
    pml->options.rearm = XEN_PML_REARM_ROUND;
    pml->leaf = calloc(1, PAGE_SIZE);
    pml->nr_vcpus = vcpus;
    pml->state = XEN_PML_STATE_LOGGING;
    for ( i = 0; i < vcpus; i++ )
        pml->vcpu[i].vcpu = d->vcpu[i];
    INIT_PAGE_LIST_HEAD(&pml->spool.pages);
    d->arch.hvm.pml = pml;
    CHECK(!pml_alloc_tables(d, pml), "enabling");

    return d;
}

/* The end of enabling: all flags are clear. */
static void begin(struct domain *d)
{
    struct pml_domain *pml = d->arch.hvm.pml;
    int rc;

    while ( (rc = pml_close_accessed(d, pml, NULL)) )
        CHECK(rc == -ERESTART, "%d", rc);
    memset(&pml->result, 0, sizeof(pml->result));
}

static void stop(struct domain *d)
{
    struct pml_domain *pml = d->arch.hvm.pml;

    CHECK(!d->paused && !d->p2m.lock.held, "left");
    mock_alloc_left = -1;
    while ( !pml_free_tables(pml, 10) )
        ;
    free(pml->leaf);
    free(pml);
    mock_destroy(d);
}

/****************** Scans ******************/

struct buffer {
    uint8_t *bits;
    unsigned long pages;
};

static struct buffer get_buffer(unsigned long pages)
{
    struct buffer b = { malloc(pages / 8 + BEHIND), pages };

    memset(b.bits, 0, pages / 8);
    memset(b.bits + pages / 8, CANARY, BEHIND);

    return b;
}

static void check_canary(const struct buffer *b, const char *what)
{
    unsigned long i;

    for ( i = 0; i < BEHIND; i++ )
        CHECK(b->bits[b->pages / 8 + i] == CANARY,
              "%s: byte %lu behind a buffer of %lu", what, i, b->pages / 8);
}

static bool in_bits(const uint8_t *bits, unsigned long n)
{
    return bits[n / 8] >> (n % 8) & 1;
}

/* The same as pages: what is there, what was touched in the round. */
struct model {
    unsigned long gfn[20000];
    bool touched[20000];
    unsigned int nr;
};

static void populate(struct domain *d, struct model *m, unsigned long gfn,
                     unsigned long nr)
{
    for ( ; nr--; gfn++ )
    {
        if ( mock_entry(d, gfn) && (mock_entry(d, gfn)->epte & 7) )
            continue;
        mock_populate(d, gfn, p2m_ram_logdirty, false);
        m->gfn[m->nr] = gfn;
        m->touched[m->nr++] = false;
        CHECK(m->nr < 20000, "too many");
    }
}

/*
 * Close a round by a scan and compare with what was touched.  Of a sample,
 * `draw` says which pages are in it.
 */
static unsigned long total_touched, total_found;
static unsigned int scans;

static void scan(struct domain *d, struct model *m, unsigned int flags,
                 unsigned long pages, const char *what)
{
    static uint32_t draws[1 << 18];
    struct pml_domain *pml = d->arch.hvm.pml;
    unsigned int order = MASK_EXTR(flags, XEN_PML_ROUND_SAMPLE), i, nr = 0;
    struct buffer b = get_buffer(pages);
    struct xen_domctl_pml_round op = {
        .flags = XEN_PML_ROUND_ACCESSED | flags, .pages = pages,
        .accessed.p = b.bits,
    };
    unsigned long set = 0, k;
    int rc;

    for ( i = 0; i < m->nr; i++ )
    {
        const struct pml_region *r = pml_region(&pml->regions, m->gfn[i]);
        uint32_t *draw = &draws[m->gfn[i] >> 9];

        *draw = !(flags & XEN_PML_ROUND_REDRAW) ? 0
                : r && r->draw ? r->draw : pml->round + 1;
        CHECK(!*draw || *draw == pml->round + 1 || mock_alloc_left >= 0 ||
              (flags & XEN_PML_ROUND_PRUNED), "draw %u in round %u", *draw,
              pml->round);
    }
    CHECK(!pml_check_scan(pml, &op), "%x", flags);
    memset(&pml->result, 0, sizeof(pml->result));
    while ( (rc = pml_close_accessed(d, pml, &op)) )
        CHECK(rc == -ERESTART, "%d", rc);

    check_canary(&b, what);
    for ( i = 0; i < m->nr; i++ )
    {
        unsigned long gfn = m->gfn[i];
        bool in = (gfn & ((1UL << order) - 1)) ==
                  XEN_PML_DRAW(gfn >> order, order, draws[gfn >> 9]);

        if ( gfn >= pages )
            continue;
        CHECK(in_bits(b.bits, gfn) == (m->touched[i] && in),
              "%s: gfn %lx, touched %d, in the sample %d", what, gfn,
              m->touched[i], in);
        if ( in )
            nr += m->touched[i];
        total_touched += m->touched[i];
        m->touched[i] = false;
    }
    for ( k = 0; k < pages / 8; k++ )
        set += __builtin_popcount(b.bits[k]);
    CHECK(set == nr, "%s: %lu bits, %u touched", what, set, nr);
    CHECK(pml->result.accessed_pages == nr, "%s: %lu counted, %u touched", what,
          (long)pml->result.accessed_pages, nr);
    CHECK(!pml->at, "at %lx", pml->at);
    total_found += (unsigned long)nr << order;
    scans++;
    pml->round++;
    free(b.bits);
}

static void touch(struct domain *d, struct model *m, unsigned int i)
{
    mock_touch(d, m->gfn[i], false);
    m->touched[i] = true;
}

static const unsigned int modes[] = {
    0, XEN_PML_ROUND_PRUNED, 4U << 8, XEN_PML_ROUND_PRUNED | 4U << 8,
    1U << 8, XEN_PML_ROUND_PRUNED | 9U << 8,
    XEN_PML_ROUND_REDRAW | 3U << 8,
    XEN_PML_ROUND_REDRAW | XEN_PML_ROUND_PRUNED | 4U << 8,
    XEN_PML_ROUND_REDRAW | XEN_PML_ROUND_PRUNED | 1U << 8,
};

/* Runs of pages: first and how many. */
struct shape {
    const char *name;
    struct {
        unsigned long gfn, nr;
    } run[8];
};

static const struct shape shapes[] = {
    { "one page", { { 0, 1 } } },
    { "a leaf and one", { { 0, 600 }, { 32768, 1 } } },
    { "the last of a leaf", { { 32767, 2 } } },
    /* A guest of 64 MiB: RAM, and the special pages below 4 GiB. */
    { "special pages", { { 0, 700 }, { 0x3f00, 256 }, { 0xfee00, 1 },
                         { 0xfeff0, 16 } } },
    { "hole", { { 0, 512 }, { 0xfc000, 8 }, { 0x100000, 1024 } } },
    { "regions apart", { { 512, 3 }, { 512 * 40, 3 }, { 512 * 65, 3 },
                         { 512 * 129 + 511, 2 } } },
    { "far away", { { 5, 5 }, { 1UL << 26, 5 } } },
};

static unsigned long room_for(const struct domain *d)
{
    return ROUNDUP(d->p2m.max_mapped_pfn + 1, PAGES_PER_LEAF);
}

static void test_shapes(void)
{
    struct model *m = malloc(sizeof(*m));
    unsigned int i, k, mode, round;

    for ( i = 0; i < ARRAY_SIZE(shapes); i++ )
        for ( mode = 0; mode < 2 * ARRAY_SIZE(modes); mode++ )
        {
            struct domain *d = start(1, XEN_PML_OPT_ACCESSED);
            unsigned int flags = modes[mode / 2];

            mock_preempt = mode & 1;
            m->nr = 0;
            for ( k = 0; k < 8; k++ )
                populate(d, m, shapes[i].run[k].gfn, shapes[i].run[k].nr);
            begin(d);
            for ( round = 0; round < 4; round++ )
            {
                /* The last page, each, none, some. */
                for ( k = 0; k < m->nr; k++ )
                    if ( round == 0 ? k == m->nr - 1 : round == 1 ||
                         (round == 3 && any(3) == 0) )
                        touch(d, m, k);
                scan(d, m, flags, room_for(d), shapes[i].name);
            }
            stop(d);
        }
    mock_preempt = false;
    free(m);
}

/* The map grows while it is logged; maps of all shapes. */
static void test_random(unsigned int count)
{
    struct model *m = malloc(sizeof(*m));
    unsigned int i, k, round;

    for ( i = 0; i < count; i++ )
    {
        struct domain *d = start(1, XEN_PML_OPT_ACCESSED);
        unsigned int flags = modes[any(ARRAY_SIZE(modes))];
        unsigned int bits = 10 + any(12);

        m->nr = 0;
        mock_preempt = any(2);
        /* For notes of what was drawn there may be no memory. */
        mock_alloc_left = any(3) ? -1 : (long)any(40);
        for ( k = 1 + any(12); k; k-- )
            populate(d, m, any(1UL << bits), 1 + any(any(8) ? 20 : 1200));
        begin(d);
        for ( round = 0; round < 6; round++ )
        {
            unsigned int one_in = 1 + any(30);

            if ( !any(4) )
                populate(d, m, any(1UL << bits), 1 + any(20));
            for ( k = 0; k < m->nr; k++ )
                if ( !any(one_in) )
                    touch(d, m, k);
            scan(d, m, flags, room_for(d), "random");
        }
        stop(d);
    }
    mock_preempt = false;
    free(m);
}

/* All of a round: what was written, too. */
static void close_all(struct domain *d, const struct xen_domctl_pml_round *op)
{
    struct pml_domain *pml = d->arch.hvm.pml;
    int rc;

    pml_begin_close(d, pml);
    while ( (rc = pml_do_close(d, pml, op)) )
        CHECK(rc == -ERESTART, "%d", rc);
    pml_release(d, pml);
    pml->round++;
}

/*
 * The map has grown since the caller looked: what its buffers have no room for
 * is handed out once they have, and counted then.
 */
static void test_no_room(void)
{
    unsigned int mode, round;

    for ( mode = 0; mode < 16; mode++ )
    {
        struct domain *d = start(1, XEN_PML_OPT_ACCESSED);
        struct pml_domain *pml = d->arch.hvm.pml;
        unsigned long low = 100, high = 3 * 32768UL + 7;
        bool bitmap = mode & 2, accessed = mode & 4;
        unsigned int flags = !accessed ? 0 : mode & 8
                             ? XEN_PML_ROUND_ACCESSED | XEN_PML_ROUND_PRUNED
                             : XEN_PML_ROUND_ACCESSED;

        mock_preempt = mode & 1;
        mock_populate(d, low, p2m_ram_logdirty, false);
        mock_populate(d, high, p2m_ram_logdirty, false);
        begin(d);
        mock_touch(d, low, true);
        mock_touch(d, high, true);
        for ( round = 0; round < 3; round++ )
        {
            unsigned long pages = round ? 4 * 32768 : 32768;
            struct buffer dirty = get_buffer(pages), used = get_buffer(pages);
            struct xen_domctl_pml_round op = {
                .flags = flags, .pages = pages,
                .dirty.p = bitmap ? dirty.bits : NULL,
                .accessed.p = accessed ? used.bits : NULL,
            };
            /* Without a buffer, all is closed at once. */
            unsigned int first = round == 0, second = round == 1;

            close_all(d, &op);
            check_canary(&dirty, "dirty");
            check_canary(&used, "accessed");
            CHECK(!bitmap || (in_bits(dirty.bits, low) == first &&
                              (!round || in_bits(dirty.bits, high) == second)),
                  "dirty in round %u", round);
            CHECK(!accessed || (in_bits(used.bits, low) == first &&
                                (!round || in_bits(used.bits, high) == second)),
                  "accessed in round %u", round);
            CHECK(pml->result.dirty_pages ==
                  (bitmap ? first + second : 2 * first),
                  "%lu dirty", (long)pml->result.dirty_pages);
            CHECK(pml->result.rearmed == pml->result.dirty_pages,
                  "%lu re-armed", (long)pml->result.rearmed);
            CHECK(!accessed || pml->result.accessed_pages == first + second,
                  "%lu accessed", (long)pml->result.accessed_pages);
            free(dirty.bits);
            free(used.bits);
        }
        stop(d);
    }
    mock_preempt = false;
}

/* Which scans can follow which. */
static void test_refused_scans(void)
{
    static const unsigned int all = XEN_PML_ROUND_ACCESSED;
    static const unsigned int n3 = XEN_PML_ROUND_ACCESSED | 3U << 8;
    static const unsigned int again = XEN_PML_ROUND_REDRAW;
    static const struct {
        unsigned int before, now;
        int rc;
    } cases[] = {
        { 0, all, 0 }, { 0, n3, 0 }, { 0, n3 | again, 0 }, { all, n3, 0 },
        { n3, n3, 0 }, { n3, n3 | XEN_PML_ROUND_PRUNED, 0 }, { n3, 0, 0 },
        { n3, n3 + 256, -EINVAL }, { n3, all, -EINVAL },
        { n3, n3 | again, -EINVAL }, { n3 | again, n3, -EINVAL },
        { n3 | again, n3 | again, 0 },
        { 0, 3U << 8, -EINVAL }, { 0, again, -EINVAL },
        { 0, all | again, -EINVAL }, { 0, XEN_PML_ROUND_PRUNED, -EINVAL },
        { 0, all | 10U << 8, -EINVAL },
    };
    unsigned int i;

    for ( i = 0; i < ARRAY_SIZE(cases); i++ )
    {
        struct domain *d = start(1, XEN_PML_OPT_ACCESSED);
        struct pml_domain *pml = d->arch.hvm.pml;
        struct xen_domctl_pml_round op = { .flags = cases[i].before };
        int rc;

        mock_populate(d, 5, p2m_ram_logdirty, false);
        begin(d);
        close_all(d, &op);
        op.flags = 0;
        close_all(d, &op);
        op.flags = cases[i].now;
        rc = pml_check_scan(pml, &op);
        CHECK(rc == cases[i].rc, "%x after %x: %d", cases[i].now,
              cases[i].before, rc);
        pml->options.flags = 0;
        CHECK(!(op.flags & all) || pml_check_scan(pml, &op) == -EINVAL,
              "not allowed");
        stop(d);
    }
}

/* A pruned scan looks at what was used, from the first round on. */
static void test_pruned_looks(void)
{
    struct model *m = calloc(1, sizeof(*m));
    struct domain *d = start(1, XEN_PML_OPT_ACCESSED);
    struct pml_domain *pml = d->arch.hvm.pml;
    unsigned int round, i;

    for ( i = 0; i < 20; i++ )
        populate(d, m, i * 3000, 40);
    for ( i = 0; i < m->nr; i++ )
        mock_touch(d, m->gfn[i], true);
    begin(d);
    for ( round = 0; round < 4; round++ )
    {
        pml->costs.scan_frames = 0;
        for ( i = 0; i < round; i++ )
            touch(d, m, 40 * i + 1);
        scan(d, m, XEN_PML_ROUND_PRUNED, room_for(d), "pruned");
        CHECK(pml->costs.scan_frames == 512 * round, "round %u: %lu looked at",
              round, (long)pml->costs.scan_frames);
    }
    stop(d);
    free(m);
}

/* The guest has run with too little memory for the bitmap: all re-armed. */
static void test_rescue(void)
{
    struct model *m = calloc(1, sizeof(*m));
    struct domain *d = start(1, XEN_PML_OPT_ACCESSED);
    struct xen_domctl_pml_round op = {};
    unsigned int i;

    populate(d, m, 0, 1000);
    populate(d, m, 1UL << 26, 10);
    populate(d, m, 1UL << 35, 10);
    for ( i = 0; i < m->nr; i++ )
        mock_touch(d, m->gfn[i], true);
    memset(d->dirty, 0, MOCK_DIRTY / 8);
    d->dirty_failed = 3;
    mock_preempt = true;
    mock_checks = 0;
    close_all(d, &op);
    mock_preempt = false;
    CHECK(mock_checks < 200, "%lu pieces", mock_checks);
    for ( i = 0; i < m->nr; i++ )
        CHECK(!mock_entry(d, m->gfn[i])->d, "gfn %lx", m->gfn[i]);
    stop(d);
    free(m);
}

/* A region is armed, all of it, and nothing else. */
static void test_region_armed(void)
{
    struct model *m = calloc(1, sizeof(*m));
    struct domain *d = start(1, 0);
    unsigned int i;

    populate(d, m, 512, 1536);
    mock_populate(d, 600, p2m_mmio_direct, false);
    for ( i = 0; i < m->nr; i++ )
        mock_touch(d, m->gfn[i], true);
    mock_entry(d, 600)->d = 1;
    p2m_lock(&d->p2m);
    ept_pml_rearm_region(&d->p2m, 700);
    ept_pml_rearm_region(&d->p2m, 1UL << 30);
    p2m_unlock(&d->p2m);
    for ( i = 512; i < 2048; i++ )
        CHECK(mock_entry(d, i)->d == (i == 600 || i >= 1024), "gfn %x", i);
    CHECK(mock_entry(d, 513)->a, "accessed flags are others'");
    stop(d);
    free(m);
}

/* The memory for a table comes with an attempt after the first one. */
static unsigned int too_early;

static int set_entry(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                     unsigned int order, p2m_type_t t, p2m_access_t a, int sve)
{
    CHECK(order == PAGE_ORDER_4K && mfn == gfn + 7, "%lx: %lx", gfn, mfn);
    if ( !mock_entry(p2m->domain, gfn) && too_early )
    {
        too_early--;
        return -ENOMEM;
    }
    mock_populate(p2m->domain, gfn, t, false);

    return 0;
}

/* It is too late then: pages of one that failed are the caller's again. */
static void test_all_or_none_is_mapped(void)
{
    unsigned int early, i;

    for ( early = 0; early < 4; early++ )
    {
        struct domain *d = mock_domain(1);
        int rc;

        d->p2m.set_entry = set_entry;
        too_early = early;
        rc = pml_set_entries(&d->p2m, 1024, 1031, 9, p2m_ram_rw, 0);
        CHECK(rc == (early ? -ENOMEM : 0), "%u: %d", early, rc);
        for ( i = 1024; i < 1536; i++ )
            CHECK(!mock_entry(d, i) == !!early, "%u: gfn %x", early, i);
        mock_destroy(d);
    }
}

/* The mean of what samples say is what there is. */
static void test_mean(void)
{
    struct model *m = calloc(1, sizeof(*m));
    struct domain *d = start(1, XEN_PML_OPT_ACCESSED);
    unsigned int round, i;

    total_touched = total_found = 0;
    populate(d, m, 0, 8192);
    begin(d);
    for ( round = 0; round < 400; round++ )
    {
        /* Always the same page of each 16: a fixed draw sees a few, or all. */
        for ( i = any(3) ? 0 : 4096; i < 8192; i += 16 )
            touch(d, m, i + 3);
        scan(d, m, XEN_PML_ROUND_REDRAW | XEN_PML_ROUND_PRUNED | 4U << 8,
             room_for(d), "mean");
    }
    CHECK(total_found > 0.95 * total_touched &&
          total_found < 1.05 * total_touched, "%lu instead of %lu", total_found,
          total_touched);
    stop(d);
    free(m);
}

int main(int argc, char **argv)
{
    unsigned int count = argc > 1 ? atoi(argv[1]) : 300;

    if ( argc > 2 )
        state = strtoull(argv[2], NULL, 0) | 1;
    test_shapes();
    test_random(count);
    test_no_room();
    test_refused_scans();
    test_pruned_looks();
    test_rescue();
    test_region_armed();
    test_all_or_none_is_mapped();
    test_mean();
    printf("%u scans, no finding\n", scans);

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

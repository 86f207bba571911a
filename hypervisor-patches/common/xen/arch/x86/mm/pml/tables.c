/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which of a guest's frames are its page tables, and snapshots of them.
 *
 * Page tables are found by walking the trees below the CR3s that were seen in
 * use.  A walk at the end of a round costs no more than what was used in it: a
 * processor that uses a page table for the first time after a re-arm reads the
 * tables above it as well, from CR3 on (the invalidation has left nothing in
 * its paging-structure caches), each of these reads counts as a write, and so
 * all of them are logged.  Hence, provided that everything was armed when the
 * round began, a walk need not look into known tables which were not logged:
 * they have not been written either.
 */
#include "private.h"
#include "tables.h"

/* Where a guided harvest can expect memory. */
static uint64_t cf_check next_gfn(void *ctx, uint64_t gfn)
{
    return ept_pml_next(p2m_get_hostp2m((struct domain *)ctx), gfn);
}

bool pml_free_tables(struct pml_domain *pml, unsigned int budget)
{
    struct pml_tables *t = pml->tables;

    if ( !pml_regions_free(&pml->regions, budget) )
        return false;
    if ( !t )
        return true;

    for ( ; t->logged.nr_blocks && budget; budget-- )
        pml_put(&pml->held, t->logged.blocks[--t->logged.nr_blocks],
                PAGE_SIZE);
    if ( t->logged.nr_blocks )
        return false;

    pml->tables = NULL;
    pml_put(&pml->held, t->logged.blocks,
            t->logged.max_blocks * sizeof(*t->logged.blocks));
    pml_put(&pml->held, t, sizeof(*t));

    return true;
}

/*
 * All of this is in proportion to the memory that the domain has, wherever
 * that is, and most of it is allocated as page tables are found.
 */
int pml_alloc_tables(struct domain *d, struct pml_domain *pml)
{
    unsigned int pages = domain_tot_pages(d);
    bool tables = pml->options.flags & XEN_PML_OPT_TABLES;
    struct pml_tables *t;

    pml_regions_init(&pml->regions, PML_REGIONS_BYTES(pages));
    pml_guide_init(&pml->guide, &pml->regions, next_gfn, d);

    if ( !tables )
        return 0;

    t = pml_get(&pml->held, sizeof(*t));
    if ( !t )
        return -ENOMEM;

    spin_lock_init(&t->lock);
    spin_lock_init(&t->clear_lock);
    t->live = pml->options.flags & XEN_PML_OPT_CLEAR;
    /*
     * Dense page tables take one frame in 512, sparse ones more.  This limit
     * bounds what a guest can make the walks cost.
     */
    t->max = pages / 64 + 4096;
    t->logged.max_blocks = DIV_ROUND_UP(t->max, GFNS_PER_BLOCK);
    t->logged.blocks = pml_get(&pml->held, t->logged.max_blocks *
                                           sizeof(*t->logged.blocks));
    if ( !t->logged.blocks )
    {
        pml_put(&pml->held, t, sizeof(*t));
        return -ENOMEM;
    }

    pml->tables = t;

    return 0;
}

unsigned int pml_nr_tables(const struct pml_domain *pml)
{
    return pml->tables ? pml->tables->nr : 0;
}

/****************** What vCPUs use ******************/

struct pml_root pml_current_root(const struct vcpu *v)
{
    struct pml_root root = { .cr3 = v->arch.hvm.guest_cr[3] };

    if ( !hvm_paging_enabled(v) )
        return root;

    if ( hvm_long_mode_active(v) )
        root.levels = 4;
    else if ( hvm_pae_enabled(v) )
        root.levels = 3;
    else
    {
        root.levels = 2;
        root.pse = v->arch.hvm.guest_cr[4] & X86_CR4_PSE;
    }

    /* Drop PCID and cache attributes. */
    root.cr3 &= root.levels == 3 ? ~0x1fUL : PAGE_MASK;

    return root;
}

/* One that will be found without a vCPU's help, as its page has been logged? */
static bool known_root(const struct pml_domain *pml,
                       const struct pml_root *root)
{
    const uint16_t *f = pml_frame(&pml->regions, root->cr3 >> PAGE_SHIFT);

    return f && (*f & FRAME_ROOT) && FRAME_LEVEL(*f) == root->levels;
}

static bool same_root(const struct pml_root *a, const struct pml_root *b)
{
    return a->cr3 == b->cr3 && a->levels == b->levels;
}

void pml_note_root(struct pml_domain *pml, struct pml_vcpu *pv,
                   const struct vcpu *v)
{
    struct pml_root root = pml_current_root(v);
    unsigned int i;

    if ( !root.levels )
    {
        pv->unpaged = true;
        return;
    }

    /* The newest are last: most exits find theirs at once. */
    for ( i = pv->nr_roots; i--; )
        if ( same_root(&pv->roots[i], &root) )
            return;

    if ( pv->nr_roots == MAX_ROOTS )
    {
        /* Keep the root which was there first: of a kernel, most often. */
        if ( !known_root(pml, &pv->roots[1]) )
            pv->roots_dropped++;
        memmove(&pv->roots[1], &pv->roots[2],
                (MAX_ROOTS - 2) * sizeof(pv->roots[0]));
        pv->nr_roots--;
    }

    pv->roots[pv->nr_roots++] = root;
}

void pml_note_cr3(struct vcpu *v)
{
    struct pml_domain *pml = v->domain->arch.hvm.pml;

    if ( pml->tables )
        pml_note_root(pml, pml_vcpu(v), v);
}

/****************** What is known of frames ******************/

/* The frame's of an entry.  Neighbours share the look for their region. */
struct finder {
    const struct pml_regions *regions;
    struct pml_region *region;
    uint64_t number;
};
#define FINDER(pml) { .regions = &(pml)->regions, .number = ~0ULL }

static uint16_t *find_frame(struct finder *f, uint64_t gfn)
{
    if ( gfn >> PML_REGION_SHIFT != f->number )
    {
        f->number = gfn >> PML_REGION_SHIFT;
        f->region = pml_region(f->regions, gfn);
    }

    return pml_region_frame(f->region, gfn);
}

/* Make room for one table more: all of them can be logged in a round. */
static bool room_for_table(struct pml_domain *pml)
{
    struct pml_tables *t = pml->tables;
    struct pml_gfns *l = &t->logged;

    if ( t->nr == t->max )
        return false;

    if ( t->nr == l->nr_blocks * GFNS_PER_BLOCK )
    {
        l->blocks[l->nr_blocks] = pml_get(&pml->held, PAGE_SIZE);
        if ( !l->blocks[l->nr_blocks] )
            return false;
        l->nr_blocks++;
    }

    return true;
}

static void add_logged(struct pml_tables *t, unsigned long gfn, uint16_t *f)
{
    unsigned int i = t->logged.nr++;

    ASSERT(i < t->logged.nr_blocks * GFNS_PER_BLOCK);
    *f |= FRAME_LOGGED;
    t->logged.blocks[i / GFNS_PER_BLOCK][i % GFNS_PER_BLOCK] = gfn;
}

static unsigned int kind_of(const uint16_t *f)
{
    unsigned int level = f ? FRAME_LEVEL(*f) : 0;

    return level ? XEN_PML_KIND_TABLE | level : XEN_PML_KIND_WRITTEN;
}

void pml_add_kinds(const struct pml_domain *pml, uint64_t *entries,
                   unsigned int nr)
{
    struct finder finder = FINDER(pml);
    unsigned int i;

    for ( i = 0; i < nr; i++ )
        entries[i] |= kind_of(find_frame(&finder, entries[i] >> PAGE_SHIFT));
}

/* An entry has been logged: if it is of a table, note it once a round. */
static uint16_t *note_logged(struct pml_tables *t, struct finder *finder,
                             uint64_t entry)
{
    unsigned long gfn = entry >> PAGE_SHIFT;
    uint16_t *f = find_frame(finder, gfn);

    if ( f && FRAME_LEVEL(*f) && !(*f & FRAME_LOGGED) )
        add_logged(t, gfn, f);

    return f;
}

void pml_tables_logged(struct pml_domain *pml, const uint64_t *entries,
                       unsigned int nr)
{
    struct pml_tables *t = pml->tables;
    struct finder finder = FINDER(pml);
    unsigned int i;

    spin_lock(&t->lock);
    for ( i = 0; i < nr; i++ )
        note_logged(t, &finder, entries[i]);
    spin_unlock(&t->lock);
}

void pml_classify(struct domain *d, uint64_t *entries, unsigned int nr)
{
    struct pml_domain *pml = d->arch.hvm.pml;
    struct pml_tables *t = pml->tables;
    struct finder finder = FINDER(pml);
    unsigned int i;

    spin_lock(&t->lock);
    for ( i = 0; i < nr; i++ )
        entries[i] |= kind_of(note_logged(t, &finder, entries[i]));
    spin_unlock(&t->lock);
}

/****************** Walking ******************/

const void *cf_check pml_map_table(void *ctx, uint64_t gfn)
{
    struct page_info *page;
    p2m_type_t t;
    void *map;

    page = get_page_from_gfn(ctx, gfn, &t, 0);
    if ( !page )
        return NULL;

    map = p2m_is_ram(t) ? __map_domain_page(page) : NULL;
    if ( !map )
        put_page(page);

    return map;
}

void cf_check pml_unmap_table(void *ctx, const void *map)
{
    struct page_info *page = mfn_to_page(domain_page_map_to_mfn(map));

    unmap_domain_page(map);
    put_page(page);
}

/*
 * A frame that the walk has not met yet: is it memory, and is there room to
 * know more of it?
 */
static uint16_t *meet(struct domain *d, struct pml_domain *pml, uint64_t gfn,
                      uint16_t *f)
{
    struct pml_tables *t = pml->tables;

    if ( !ept_pml_is_ram(p2m_get_hostp2m(d), gfn) )
        return NULL;

    if ( !f )
        f = pml_frame_make(&pml->regions, gfn);
    if ( !f || (!FRAME_LEVEL(*f) && !room_for_table(pml)) )
    {
        /* What is below is not found this way: see close_unguided(). */
        pml->costs.tables_dropped++;
        return NULL;
    }

    if ( !FRAME_LEVEL(*f) )
    {
        t->nr++;
        add_logged(t, gfn, f);
    }
    *f &= ~(FRAME_LEVEL_MASK | FRAME_NARROW);

    return f;
}

static bool cf_check walk_enter(void *ctx, uint64_t gfn, unsigned int level,
                                bool wide)
{
    struct domain *d = ctx;
    struct pml_domain *pml = d->arch.hvm.pml;
    struct pml_tables *t = pml->tables;
    uint16_t *f = pml_frame(&pml->regions, gfn);

    if ( f )
    {
        if ( *f & FRAME_VISITED(level) )
            return false;
        /* What a processor uses now is as it uses it. */
        if ( (*f & FRAME_LIVE) && !wide )
            return false;
        if ( t->armed && FRAME_LEVEL(*f) >= level && !(*f & FRAME_LOGGED) )
            return false;
    }

    if ( !f || !(*f & FRAME_VISITED_ANY) )
        f = meet(d, pml, gfn, f);
    if ( !f )
        return false;

    *f |= FRAME_VISITED(level) | (wide ? 0 : FRAME_NARROW) |
          (t->live ? FRAME_LIVE : 0);
    /* A table that is met at several levels counts as of the highest. */
    if ( FRAME_LEVEL(*f) < level )
        *f = (*f & ~FRAME_LEVEL_MASK) | (level << FRAME_LEVEL_SHIFT);

    return true;
}

static const struct pml_walk_ops walk_ops = {
    .map = pml_map_table,
    .unmap = pml_unmap_table,
    .enter = walk_enter,
};

static int walk_root(struct domain *d, struct pml_domain *pml,
                     const struct pml_root *root)
{
    struct pml_tables *t = pml->tables;

    if ( !t->walking )
    {
        uint16_t *f;

        pml_walk_start(&t->walk, &walk_ops, d, root);
        f = pml_frame(&pml->regions, root->cr3 >> PAGE_SHIFT);
        if ( root->levels != 3 && f && FRAME_LEVEL(*f) )
            *f |= FRAME_ROOT;
    }

    /* A table of 512 entries, each of which may need a look into the EPT. */
    t->walking = true;
    while ( !pml_walk_run(&t->walk, 1) )
        if ( pml_preempt_check() )
            return -ERESTART;
    t->walking = false;

    return 0;
}

/*
 * Is a frame that has been a root one still?  Address spaces share tables, of
 * the kernel: one of those is to have been met in this walk.
 */
static bool still_root(struct domain *d, const struct pml_domain *pml,
                       unsigned long gfn, uint16_t f)
{
    struct finder finder = FINDER(pml);
    unsigned int i, level = FRAME_LEVEL(f);
    bool wide = !(f & FRAME_NARROW), found = false;
    const void *table = pml_map_table(d, gfn);

    for ( i = 0; table && !found && i < (wide ? 512 : 1024); i++ )
    {
        uint64_t entry = pml_walk_entry(table, i, level, wide);
        const uint16_t *to;

        if ( !(entry & XEN_PML_ENTRY_PRESENT) ||
             (entry & XEN_PML_ENTRY_LEAF) )
            continue;

        to = find_frame(&finder, entry >> XEN_PML_ENTRY_SHIFT);
        found = to && (*to & FRAME_VISITED(level - 1));
    }

    if ( table )
        pml_unmap_table(d, table);

    return found;
}

/*
 * Address spaces that were in use, but never when a vCPU left the guest: their
 * known roots were logged.
 */
static int walk_old_roots(struct domain *d, struct pml_domain *pml)
{
    struct pml_tables *t = pml->tables;

    while ( t->old_root < t->logged.nr )
    {
        unsigned long gfn = pml_logged_gfn(t, t->old_root);
        uint16_t f = *pml_frame(&pml->regions, gfn);
        struct pml_root root = {
            .cr3 = gfn << PAGE_SHIFT,
            .levels = FRAME_LEVEL(f),
            .pse = true,
        };
        bool candidate = (f & FRAME_ROOT) && !(f & FRAME_VISITED_ANY);

        if ( t->walking || (candidate && still_root(d, pml, gfn, f)) )
        {
            int rc = walk_root(d, pml, &root);

            if ( rc )
                return rc;
        }

        t->old_root++;
        if ( (candidate || !(t->old_root & 0xff)) && pml_preempt_check() )
            return -ERESTART;
    }

    return 0;
}

/*
 * If accessed flags are to be cleared, begin with the tables that are in use
 * at this moment.  Below a CR3 that was seen earlier in the round there may be
 * memory by now that is something else: it can be read, but not written.
 */
static int walk_live(struct domain *d, struct pml_domain *pml)
{
    struct pml_tables *t = pml->tables;

    while ( t->live && t->vcpu < pml->nr_vcpus )
    {
        const struct vcpu *v = d->vcpu[t->vcpu];
        struct pml_root root = {};

        /* Of a vCPU that is down CR3 is what it was. */
        if ( v && is_vcpu_online(v) )
            root = pml_current_root(v);
        /* PAE paging's pointers may have changed since they were loaded. */
        if ( root.levels == 4 )
        {
            int rc = walk_root(d, pml, &root);

            if ( rc )
                return rc;
        }

        t->vcpu++;
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    if ( t->live )
        t->vcpu = 0;
    t->live = false;

    return 0;
}

/*
 * Is the root that a vCPU was seen to use to be walked?  Unless it is using it
 * now, there may be something else in its place by now.
 */
static bool worth_walking(struct domain *d, const struct vcpu *v,
                          const struct pml_root *root)
{
    struct pml_root now = {};

    if ( v && is_vcpu_online(v) )
        now = pml_current_root(v);

    return same_root(&now, root) || pml_walk_plausible(&walk_ops, d, root);
}

static int walk_vcpu(struct domain *d, struct pml_domain *pml,
                     struct pml_vcpu *pv)
{
    struct pml_tables *t = pml->tables;
    const struct vcpu *v = pv->vcpu;

    /* One that is down has no use for memory, paging or not. */
    if ( !t->root && !t->walking && v && is_vcpu_online(v) )
        pml_note_root(pml, pv, v);

    while ( t->root < pv->nr_roots )
    {
        const struct pml_root *root = &pv->roots[t->root];

        if ( t->walking || worth_walking(d, v, root) )
        {
            int rc = walk_root(d, pml, root);

            if ( rc )
                return rc;
        }
        else
            pml->costs.roots_stale++;

        t->root++;
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    pml->costs.roots_dropped += pv->roots_dropped;
    pv->roots_dropped = 0;
    pv->nr_roots = 0;
    t->root = 0;

    return 0;
}

int pml_walk_tables(struct domain *d, struct pml_domain *pml)
{
    struct pml_tables *t = pml->tables;
    int rc;

    if ( !t )
        return 0;

    rc = walk_live(d, pml);

    while ( !rc && t->vcpu < pml->nr_vcpus )
    {
        rc = walk_vcpu(d, pml, &pml->vcpu[t->vcpu]);
        if ( !rc )
            t->vcpu++;
    }

    if ( !rc )
        rc = walk_old_roots(d, pml);
    if ( rc )
        return rc;

    t->vcpu = t->old_root = 0;
    t->live = pml->options.flags & XEN_PML_OPT_CLEAR;

    return 0;
}

/****************** Tables logged in a round ******************/

/* One record for each page of 512 entries. */
static void snapshot(struct domain *d, struct pml_domain *pml,
                     unsigned long gfn, uint16_t f)
{
    unsigned int half, level = FRAME_LEVEL(f);
    bool wide = !(f & FRAME_NARROW);
    struct pml_ring *ring = &pml->vcpu[0].ring;
    const void *table = pml_map_table(d, gfn);

    for ( half = 0; table && half < (wide ? 1 : 2); half++ )
    {
        struct xen_pml_desc desc = {
            .tsc_start = pml->result.tsc_pause,
            .tsc_end = rdtsc(),
            .arg = ((uint64_t)gfn << XEN_PML_ENTRY_SHIFT) |
                   XEN_PML_KIND_TABLE | level |
                   (half ? XEN_PML_TABLE_UPPER : 0),
            .round = pml->round,
            .count = XEN_PML_SLOT_WORDS,
            .type = XEN_PML_TYPE_TABLES,
            .reason = XEN_PML_REASON_ROUND,
        };

        uint64_t *words = pml_ring_begin(ring);
        unsigned int i;

        pml_walk_snapshot(words, table, level, wide, half);
        for ( i = 0; (f & FRAME_CLEARED) && i < XEN_PML_SLOT_WORDS; i++ )
            if ( words[i] )
                words[i] |= XEN_PML_ENTRY_CLEARED;
        pml_ring_commit(ring, &desc);
        pml->result.snapshots++;
    }

    if ( table )
        pml_unmap_table(d, table);
}

int pml_snapshots(struct domain *d, struct pml_domain *pml)
{
    struct pml_tables *t = pml->tables;
    bool clear = pml->options.flags & XEN_PML_OPT_CLEAR;
    int rc = 0;

    /* Before the first round there is nothing to tell, but to clear. */
    if ( pml_logging(pml) ? !(pml->options.flags & XEN_PML_OPT_SNAPSHOTS)
                          : !clear )
        return 0;

    spin_lock(&pml->vcpu[0].lock);

    while ( pml->at < t->logged.nr )
    {
        unsigned long gfn = pml_logged_gfn(t, pml->at++);
        uint16_t *f = pml_frame(&pml->regions, gfn);

        if ( *f & FRAME_VISITED_ANY )
        {
            if ( pml_logging(pml) )
                snapshot(d, pml, gfn, *f);
            if ( clear )
                pml_clear_accessed(d, t, gfn, f);
        }

        if ( !(pml->at & 7) && pml_preempt_check() )
        {
            rc = -ERESTART;
            break;
        }
    }

    spin_unlock(&pml->vcpu[0].lock);

    pml->costs.cleared = t->cleared;
    if ( !rc )
        pml->at = 0;

    return rc;
}

/* A table that was logged and not found in any tree is none any more. */
static void reset_frame(struct pml_tables *t, uint16_t *f)
{
    if ( *f & FRAME_VISITED_ANY )
        *f &= ~(FRAME_LOGGED | FRAME_LIVE | FRAME_VISITED_ANY);
    else
    {
        *f = 0;
        t->nr--;
    }
}

int pml_tables_round(struct pml_domain *pml, bool armed)
{
    struct pml_tables *t = pml->tables;
    unsigned int i;

    if ( !t )
        return 0;

    while ( pml->at < t->logged.nr )
    {
        reset_frame(t, pml_frame(&pml->regions,
                                 pml_logged_gfn(t, pml->at++)));
        if ( !(pml->at & 0xff) && pml_preempt_check() )
            return -ERESTART;
    }

    /* Without a re-arm the walk has been everywhere. */
    if ( pml->at++ == t->logged.nr )
        t->cursor = t->armed ? NULL : pml->regions.all;
    while ( t->cursor )
    {
        for ( i = 0; t->cursor->frames && i < PML_REGION; i++ )
            t->cursor->frames[i] &= ~(FRAME_LIVE | FRAME_VISITED_ANY);
        t->cursor = t->cursor->next;
        if ( pml_preempt_check() )
            return -ERESTART;
    }

    t->logged.nr = 0;
    t->cleared = 0;
    t->armed = armed;
    pml->at = 0;

    return 0;
}

/*
 * A large page of 1 GiB leads to 512 regions: tables of those are noted bit by
 * bit.  *at is the number of a table logged in the round, and of such a bit.
 */
#define BITS_OF_TABLE 128

bool pml_note_logged(struct domain *d, struct pml_domain *pml,
                     unsigned long *at)
{
    struct pml_tables *t = pml->tables;
    unsigned int i = *at / BITS_OF_TABLE, bit = *at % BITS_OF_TABLE;
    unsigned int level, entries, nr;
    const void *table;
    unsigned long gfn;
    uint16_t f;
    bool wide;

    if ( i >= t->logged.nr )
        return false;

    gfn = pml_logged_gfn(t, i);
    f = *pml_frame(&pml->regions, gfn);
    level = FRAME_LEVEL(f);
    wide = !(f & FRAME_NARROW);
    entries = level == 3 ? 512 / BITS_OF_TABLE : wide ? 512 : 1024;

    if ( !bit )
        t->noted = 0;

    /* No page is mapped by tables of level 4 and up. */
    table = level <= 3 ? pml_map_table(d, gfn) : NULL;
    if ( !table )
    {
        *at = (i + 1) * BITS_OF_TABLE;
        return true;
    }

    /* Most tables of level 3 have no large pages: all of it at once, then. */
    do {
        nr = pml_guide_note(&pml->guide, table, level, wide, bit * entries,
                            entries);
        bit = level == 3 ? bit + 1 : BITS_OF_TABLE;
    } while ( !nr && bit < BITS_OF_TABLE );
    pml_unmap_table(d, table);
    *at = i * BITS_OF_TABLE + bit;

    pml->costs.guided_tables += nr && !t->noted;
    pml->costs.guided_entries += nr;
    t->noted += nr;

    return true;
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

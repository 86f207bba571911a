/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Accessed and dirty flags of the EPT: see ept.h.
 */
#include "private.h"

#define is_epte_present(e)   ((e)->epte & 7)
#define is_epte_superpage(e) ((e)->sp)

#define EPTE_ACCESSED_BIT 8
#define EPTE_DIRTY_BIT    9

int pml_set_entries(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                    unsigned int order, p2m_type_t t, p2m_access_t a)
{
    unsigned long i;
    int rc = 0;

    /*
     * The first page of a region makes its table.  If there is no memory for
     * that, there may be some in a moment: too late for this page.
     */
    for ( i = 0; !rc && i < (1UL << order); i++ )
        rc = p2m->set_entry(p2m, gfn_add(gfn, i), mfn_add(mfn, i),
                            PAGE_ORDER_4K, t, a, -1);

    return rc;
}

/* How many entries of a table from number i on lead nowhere, or are unused? */
static unsigned int ept_nowhere(const ept_entry_t *table, unsigned int i,
                                unsigned int how)
{
    unsigned int nr = 0;

    for ( ; i + nr < EPT_PAGETABLE_ENTRIES; nr++ )
    {
        ept_entry_t e = { .epte = ACCESS_ONCE(table[i + nr].epte) };

        if ( is_epte_present(&e) && !is_epte_superpage(&e) &&
             (!(how & HARVEST_PRUNE) || e.a) )
            break;
    }

    return nr;
}

/*
 * Map the table of 4k entries that a GFN is in, if there is one.  (There are
 * no superpages while a domain is being logged.) See ept.h for `how`; *step,
 * if it is wanted, is the distance to the first GFN after this table, or if
 * there is none, after what leads nowhere.
 */
static ept_entry_t *ept_descend(struct p2m_domain *p2m, unsigned long gfn,
                                unsigned long end, unsigned int how,
                                unsigned long *step)
{
    unsigned int level = p2m->ept.wl;
    ept_entry_t *table;

    ASSERT(p2m_locked_by_me(p2m));

    if ( gfn > p2m->max_mapped_pfn )
    {
        if ( step )
            *step = 1UL << (level * EPT_TABLE_ORDER);
        return NULL;
    }

    table = map_domain_page(pagetable_get_mfn(p2m_get_pagetable(p2m)));

    for ( ; level; level-- )
    {
        unsigned int shift = level * EPT_TABLE_ORDER;
        unsigned int i = (gfn >> shift) & (EPT_PAGETABLE_ENTRIES - 1);
        ept_entry_t *entry = &table[i];
        ept_entry_t e = { .epte = ACCESS_ONCE(entry->epte) };
        /* Where what the entry stands for begins, it has not been seen yet. */
        bool first = !(gfn & ((1UL << shift) - 1));

        if ( !is_epte_present(&e) || is_epte_superpage(&e) ||
             ((how & HARVEST_PRUNE) && !e.a &&
              (first || how == HARVEST_REGION)) )
        {
            if ( step )
            {
                unsigned int nr = how == HARVEST_REGION
                                  ? 1 : 1 + ept_nowhere(table, i + 1, how);

                *step = (((gfn >> shift) + nr) << shift) - gfn;
            }
            unmap_domain_page(table);
            return NULL;
        }
        if ( level <= (how & HARVEST_LEVELS) && first &&
             gfn + (1UL << shift) <= end )
            clear_bit(EPTE_ACCESSED_BIT, &entry->epte);
        unmap_domain_page(table);
        table = map_domain_page(_mfn(e.mfn));
    }

    if ( step )
        *step = EPT_PAGETABLE_ENTRIES - (gfn & (EPT_PAGETABLE_ENTRIES - 1));
    return table;
}

static ept_entry_t *ept_map_l1(struct p2m_domain *p2m, unsigned long gfn)
{
    return ept_descend(p2m, gfn, ~0UL, HARVEST_ALL, NULL);
}

/* The tables seen last, by the low bits of the 2M region's number. */
struct ept_l1_cache {
    unsigned long region;
    ept_entry_t *table;
};
#define EPT_L1_CACHE 8
#define EPT_L1_CACHE_INIT { [0 ... EPT_L1_CACHE - 1] = { .region = ~0UL } }

static struct ept_l1_cache *ept_cached_l1(struct p2m_domain *p2m,
                                          struct ept_l1_cache *cache,
                                          unsigned long region)
{
    struct ept_l1_cache *c = &cache[region % EPT_L1_CACHE];

    if ( c->region != region )
    {
        if ( c->table )
            unmap_domain_page(c->table);
        c->region = region;
        c->table = ept_map_l1(p2m, region << EPT_TABLE_ORDER);
    }

    return c;
}

static void ept_drop_cache(const struct ept_l1_cache *cache)
{
    unsigned int i;

    for ( i = 0; i < EPT_L1_CACHE; i++ )
        if ( cache[i].table )
            unmap_domain_page(cache[i].table);
}

/*
 * Flags are changed by locked operations as the hardware may be setting some
 * at the same time.
 */
unsigned int ept_pml_rearm(struct p2m_domain *p2m, const uint64_t *entries,
                           unsigned int nr)
{
    struct ept_l1_cache cache[EPT_L1_CACHE] = EPT_L1_CACHE_INIT;
    const uint64_t mask = (ept_entry_t){ .d = 1, .sa_p2mt = ~0 }.epte;
    const uint64_t logged =
        (ept_entry_t){ .d = 1, .sa_p2mt = p2m_ram_logdirty }.epte;
    unsigned int i = 0, cleared = 0;

    while ( i < nr )
    {
        /* Neighbours share the look for their table. */
        unsigned long region = entries[i] >> (PAGE_SHIFT + EPT_TABLE_ORDER);
        ept_entry_t *table = ept_cached_l1(p2m, cache, region)->table;

        do {
            unsigned int k = (entries[i] >> PAGE_SHIFT) &
                             (EPT_PAGETABLE_ENTRIES - 1);

            if ( table && (table[k].epte & mask) == logged )
                cleared += !!test_and_clear_bit(EPTE_DIRTY_BIT,
                                                &table[k].epte);
        } while ( ++i < nr &&
                  entries[i] >> (PAGE_SHIFT + EPT_TABLE_ORDER) == region );
    }

    ept_drop_cache(cache);

    return cleared;
}

void ept_pml_rearm_region(struct p2m_domain *p2m, unsigned long gfn)
{
    const uint64_t mask = (ept_entry_t){ .d = 1, .sa_p2mt = ~0 }.epte;
    const uint64_t logged =
        (ept_entry_t){ .d = 1, .sa_p2mt = p2m_ram_logdirty }.epte;
    ept_entry_t *table = ept_map_l1(p2m, gfn);
    unsigned int i;

    if ( !table )
        return;

    for ( i = 0; i < EPT_PAGETABLE_ENTRIES; i++ )
        if ( (table[i].epte & mask) == logged )
            clear_bit(EPTE_DIRTY_BIT, &table[i].epte);

    unmap_domain_page(table);
}

bool ept_pml_is_ram(struct p2m_domain *p2m, unsigned long gfn)
{
    const ept_entry_t *table;
    bool ram = false;

    p2m_lock(p2m);

    table = ept_map_l1(p2m, gfn);
    if ( table )
    {
        ept_entry_t e = {
            .epte = ACCESS_ONCE(table[gfn & (EPT_PAGETABLE_ENTRIES - 1)].epte)
        };

        ram = is_epte_present(&e) && p2m_is_ram(e.sa_p2mt);
        unmap_domain_page(table);
    }

    p2m_unlock(p2m);

    return ram;
}

unsigned long ept_pml_next(struct p2m_domain *p2m, unsigned long gfn)
{
    const ept_entry_t *table;
    unsigned long step;

    p2m_lock(p2m);
    table = ept_descend(p2m, gfn, ~0UL, HARVEST_ALL, &step);
    if ( table )
    {
        unmap_domain_page(table);
        step = 0;
    }
    p2m_unlock(p2m);

    return gfn + step;
}

#define EPT_GROUP 8             /* entries in a cache line */

/* The flags that any of a group of entries has. */
static uint64_t ept_any_of(const volatile ept_entry_t *e)
{
    return e[0].epte | e[1].epte | e[2].epte | e[3].epte |
           e[4].epte | e[5].epte | e[6].epte | e[7].epte;
}

/* Clear the accessed flag of an entry that leads to memory: was it set? */
static bool ept_take_accessed(ept_entry_t *entry)
{
    ept_entry_t e = { .epte = ACCESS_ONCE(entry->epte) };

    return e.a && is_epte_present(&e) && p2m_is_ram(e.sa_p2mt) &&
           test_and_clear_bit(EPTE_ACCESSED_BIT, &entry->epte);
}

/*
 * Clear the accessed flags of those that are wanted of a table's entries, or
 * of all.  Their numbers go to a bitmap, if there is one, or are added to
 * `word` and put in a list.
 */
static always_inline unsigned int ept_clear_accessed(ept_entry_t *table,
                                                     const uint64_t *wanted,
                                                     unsigned long *accessed,
                                                     uint64_t *taken,
                                                     uint64_t word)
{
    const uint64_t flag = 1UL << EPTE_ACCESSED_BIT;
    const uint8_t *each = (const uint8_t *)wanted;
    unsigned int i, nr = 0;

    for ( i = 0; i < EPT_PAGETABLE_ENTRIES; i += EPT_GROUP )
    {
        unsigned long these = each ? each[i / EPT_GROUP]
                                   : (1U << EPT_GROUP) - 1;

        /* Most of memory was not touched. */
        if ( !these || !(ept_any_of(&table[i]) & flag) )
            continue;

        for ( ; these; these &= these - 1 )
        {
            unsigned long k = i + ffsl(these) - 1;

            if ( !ept_take_accessed(&table[k]) )
                continue;

            if ( taken )
                taken[nr] = word + (k << PAGE_SHIFT);
            else if ( accessed )
                __set_bit(k, accessed);
            nr++;
        }
    }

    return nr;
}

/*
 * Clear the flags of those of a sample, of the table whose first entry is that
 * of gfn; their numbers go to a bitmap if there is one.
 */
static unsigned int ept_sample_accessed(ept_entry_t *table, unsigned long gfn,
                                        unsigned int order, uint32_t draw,
                                        unsigned long *accessed)
{
    unsigned int i, nr = 0;

    for ( i = 0; i < EPT_PAGETABLE_ENTRIES; i += 1U << order )
    {
        unsigned int k = i + XEN_PML_DRAW((gfn + i) >> order, order, draw);

        if ( ept_take_accessed(&table[k]) )
        {
            if ( accessed )
                __set_bit(k, accessed);
            nr++;
        }
    }

    return nr;
}

struct ept_pml_harvest ept_pml_harvest(struct p2m_domain *p2m,
                                       unsigned long gfn, unsigned long end,
                                       unsigned int how,
                                       const struct ept_pml_sample *sample,
                                       unsigned long *accessed)
{
    struct ept_pml_harvest h = {};
    unsigned int order = sample->order;
    ept_entry_t *table = ept_descend(p2m, gfn, end, how, &h.step);

    if ( !table )
        return h;

    h.looked = EPT_PAGETABLE_ENTRIES >> order;
    h.accessed = order ? ept_sample_accessed(table, gfn, order, sample->draw,
                                             accessed)
                       : ept_clear_accessed(table, NULL, accessed, NULL, 0);
    if ( sample->again )
        ept_sample_accessed(table, gfn, order, sample->next, NULL);
    unmap_domain_page(table);

    return h;
}

struct ept_pml_harvest ept_pml_take_region(struct p2m_domain *p2m,
                                           unsigned long gfn, unsigned int how,
                                           const uint64_t *wanted,
                                           uint64_t *taken, unsigned int kind)
{
    const uint64_t word = ((uint64_t)gfn << PAGE_SHIFT) | kind;
    struct ept_pml_harvest h = {};
    ept_entry_t *table = ept_descend(p2m, gfn, ~0UL, how, &h.step);

    if ( !table )
        return h;

    h.looked = wanted ? bitmap_weight((const unsigned long *)wanted,
                                      EPT_PAGETABLE_ENTRIES)
                      : EPT_PAGETABLE_ENTRIES;
    h.accessed = ept_clear_accessed(table, wanted, NULL, taken, word);
    unmap_domain_page(table);

    return h;
}

unsigned int ept_pml_take(struct p2m_domain *p2m, const uint64_t *entries,
                          unsigned int nr, uint64_t *taken, unsigned int kind)
{
    struct ept_l1_cache cache[EPT_L1_CACHE] = EPT_L1_CACHE_INIT;
    const uint64_t flag = 1UL << EPTE_ACCESSED_BIT;
    unsigned int i = 0, kept = 0;

    while ( i < nr )
    {
        unsigned long region = entries[i] >> (PAGE_SHIFT + EPT_TABLE_ORDER);
        ept_entry_t *table = ept_cached_l1(p2m, cache, region)->table;

        if ( !table )
        {
            i++;
            continue;
        }

        do {
            uint64_t entry = entries[i];
            ept_entry_t *epte = &table[(entry >> PAGE_SHIFT) &
                                       (EPT_PAGETABLE_ENTRIES - 1)];

            if ( (epte->epte & flag) && is_epte_present(epte) &&
                 p2m_is_ram(epte->sa_p2mt) &&
                 test_and_clear_bit(EPTE_ACCESSED_BIT, &epte->epte) )
                taken[kept++] = entry | kind;
        } while ( ++i < nr &&
                  entries[i] >> (PAGE_SHIFT + EPT_TABLE_ORDER) == region );
    }

    ept_drop_cache(cache);

    return kept;
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

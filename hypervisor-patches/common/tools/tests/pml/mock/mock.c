/* SPDX-License-Identifier: GPL-2.0-only */
/* See mock.h. */
#include "private.h"

int mock_refs, mock_mapped;
bool mock_preempt;
unsigned long mock_checks, mock_longest;
uint64_t mock_log[MOCK_LOG], mock_taken[MOCK_LOG];
unsigned int mock_logged, mock_nr_taken;

static unsigned long since_check;

static uint8_t *machine;
static unsigned long used;
static struct page_info pages[MOCK_PAGES];

void *map_domain_page(mfn_t mfn)
{
    CHECK(mfn && mfn < used, "mfn %lx", mfn);
    mock_mapped++;
    since_check++;

    return machine + mfn * PAGE_SIZE;
}

void unmap_domain_page(const void *p)
{
    CHECK(mock_mapped-- > 0, "not mapped");
}

mfn_t domain_page_map_to_mfn(const void *p)
{
    return ((const uint8_t *)p - machine) / PAGE_SIZE;
}

struct page_info *mock_page(unsigned long mfn)
{
    pages[mfn].mfn = mfn;

    return &pages[mfn];
}

uint64_t rdtsc(void)
{
    static uint64_t now;

    return now += 100;
}

bool hypercall_preempt_check(void)
{
    mock_checks++;
    mock_longest = max(mock_longest, since_check);
    since_check = 0;

    return mock_preempt;
}

static unsigned long new_page(void)
{
    CHECK(used < MOCK_PAGES, "the machine is full");
    memset(machine + used * PAGE_SIZE, 0, PAGE_SIZE);

    return used++;
}

/* The domain's pool, never empty.  What it has not cleared is not zero. */
static struct page_info *pool_alloc(struct domain *d)
{
    struct page_info *pg = mock_page(new_page());

    memset(machine + pg->mfn * PAGE_SIZE, 0xa5, PAGE_SIZE);
    mock_pool++;
    mock_held += PAGE_SIZE;

    return pg;
}

static void pool_free(struct domain *d, struct page_info *pg)
{
    mock_pool--;
    mock_held -= PAGE_SIZE;
}

static ept_entry_t *at(mfn_t mfn, unsigned long gfn, unsigned int level)
{
    return (ept_entry_t *)(machine + mfn * PAGE_SIZE) +
           ((gfn >> (level * EPT_TABLE_ORDER)) & (EPT_PAGETABLE_ENTRIES - 1));
}

/* As Xen makes them, tables count as accessed. */
static ept_entry_t *entry_of(struct domain *d, unsigned long gfn, bool make)
{
    mfn_t mfn = d->p2m.ept.mfn;
    unsigned int level;

    for ( level = d->p2m.ept.wl; level; level-- )
    {
        ept_entry_t *e = at(mfn, gfn, level);

        if ( !(e->epte & 7) )
        {
            if ( !make )
                return NULL;
            e->epte = 7;
            e->a = 1;
            e->mfn = new_page();
        }
        mfn = e->mfn;
    }

    return at(mfn, gfn, 0);
}

ept_entry_t *mock_entry(struct domain *d, unsigned long gfn)
{
    return entry_of(d, gfn, false);
}

void *mock_populate(struct domain *d, unsigned long gfn, p2m_type_t type,
                    bool own)
{
    static unsigned long common;
    ept_entry_t *e = entry_of(d, gfn, true);

    if ( common >= used || common < d->p2m.ept.mfn )
        common = new_page();
    if ( !(e->epte & 7) )
        d->tot_pages++;
    e->epte = 7;
    e->sa_p2mt = type;
    e->mfn = own ? new_page() : common;
    if ( gfn > d->p2m.max_mapped_pfn )
        d->p2m.max_mapped_pfn = gfn;

    return machine + e->mfn * PAGE_SIZE;
}

void mock_remove(struct domain *d, unsigned long gfn)
{
    ept_entry_t *e = mock_entry(d, gfn);

    if ( e && (e->epte & 7) )
        d->tot_pages--;
    if ( e )
        e->epte = 0;
}

void mock_touch(struct domain *d, unsigned long gfn, bool write)
{
    mfn_t mfn = d->p2m.ept.mfn;
    unsigned int level;

    for ( level = d->p2m.ept.wl; ; level-- )
    {
        ept_entry_t *e = at(mfn, gfn, level);

        CHECK(e->epte & 7, "gfn %lx is not there", gfn);
        e->a = 1;
        if ( !level )
        {
            if ( write && !e->d && gfn < MOCK_DIRTY )
                __set_bit(gfn, d->dirty);
            if ( write && !e->d )
            {
                CHECK(mock_logged < MOCK_LOG, "the log is full");
                mock_log[mock_logged++] = gfn << PAGE_SHIFT;
            }
            e->d |= write;
            break;
        }
        mfn = e->mfn;
    }
}

void *mock_content(struct domain *d, unsigned long gfn)
{
    return machine + mock_entry(d, gfn)->mfn * PAGE_SIZE;
}

unsigned long mock_access(struct domain *d, unsigned long root, uint64_t va,
                          bool write)
{
    unsigned long gfn = root;
    unsigned int level;

    for ( level = 4; level; level-- )
    {
        unsigned int shift = 12 + 9 * (level - 1);
        uint64_t *e = (uint64_t *)mock_content(d, gfn) + ((va >> shift) & 511);

        mock_touch(d, gfn, true);
        if ( !(*e & 1) )
            return ~0UL;
        *e |= 0x20;
        gfn = (*e & 0x000ffffffffff000ULL) >> 12;
        if ( level > 1 && (*e & 0x80) )
        {
            gfn += (va >> 12) & ((1UL << (shift - 12)) - 1);
            break;
        }
    }
    mock_touch(d, gfn, write);

    return gfn;
}

struct domain *mock_domain(unsigned int vcpus)
{
    struct domain *d = calloc(1, sizeof(*d));
    unsigned int i;

    if ( !machine )
        machine = malloc(MOCK_PAGES * PAGE_SIZE);
    used = 1;
    mock_logged = mock_nr_taken = 0;
    mock_bytes = mock_longest = mock_checks = since_check = 0;
    d->p2m.domain = d;
    d->p2m.ept.wl = 3;
    d->p2m.ept.mfn = new_page();
    d->arch.paging.alloc_page = pool_alloc;
    d->arch.paging.free_page = pool_free;
    d->max_vcpus = vcpus;
    d->vcpu = calloc(vcpus, sizeof(*d->vcpu));
    d->dirty = calloc(MOCK_DIRTY / 64, sizeof(long));
    for ( i = 0; i < vcpus; i++ )
    {
        d->vcpu[i] = calloc(1, sizeof(**d->vcpu));
        d->vcpu[i]->domain = d;
        d->vcpu[i]->vcpu_id = i;
        d->vcpu[i]->online = true;
    }

    return d;
}

void mock_destroy(struct domain *d)
{
    unsigned int i;

    CHECK(!mock_mapped && !mock_refs && !mock_allocated && !mock_pool,
          "left: %d mapped, %d references, %ld allocations, %ld pages",
          mock_mapped, mock_refs, mock_allocated, mock_pool);
    for ( i = 0; i < d->max_vcpus; i++ )
        free(d->vcpu[i]);
    free(d->vcpu);
    free(d->dirty);
    free(d);
}

struct page_info *get_page_from_gfn(struct domain *d, unsigned long gfn,
                                    p2m_type_t *t, unsigned int q)
{
    const ept_entry_t *e;

    *t = p2m_mmio_dm;
    e = gfn <= d->p2m.max_mapped_pfn ? mock_entry(d, gfn) : NULL;
    if ( !e || !(e->epte & 7) )
        return NULL;
    *t = e->sa_p2mt;
    mock_refs++;

    return mock_page(e->mfn);
}

void paging_mark_pfn_dirty(struct domain *d, pfn_t pfn)
{
    __set_bit(pfn, d->dirty);
}

/****************** Parts of mm/pml that are not built ******************/

bool pml_dirty_leaf(struct domain *d, unsigned long *pfn,
                    unsigned long max_pfn, unsigned long *buf,
                    unsigned int *nr, bool clear)
{
    unsigned long i = DIV_ROUND_UP(*pfn, PAGES_PER_LEAF) * PAGES_PER_LEAF;

    for ( ; i <= max_pfn && i < MOCK_DIRTY; i += PAGES_PER_LEAF )
    {
        memcpy(buf, d->dirty + i / 64, PAGE_SIZE);
        *nr = bitmap_weight(buf, PAGES_PER_LEAF);
        if ( !*nr )
            continue;
        if ( clear )
            memset(d->dirty + i / 64, 0, PAGE_SIZE);
        *pfn = i;
        return true;
    }

    return false;
}

unsigned int pml_dirty_failed(struct domain *d, bool reset)
{
    unsigned int nr = d->dirty_failed;

    if ( reset )
        d->dirty_failed = 0;

    return nr;
}

void pml_hold(struct domain *d, struct pml_domain *pml)
{
    if ( !pml->op.held )
        domain_pause(d);
    pml->op.held = true;
}

void pml_release(struct domain *d, struct pml_domain *pml)
{
    if ( pml->op.held )
        domain_unpause(d);
    pml->op.held = false;
}

/* No closing fails once it has begun. */
void pml_break_off(struct domain *d, struct pml_domain *pml)
{
    CHECK(false, "broken off");
}

void pml_take(struct vcpu *v)
{
    struct pml_domain *pml = v->domain->arch.hvm.pml;

    if ( v->vcpu_id )
        return;

    memcpy(mock_taken, mock_log, mock_logged * sizeof(*mock_log));
    mock_nr_taken = mock_logged;
    mock_logged = 0;
    if ( pml->tables )
        pml_tables_logged(pml, mock_taken, mock_nr_taken);
}

void pml_drain_taken(struct vcpu *v, unsigned int reason)
{
    if ( !v->vcpu_id && v->domain->arch.hvm.pml->tables )
        pml_classify(v->domain, mock_taken, mock_nr_taken);
}

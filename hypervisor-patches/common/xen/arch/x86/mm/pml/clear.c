/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Clearing the guest's accessed flags: what a snapshot says of a round is of
 * that round only.
 *
 * A table must be one beyond doubt before it is written to.  Below a CR3 that
 * was seen some time in the round there may be other things by now.  So these
 * tables are cleared: when a round is closed, those in use by vCPUs
 * (FRAME_LIVE); and the rest (FRAME_STALE) once a vCPU loads the root that they
 * are below.  Those loads leave the guest for as long as that can be afforded.
 */
#include "private.h"
#include "tables.h"

/*
 * Bounds of what watching CR3 costs in a round: loads seen, and tables cleared
 * at them, in VM exits; and of what it costs in one exit.
 */
#define MAX_LOADS   64
#define MAX_CLEARED 1024
#define MAX_AT_ONCE 256

/*
 * From now on they tell of the next round: the processors' caches have been, or
 * are to be, invalidated before a vCPU uses the table, so the first access by
 * an entry finds the flag clear and sets it.
 */
static bool clear_table(struct domain *d, struct pml_tables *t,
                        unsigned long gfn, unsigned int level)
{
    p2m_type_t type;
    struct page_info *page = get_page_from_gfn(d, gfn, &type, 0);
    /* Not shared, not read-only. */
    bool ours = page && type == p2m_ram_logdirty;

    if ( ours )
    {
        void *table = __map_domain_page(page);
        unsigned int nr = pml_walk_clear(table, level);

        unmap_domain_page(table);
        t->cleared += nr;
        /* If the bitmap is taken to copy memory by, this is a change, too. */
        if ( nr )
            paging_mark_pfn_dirty(d, _pfn(gfn));
    }

    if ( page )
        put_page(page);

    return ours;
}

void pml_clear_accessed(struct domain *d, struct pml_tables *t,
                        unsigned long gfn, uint16_t *f)
{
    bool live = *f & FRAME_LIVE;

    *f &= ~(FRAME_CLEARED | FRAME_STALE);
    if ( !live )
        *f |= FRAME_STALE;
    else if ( clear_table(d, t, gfn, FRAME_LEVEL(*f)) )
        *f |= FRAME_CLEARED;
}

/* The same for tables below a root that is about to be used. */
static bool cf_check clear_enter(void *ctx, uint64_t gfn, unsigned int level,
                                 bool wide)
{
    struct domain *d = ctx;
    struct pml_domain *pml = d->arch.hvm.pml;
    struct pml_tables *t = pml->tables;
    uint16_t *f = pml_frame(&pml->regions, gfn);
    bool stale;

    if ( !f || !t->watching )
        return false;

    /* vCPUs that are draining change other bits. */
    spin_lock(&t->lock);
    stale = *f & FRAME_STALE;
    *f &= ~FRAME_STALE;
    spin_unlock(&t->lock);

    if ( !stale )
        return false;

    if ( !t->may_clear || !t->at_once )
    {
        t->watching = false;
        return false;
    }
    t->may_clear--;
    t->at_once--;

    if ( clear_table(d, t, gfn, level) )
    {
        spin_lock(&t->lock);
        *f |= FRAME_CLEARED;
        spin_unlock(&t->lock);
    }

    return true;
}

static const struct pml_walk_ops clear_ops = {
    .map = pml_map_table,
    .unmap = pml_unmap_table,
    .enter = clear_enter,
};

/* Have loads of CR3 leave the guest, or not. */
static void watch_vcpu(struct vcpu *v, bool watch)
{
    if ( v->arch.hvm.vmx.pml_watch_cr3 == watch )
        return;

    v->arch.hvm.vmx.pml_watch_cr3 = watch;
    hvm_update_guest_cr(v, 0);
}

/*
 * Tables that were not in use when the round was closed are so from the first
 * load of their root on; until then, no access has been made by them.
 */
void pml_cr3_loaded(struct vcpu *v)
{
    struct domain *d = v->domain;
    struct pml_tables *t = d->arch.hvm.pml->tables;
    struct pml_root root = pml_current_root(v);
    bool watching;

    pml_note_root(d->arch.hvm.pml, pml_vcpu(v), v);

    spin_lock(&t->clear_lock);

    /*
     * A monitor has loads take place after their exit (see hvm_set_cr3()), or
     * emulated without one: none tells any more what has not been used yet.
     */
    if ( v->arch.vm_event )
        t->watching = false;

    if ( t->watching && root.levels == 4 )
    {
        struct pml_walk walk;

        t->at_once = MAX_AT_ONCE;
        pml_walk_start(&walk, &clear_ops, d, &root);
        pml_walk_run(&walk, ~0U);
    }

    /*
     * Once a load was not seen, those after it cannot be the first: what is
     * stale then is so until the end of the round.
     */
    if ( !t->may_load || !--t->may_load )
        t->watching = false;
    watching = t->watching;

    spin_unlock(&t->clear_lock);

    if ( !watching )
        watch_vcpu(v, false);
}

void pml_watch_cr3(struct domain *d, struct pml_domain *pml, bool watch)
{
    unsigned int i;

    if ( !(pml->options.flags & XEN_PML_OPT_CLEAR) )
        return;

    pml->tables->watching = watch;
    pml->tables->may_load = MAX_LOADS;
    pml->tables->may_clear = MAX_CLEARED;
    for ( i = 0; i < pml->nr_vcpus; i++ )
        if ( d->vcpu[i] )
            watch_vcpu(d->vcpu[i], watch);
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

/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define ENTRIES 512u
#define SECOND 8u /* of the root's entries: far from what the guest itself uses */

static u32 tables, frames;

static volatile u64 *page(u32 i)
{
    return (volatile u64 *)kit_page(i);
}

static u64 entry(volatile u64 *to)
{
    return (u32)to | 3u;
}

/* Page tables in plenty. Each entry leads to another region of 2 MiB than its neighbours. */
static void build(void)
{
    u32 directories = (tables + ENTRIES - 1) / ENTRIES;

    for (u32 i = 0; i < tables; i++) {
        for (u32 k = 0; k < ENTRIES; k++)
            page(i)[k] = (u64)((k * ENTRIES + i) % frames) * KIT_PAGE | 3;
        page(tables + i / ENTRIES)[i % ENTRIES] = entry(page(i));
    }
    for (u32 i = 0; i < directories; i++)
        page(tables + directories)[i] = entry(page(tables + i));
    ((volatile u64 *)KIT_TABLES)[SECOND] = entry(page(tables + directories));
}

void guest_setup(void)
{
    u32 mib = kit_option("mib", 512);

    tables = kit_option("tables", 70000);
    frames = mib * 256;
    kit_paging(4, mib < 512 ? mib : 512, 0);
    build();
}

/* All of them are logged. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (u32 i = 0; i < tables; i++)
        page(i)[0] = page(i)[0];
    ((volatile u64 *)KIT_TABLES)[SECOND] = entry(page(tables + (tables + ENTRIES - 1) / ENTRIES));
}

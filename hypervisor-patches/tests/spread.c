/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define ENTRIES 512u
#define SECOND 8u /* of the root's entries: far from what the guest itself uses */
#define LARGE 0x80u

static u32 tables, directories, frames, gibs;

static volatile u64 *page(u32 i)
{
    return (volatile u64 *)kit_page(i);
}

static u64 entry(volatile u64 *to)
{
    return (u32)to | 3u;
}

/* Page tables in plenty. Each entry leads to another region of 2 MiB than its neighbours. What is left
 * of the pointers leads to pages of 1 GiB. */
static void build(void)
{
    volatile u64 *pointers = page(tables + directories);

    for (u32 i = 0; i < tables; i++) {
        for (u32 k = 0; k < ENTRIES; k++)
            page(i)[k] = (u64)((k * ENTRIES + i) % frames) * KIT_PAGE | 3;
        page(tables + i / ENTRIES)[i % ENTRIES] = entry(page(i));
    }
    for (u32 i = 0; i < ENTRIES; i++)
        pointers[i] = i < directories ? entry(page(tables + i)) : (u64)(i % gibs) << 30 | LARGE | 3;
    ((volatile u64 *)KIT_TABLES)[SECOND] = entry(pointers);
}

void guest_setup(void)
{
    u32 mib = kit_option("mib", 512);

    tables = kit_option("tables", 70000);
    directories = (tables + ENTRIES - 1) / ENTRIES;
    frames = mib * 256;
    gibs = mib > 1024 ? mib / 1024 - 1 : 1; /* all of it is below the hole for devices */
    kit_paging(4, mib < 512 ? mib : 512, 0);
    build();
}

/* All of them are logged. */
void guest_round(unsigned n, unsigned vcpu)
{
    volatile u64 *root = (volatile u64 *)KIT_TABLES;

    for (u32 i = 0; i <= tables + directories; i++)
        page(i)[0] = page(i)[0];
    root[SECOND] = root[SECOND];
}

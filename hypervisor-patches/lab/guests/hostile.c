/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define MEMORY_OP 12
#define DECREASE 1
#define POPULATE 6
#define SCHED_OP 29
#define YIELD 0
#define SHUTDOWN 2
#define REBOOT 1
#define CRASH 3
#define SELF 0x7ff0

#define ROOT 2048u           /* of the kit's page tables; the next two levels follow */
#define DIRECTORY 2050u
#define DATA 4096u
#define PRIVATE_DATA 4608u   /* a page for each address space */
#define PRIVATE_TABLES 5120u /* four tables for each */
#define BALLOON 6144u        /* pages that come and go */
#define POINTERS 7168u       /* of the many tables; their directories follow */
#define MANY 8192u           /* the tables themselves */
#define REUSED 500u          /* pages of former tables that are reused */
#define SWEPT 8192u          /* pages that are all read; a few of them are also written */
#define APART 1024u          /* distance of those, in pages: one in every second large page */
#define LATE 300u            /* the written word: Xen's first look for data is at words 0 to 15 */
#define PRIVATE_AT 0x80000000u
#define PRESENT_WRITE 3u

static u32 pages, tables, roots, loads, balloon, swept, end, at;

static u64 *frame(u32 gfn)
{
    return (u64 *)(gfn * KIT_PAGE);
}

static u64 entry(u32 gfn)
{
    return (u64)gfn * KIT_PAGE | PRESENT_WRITE;
}

/* A debug build of Xen changes the registers of the arguments. */
static u32 call(u32 number, u32 command, const void *argument)
{
    __asm__ volatile("vmcall" : "+a"(number), "+b"(command), "+c"(argument) : : "memory");
    return number;
}

static void load(u32 root)
{
    __asm__ volatile("mov %0,%%cr3" : : "r"(root * KIT_PAGE) : "memory");
}

/* Address space I: the kit's mappings, and one more page through separate tables. */
static void make_root(u32 i)
{
    u32 first = PRIVATE_TABLES + 4 * i;

    frame(first)[0] = entry(first + 1);
    frame(first + 1)[0] = entry(DIRECTORY);
    frame(first + 1)[PRIVATE_AT >> 30] = entry(first + 2);
    frame(first + 2)[0] = entry(first + 3);
    frame(first + 3)[0] = entry(PRIVATE_DATA + i);
}

void guest_setup(void)
{
    pages = kit_option("pages", 300);
    tables = kit_option("tables", 0);
    roots = kit_option("roots", 0);
    loads = kit_option("loads", 100000);
    balloon = kit_option("balloon", 0);
    swept = kit_option("swept", 0);
    end = kit_option("end", 0);
    at = kit_option("at", 0);
    kit_paging(4, kit_option("mib", 64), 0);
    for (u32 i = 0; i < roots; i++)
        make_root(i);
}

/* Each maps one page; no processor uses them, because they are for addresses above 4 GiB. */
static void make_tables(void)
{
    for (u32 i = 0; i < tables; i++) {
        frame(MANY + i)[0] = entry(DATA + i % 300);
        frame(POINTERS + 1 + i / 512)[i % 512] = entry(MANY + i);
        if (i % 512 == 0)
            frame(POINTERS)[i / 512] = entry(POINTERS + 1 + i / 512);
    }
    frame(ROOT)[1] = entry(POINTERS);
}

/* N is even, so the written value is not a present entry. */
static void drop_tables(u32 n)
{
    frame(ROOT)[1] = 0;
    load(ROOT);
    for (u32 i = 0; i < REUSED; i++)
        frame(MANY + i)[1] = n;
}

/* Each address space is seen once at a VM exit, and used many times. */
static void change_roots(void)
{
    for (u32 i = 0; i < loads; i++) {
        load(PRIVATE_TABLES + 4 * (i % roots));
        (void)*(volatile u32 *)PRIVATE_AT;
        if (i < roots)
            call(SCHED_OP, YIELD, 0);
    }
    load(ROOT);
}

/*
 * Page frames are removed in rounds with odd numbers; half of them are written after they return.
 * They are removed one by one: Xen is preempted after each, because this guest takes no interrupts,
 * and then reads the whole list again.
 */
static void change_memory(u32 n)
{
    for (u32 i = 0; i < balloon; i++) {
        u32 gfn = BALLOON + i;
        struct { u32 gfns, count, order, flags; u16 domid; } one = { (u32)&gfn, 1, 0, 0, SELF };

        if (call(MEMORY_OP, n & 1 ? DECREASE : POPULATE, &one) != 1)
            kit_say("hostile: the balloon failed\n");
    }
    for (u32 i = 0; !(n & 1) && i < balloon / 2; i++)
        frame(BALLOON + i)[0] = n;
}

/* More pages than the domain has: Xen takes back those that are zero. Reports wrong contents. */
static void sweep(u32 n)
{
    u32 wrong = 0;

    for (u32 i = 0; i < swept; i++) {
        volatile u64 *page = frame(SWEPT + i);

        (void)page[0];
        if (i % APART == 0) {
            wrong += page[LATE] != n - 1;
            page[LATE] = n;
        }
    }
    kit_report(0, wrong);
}

static void die(void)
{
    u32 why = end == 1 ? REBOOT : CRASH;
    struct { u16 limit; u32 base; } __attribute__((packed)) none = { 0, 0 };

    if (end < 3)
        call(SCHED_OP, SHUTDOWN, &why);
    __asm__ volatile("lidt %0; int3" : : "m"(none));
}

void guest_round(unsigned n, unsigned vcpu)
{
    for (u32 i = 0; i < pages; i++)
        kit_page(i)[vcpu] = n;
    if (tables && (n & 1))
        make_tables();
    else if (tables)
        drop_tables(n);
    if (roots)
        change_roots();
    if (balloon)
        change_memory(n);
    if (swept)
        sweep(n);
    if (end && n == at)
        die();
}

/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define BATCHES 1000u
#define BATCH 100u
#define XEN_VERSION 17

enum { NOTHING, CPUID, HYPERCALL, KINDS };

static u32 clock(void)
{
    u32 low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low;
}

static void one(u32 kind)
{
    u32 a = 0, b = 0, c = 0, d = 0;

    if (kind == CPUID) {
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    } else if (kind == HYPERCALL) {
        a = XEN_VERSION;
        __asm__ volatile("vmcall" : "+a"(a), "+b"(b), "+c"(c) : : "memory");
    } else {
        __asm__ volatile("nop" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
    }
}

void guest_setup(void) { }

/* The cheapest batch of exits is one without interrupts. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (u32 kind = 0; kind < KINDS; kind++) {
        u32 least = ~0u;

        for (u32 batch = 0; batch < BATCHES; batch++) {
            u32 begin = clock(), took;

            for (u32 i = 0; i < BATCH; i++)
                one(kind);
            took = clock() - begin;
            if (took < least)
                least = took;
        }
        kit_report(kind, least);
    }
}

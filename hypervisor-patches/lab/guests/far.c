/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define MEMORY_OP 12
#define ADD_TO_PHYSMAP 7
#define SELF 0x7ff0
#define SHARED_INFO 0

/* A hostile guest: it maps a page of Xen's at the highest address that a 32-bit hypercall allows. */
void guest_setup(void)
{
    struct { u16 domid, size; u32 space, idx, gfn; } add = { SELF, 0, SHARED_INFO, 0, 0xfffffffeu };
    u32 result = MEMORY_OP, command = ADD_TO_PHYSMAP;

    kit_paging(kit_option("levels", 4), 64, 0);
    if (!kit_option("far", 1))
        return;
    __asm__ volatile("vmcall" : "+a"(result), "+b"(command) : "c"(&add) : "memory");
    kit_say(result ? "far: refused\n" : "far: mapped\n");
}

/* As in touch.c. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0; i < 6000; i += 3)
        (void)kit_page(i)[0];
    for (unsigned i = 0; i < 6000; i += 7)
        kit_page(i)[vcpu] = n;
}

/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define FIRST_MIB 16 /* of the data area */

static unsigned pages;

void guest_setup(void)
{
    pages = kit_option("pages", 524288);
    kit_paging(4, FIRST_MIB + (pages + 255) / 256, 0);
}

void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0; i < pages; i++)
        (void)kit_page(i)[0];
}

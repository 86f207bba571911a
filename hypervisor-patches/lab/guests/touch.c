/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

void guest_setup(void)
{
    kit_paging(kit_option("levels", 4), 64, kit_option("large", 0));
}

/* Every third page is read, every seventh written: an accessed-flag harvest must find them. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0; i < 6000; i += 3)
        (void)kit_page(i)[0];
    for (unsigned i = 0; i < 6000; i += 7)
        kit_page(i)[vcpu] = n;
}

/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

void guest_setup(void)
{
    kit_paging(kit_option("levels", 3), 64, kit_option("large", 0));
}

void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0; i < 2560; i++)
        (void)kit_page(i)[0];
}

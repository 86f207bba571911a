/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define WRITTEN 4096u /* the first page that is written: frame 8192 */

void guest_setup(void)
{
    kit_paging(kit_option("levels", 3), 64, 0);
}

/* The same pages in each round, with other values. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0; i < 2560; i++)
        (void)kit_page(i)[0];
    for (unsigned i = 0; i < 1792; i++)
        kit_page(WRITTEN + i)[vcpu] = n;
}

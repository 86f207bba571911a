/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define PAGES 700u
#define STEP 512u
#define STEPS 4u

void guest_setup(void)
{
    kit_paging(kit_option("levels", 4), 64, kit_option("large", 0));
}

/* Each step overlaps the previous one; after the fourth step comes the first again. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0; i < PAGES; i++)
        (void)kit_page(n % STEPS * STEP + i)[0];
}

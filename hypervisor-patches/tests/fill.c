/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define MIB 256u /* pages */

static u32 mib;

/* Half of its memory is in use: what is below the data area, too. */
void guest_setup(void)
{
    mib = kit_option("mib", 64) / 2;
    kit_paging(4, mib, 0);
}

void guest_round(unsigned n, unsigned vcpu)
{
    for (u32 i = 0; i < mib * MIB - KIT_DATA / KIT_PAGE; i++)
        kit_page(i)[vcpu] = n;
}

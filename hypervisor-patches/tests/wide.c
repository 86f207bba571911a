/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define PAGES 20000u

void guest_setup(void)
{
    kit_paging(4, 128, 0);
}

/* More than libxenpml fetches at once: 8192 frames. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0; i < PAGES; i++)
        kit_page(i)[vcpu] = n;
}

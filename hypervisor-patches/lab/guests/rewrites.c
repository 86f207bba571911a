/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define GROUP 1200u

void guest_setup(void) { }

/* Group g = 1..4 is written g times. Between two writes of a page there are at least GROUP others,
 * more than two PML buffers, so that a re-arm at every flush counts each of them. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned pass = 1; pass <= 4; pass++)
        for (unsigned i = (pass - 1) * GROUP; i < 4 * GROUP; i++)
            kit_page(i)[vcpu] = n;
}

/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

void guest_setup(void) { }

void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned pass = 0; pass < 20; pass++)
        for (unsigned i = 0; i < 300; i++)
            kit_page(i)[n & 4095]++;
    for (unsigned i = 0; i < 1500; i++)
        kit_page(1000 + i)[vcpu]++;
    for (unsigned i = 0; i < 200; i++)
        (void)kit_page(4000 + i)[0];
}

/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

void guest_setup(void)
{
    kit_start_second();
}

void guest_round(unsigned n, unsigned vcpu)
{
    unsigned first = vcpu ? 2000 : 0, pages = vcpu ? 600 : 1000;

    for (unsigned i = 0; i < pages; i++)
        kit_page(first + i)[0] = n;
}

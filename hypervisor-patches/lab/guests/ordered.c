/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define PAGES 2003u /* prime, so that every stride visits each page once */

void guest_setup(void) { }

/* Step i writes page (i * 769 + n) mod PAGES: an order that no sorting yields. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned i = 0, at = n % PAGES; i < PAGES; i++) {
        kit_page(at)[vcpu] = n;
        at = (at + 769) % PAGES;
    }
}

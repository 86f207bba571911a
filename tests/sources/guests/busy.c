/* SPDX-License-Identifier: Apache-2.0
 * A guest that neither sleeps nor ends: it writes to its pages in turn until it is ended. */
#define PAGE 4096
#define PAGES 1024

static volatile char pages[PAGES][PAGE];

int main(void)
{
    for (;;)
        for (int i = 0; i < PAGES; i++)
            pages[i][0]++;
}

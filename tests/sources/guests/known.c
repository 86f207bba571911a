/* SPDX-License-Identifier: Apache-2.0
 * A guest whose every page access on its buffers is known: see test_recorder.py. */
#include "pmlkit.h"

#include <string.h>
#include <sys/mman.h>

#define PAGE 4096
#define DATA_PAGES 1200 /* more than two PML buffers */
#define CODE_PAGES 9

static volatile char *pages(int count, int protection)
{
    return mmap(NULL, (size_t)count * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void)
{
    volatile char *data = pages(DATA_PAGES, PROT_READ | PROT_WRITE);
    volatile char *code = pages(CODE_PAGES, PROT_READ | PROT_WRITE | PROT_EXEC);
    volatile char sum = 0;
    for (int i = 0; i < CODE_PAGES; i++)
        code[i * PAGE] = (char)0xc3; /* ret */
    pml_region("data", (void *)data, (size_t)DATA_PAGES * PAGE);
    pml_region("code", (void *)code, (size_t)CODE_PAGES * PAGE);

    pml_phase("backwards"); /* every page written once, the last one first */
    for (int i = DATA_PAGES - 1; i >= 0; i--)
        data[i * PAGE] = 1;
    pml_phase("quarter"); /* a quarter written, the rest read */
    for (int i = 0; i < DATA_PAGES; i++)
        if (i < DATA_PAGES / 4)
            data[i * PAGE] = 2;
        else
            sum += data[i * PAGE];
    pml_phase("crossing"); /* a write of 8 bytes on the seam of two pages */
    *(volatile long *)(data + 7 * PAGE - 4) = 3;
    pml_phase("remapped"); /* the same address leads to another frame after mremap */
    mremap((void *)(data + 20 * PAGE), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
           (void *)(data + 10 * PAGE));
    data[10 * PAGE] = 4;
    pml_phase("run");
    for (int i = 0; i < CODE_PAGES; i++)
        ((void (*)(void))(code + i * PAGE))();
    pml_phase("over");
    pml_expect("backwards", "data", "written", DATA_PAGES);
    pml_expect("quarter", "data", "touched", DATA_PAGES);
    pml_expect("quarter", "data", "written", DATA_PAGES / 4);
    return 0;
}

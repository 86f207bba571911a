/* SPDX-License-Identifier: Apache-2.0
 * sparse SIZE_MIB PHASE_MS STEP: a buffer is read page by page, over and over: all its pages
 * (phases all, all2), every STEP-th page (sparse), none (idle). Nothing of it is written.
 * The pages of phase sparse are the region "picked" as well. */
#include "pace.h"

static void read_pages(char *buffer, long pages, long step, long phase_ms)
{
    long long stop = now_ns() + phase_ms * MS;
    long i;

    do {
        for (i = 0; i < pages; i += step)
            read_page(buffer, i);
        sleep_until_ns(now_ns() + MS);
    } while (now_ns() < stop);
}

static void phase(const char *name, char *buffer, long pages, long step, long phase_ms)
{
    long read = step ? (pages + step - 1) / step : 0;

    pml_expect(name, "buffer", "read", read);
    pml_expect(name, "buffer", "written", 0);
    begin(name);
    if (step)
        read_pages(buffer, pages, step, phase_ms);
    else
        sleep_until_ns(now_ns() + phase_ms * MS);
}

int main(int argc, char **argv)
{
    long pages = argument(argc, argv, 1, "size_mib", 1, 1 << 20) * 256, i;
    long phase_ms = argument(argc, argv, 2, "phase_ms", 0, 1000000);
    long step = argument(argc, argv, 3, "step", 1, 1 << 20);
    char *buffer = pml_buffer("buffer", pages * PML_PAGE);

    for (i = 0; i < pages; i += step)
        pml_frames("picked", buffer + i * PML_PAGE, PML_PAGE);
    phase("all", buffer, pages, 1, phase_ms);
    pml_expect("sparse", "picked", "read", (pages + step - 1) / step);
    phase("sparse", buffer, pages, step, phase_ms);
    phase("idle", buffer, pages, 0, phase_ms);
    phase("all2", buffer, pages, 1, phase_ms);
    return done("sparse");
}

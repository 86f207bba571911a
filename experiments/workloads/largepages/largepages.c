/* SPDX-License-Identifier: Apache-2.0
 * largepages SIZE_MIB PHASE_MS: a buffer that the kernel backs by pages of 2 MiB. Phases: all of it
 * is read 4 KiB by 4 KiB (read), one such page in each large one (sparse), nothing (idle), all of
 * it is written (write). It ends with status 1 if the kernel has no large pages to give. */
#include "pace.h"

#define LARGE (2ul << 20)
#define PER_LARGE (LARGE / PML_PAGE)

/* Bytes of this process that large pages back. */
static size_t backed_by_large(void)
{
    char line[256];
    size_t kib, sum = 0;
    FILE *f = fopen("/proc/self/smaps", "r");

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "AnonHugePages: %zu", &kib) == 1)
            sum += kib << 10;
    if (f)
        fclose(f);
    return sum;
}

static char *large_buffer(size_t bytes)
{
    char *start = mmap(NULL, bytes + LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
    size_t i;

    if (start == MAP_FAILED) {
        perror("largepages: no memory");
        exit(1);
    }
    start += -(uintptr_t)start % LARGE;
    madvise(start, bytes, MADV_HUGEPAGE);
    for (i = 0; i < bytes; i += LARGE)
        start[i] = 1;
    if (backed_by_large() < bytes) {
        fprintf(stderr, "largepages: the kernel gave %zu of %zu bytes as large pages\n",
                backed_by_large(), bytes);
        exit(1);
    }
    if (mlock(start, bytes))
        perror("largepages: mlock");
    pml_frames("buffer", start, bytes);
    for (i = 0; i < bytes; i += LARGE)
        pml_frames("picked", start + i, PML_PAGE);
    return start;
}

static void touch(char *buffer, long pages, long step, int writing, long phase_ms)
{
    long long stop = now_ns() + phase_ms * MS;
    long i;

    do {
        for (i = 0; i < pages; i += step)
            if (writing)
                write_page(buffer, i);
            else
                read_page(buffer, i);
        sleep_until_ns(now_ns() + MS);
    } while (now_ns() < stop);
}

int main(int argc, char **argv)
{
    size_t mib = argument(argc, argv, 1, "size_mib", 1, 1 << 20);
    size_t bytes = ((mib << 20) + LARGE - 1) / LARGE * LARGE;
    long phase_ms = argument(argc, argv, 2, "phase_ms", 0, 1000000), pages = bytes / PML_PAGE;
    char *buffer = large_buffer(bytes);

    pml_expect("read", "buffer", "read", pages);
    pml_expect("read", "buffer", "written", 0);
    begin("read");
    touch(buffer, pages, 1, 0, phase_ms);
    pml_expect("sparse", "buffer", "read", pages / PER_LARGE);
    pml_expect("sparse", "picked", "read", pages / PER_LARGE);
    begin("sparse");
    touch(buffer, pages, PER_LARGE, 0, phase_ms);
    pml_expect("idle", "buffer", "touched", 0);
    begin("idle");
    sleep_until_ns(now_ns() + phase_ms * MS);
    pml_expect("write", "buffer", "written", pages);
    begin("write");
    touch(buffer, pages, 1, 1, phase_ms);
    return done("largepages");
}

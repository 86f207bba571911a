/* SPDX-License-Identifier: Apache-2.0
 * pressure SMALL LARGE RATE PHASE_MS: writes pages chosen evenly at random, RATE a millisecond:
 * out of the first SMALL MiB of a buffer, then out of all its LARGE MiB, then out of the first
 * again. The buffer is not locked: a guest that lacks the memory swaps. Each phase begins with a
 * pass over its part. */
#include "pace.h"

static uint64_t state = 1;

static uint64_t next_random(void) /* xorshift64 */
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void run(const char *name, char *buffer, size_t pages, long rate, long phase_ms)
{
    long long start;
    size_t page;
    long tick, i;

    begin(name);
    for (page = 0; page < pages; page++)
        write_page(buffer, page);
    start = now_ns();
    for (tick = 0; tick < phase_ms; tick++) {
        for (i = 0; i < rate; i++)
            write_page(buffer, next_random() % pages);
        sleep_until_ns(start + (tick + 1) * MS);
    }
}

int main(int argc, char **argv)
{
    size_t small = argument(argc, argv, 1, "small", 1, 4096) << 8;
    size_t large = argument(argc, argv, 2, "large", 1, 4096) << 8;
    long rate = argument(argc, argv, 3, "rate", 1, 100000);
    long phase_ms = argument(argc, argv, 4, "phase_ms", 1, 1000000);
    char *buffer = mmap(NULL, large * PML_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (buffer == MAP_FAILED || small > large)
        return fputs("pressure: LARGE should be SMALL at least, and what can be mapped\n", stderr), 2;
    madvise(buffer, large * PML_PAGE, MADV_NOHUGEPAGE);
    run("small1", buffer, small, rate, phase_ms);
    run("large", buffer, large, rate, phase_ms);
    run("small2", buffer, small, rate, phase_ms);
    return done("pressure");
}

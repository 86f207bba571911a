/* SPDX-License-Identifier: Apache-2.0
 * moving SIZE_MIB SET STEP TICK_MS TICKS: in each tick SET pages of a buffer are read, none is
 * written. Phases: the same pages in all ticks (rest); pages further on by STEP in each tick, from
 * the buffer's start round to it again (slide); and a set that jumps to another place every 20
 * ticks, each of its pages at a place of its own (jump). */
#include "pace.h"

#define TICKS_OF_JUMP 20

static char *buffer, *seen;
static long pages, set, step, tick_ms, ticks;

/* The I-th page of the set in a tick. */
static long page_of(int way, long tick, long i)
{
    if (way == 0)
        return i;
    if (way == 1)
        return (tick * step + i) % pages;
    /* 2654435761 is prime: a jump's pages are apart, as long as the buffer is larger. */
    return (long)(((unsigned long)(tick / TICKS_OF_JUMP * set + i) * 2654435761ul) % pages);
}

static long distinct(int way)
{
    long tick, i, n = 0;

    memset(seen, 0, pages);
    for (tick = 0; tick < ticks; tick++)
        for (i = 0; i < set; i++)
            if (!seen[page_of(way, tick, i)])
                seen[page_of(way, tick, i)] = 1, n++;
    return n;
}

static void run(int way)
{
    long long start = now_ns();
    long tick, i;

    for (tick = 0; tick < ticks; tick++) {
        for (i = 0; i < set; i++)
            read_page(buffer, page_of(way, tick, i));
        sleep_until_ns(start + (tick + 1) * tick_ms * MS);
    }
}

int main(int argc, char **argv)
{
    const char *phases[] = { "rest", "slide", "jump" };
    int way;

    pages = argument(argc, argv, 1, "size_mib", 1, 1 << 20) * 256;
    set = argument(argc, argv, 2, "set", 1, pages);
    step = argument(argc, argv, 3, "step", 1, pages);
    tick_ms = argument(argc, argv, 4, "tick_ms", 0, 1000000);
    ticks = argument(argc, argv, 5, "ticks", 1, 1000000);
    seen = malloc(pages);
    if (!seen) {
        perror("moving");
        return 1;
    }
    buffer = pml_buffer("buffer", pages * PML_PAGE);
    for (way = 0; way < 3; way++) {
        pml_expect(phases[way], "buffer", "read", distinct(way));
        pml_expect(phases[way], "buffer", "written", 0);
        begin(phases[way]);
        run(way);
    }
    return done("moving");
}

/* SPDX-License-Identifier: Apache-2.0
 * semispace LIVE TICK_MS TICKS FLIPS: a copying garbage collector. There are two spaces of LIVE
 * pages. The program writes into one of them, TICKS times in ticks of TICK_MS. A collection then
 * reads all of that space, writes the other, and the two change places. */
#include "pace.h"

static void mutate(char *space, long live, long tick_ms, long ticks)
{
    long long start = now_ns();
    long tick, i;

    for (tick = 0; tick < ticks; tick++) {
        for (i = 0; i < live; i++)
            write_page(space, i);
        sleep_until_ns(start + (tick + 1) * tick_ms * MS);
    }
}

static void collect(const char *from, char *to, long live)
{
    long i;

    for (i = 0; i < live; i++) {
        read_page(from, i);
        write_page(to, i);
    }
}

int main(int argc, char **argv)
{
    const char *names[] = { "east", "west" };
    long live = argument(argc, argv, 1, "live", 1, 1 << 18);
    long tick_ms = argument(argc, argv, 2, "tick_ms", 0, 1000000);
    long ticks = argument(argc, argv, 3, "ticks", 1, 1000000);
    long flips = argument(argc, argv, 4, "flips", 1, 1000), i;
    char *space[2], phase[32];
    int from, to;

    for (i = 0; i < 2; i++)
        space[i] = pml_buffer(names[i], live * PML_PAGE);
    for (i = 0; i < flips; i++) {
        from = i % 2, to = 1 - from;
        snprintf(phase, sizeof(phase), "mutate%ld", i + 1);
        pml_expect(phase, names[from], "written", live);
        pml_expect(phase, names[to], "touched", 0);
        begin(phase);
        mutate(space[from], live, tick_ms, ticks);
        snprintf(phase, sizeof(phase), "collect%ld", i + 1);
        pml_expect(phase, names[from], "read", live);
        pml_expect(phase, names[from], "written", 0);
        pml_expect(phase, names[to], "written", live);
        begin(phase);
        collect(space[from], space[to], live);
    }
    return done("semispace");
}

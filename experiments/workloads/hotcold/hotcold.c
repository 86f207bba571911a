/* SPDX-License-Identifier: Apache-2.0
 * hotcold HOT COLD SWEEP_MS PHASE_MS: HOT pages are written every millisecond, COLD pages are
 * written in turn, all of them once in SWEEP_MS. So a window T sees about
 * HOT + COLD * min(1, T / SWEEP_MS) pages, and one that holds a whole sweep exactly HOT + COLD.
 * Phase "hot" leaves the cold pages alone. */
#include "pace.h"

static char *hot, *cold;
static long n_hot, n_cold, sweep_ms;

/* A tick (a millisecond): all hot pages, and the cold ones whose turn it is. Ticks follow the
 * clock: one that comes late does not make the next sweep longer. */
static void run(long phase_ms, int sweeping)
{
    long long start = now_ns();
    long tick, i, next = 0, due;

    for (tick = 0; tick < phase_ms; tick++) {
        for (i = 0; i < n_hot; i++)
            write_page(hot, i);
        due = (tick % sweep_ms + 1) * n_cold / sweep_ms;
        for (; sweeping && next < due; next++)
            write_page(cold, next);
        if (tick % sweep_ms == sweep_ms - 1)
            next = 0;
        sleep_until_ns(start + (tick + 1) * MS);
    }
}

int main(int argc, char **argv)
{
    long phase_ms;

    n_hot = argument(argc, argv, 1, "hot", 1, 1 << 18);
    n_cold = argument(argc, argv, 2, "cold", 1, 1 << 18);
    sweep_ms = argument(argc, argv, 3, "sweep_ms", 1, 1000000);
    phase_ms = argument(argc, argv, 4, "phase_ms", sweep_ms, 1000000);
    hot = pml_buffer("hot", n_hot * PML_PAGE);
    cold = pml_buffer("cold", n_cold * PML_PAGE);
    pml_expect("hotcold", "hot", "written", n_hot);
    pml_expect("hotcold", "cold", "written", n_cold);
    pml_expect("hot", "hot", "written", n_hot);
    pml_expect("hot", "cold", "touched", 0);
    begin("hotcold");
    run(phase_ms, 1);
    begin("hot");
    run(phase_ms / 2, 0);
    return done("hotcold");
}

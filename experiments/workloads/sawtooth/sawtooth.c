/* SPDX-License-Identifier: Apache-2.0
 * sawtooth LOW HIGH PERIOD_MS TEETH: every millisecond the first K pages are written; K grows
 * evenly from LOW to HIGH in PERIOD_MS, falls back, and grows again, TEETH times. */
#include "pace.h"

static void tooth(char *buffer, long low, long high, long period_ms)
{
    long long start = now_ns();
    long tick, i, k;

    for (tick = 0; tick < period_ms; tick++) {
        k = low + (high - low) * (tick + 1) / period_ms;
        for (i = 0; i < k; i++)
            write_page(buffer, i);
        sleep_until_ns(start + (tick + 1) * MS);
    }
}

int main(int argc, char **argv)
{
    long low = argument(argc, argv, 1, "low", 1, 1 << 18);
    long high = argument(argc, argv, 2, "high", low, 1 << 18);
    long period_ms = argument(argc, argv, 3, "period_ms", 1, 1000000);
    long teeth = argument(argc, argv, 4, "teeth", 1, 1000), i;
    char *buffer = pml_buffer("buffer", high * PML_PAGE), phase[32];

    for (i = 1; i <= teeth; i++) {
        snprintf(phase, sizeof(phase), "tooth%ld", i);
        pml_expect(phase, "buffer", "written", high);
        begin(phase);
        tooth(buffer, low, high, period_ms);
    }
    return done("sawtooth");
}

/* SPDX-License-Identifier: Apache-2.0
 * burst BASE PEAK SCALE: BASE pages are written every millisecond; now and then a burst writes
 * more, unlike the one before in height, length and the time since. PEAK is the highest one;
 * SCALE (percent) stretches the times. */
#include "pace.h"

static const struct { long rest_ms, burst_ms, percent; } bursts[] = {
    { 700, 150, 40 }, { 1200, 80, 100 }, { 300, 250, 60 }, { 900, 60, 85 }, { 400, 120, 25 },
    { 150, 90, 70 },
};
#define BURSTS (sizeof(bursts) / sizeof(bursts[0]))

static char *base, *peak;
static long n_base;

static void run(long ms, long more)
{
    long long start = now_ns();
    long tick, i;

    for (tick = 0; tick < ms; tick++) {
        for (i = 0; i < n_base; i++)
            write_page(base, i);
        for (i = 0; i < more; i++)
            write_page(peak, i);
        sleep_until_ns(start + (tick + 1) * MS);
    }
}

static void phase(const char *kind, size_t number, long ms, long more)
{
    char name[32];

    snprintf(name, sizeof(name), "%s%zu", kind, number);
    pml_expect(name, "base", "written", n_base);
    pml_expect(name, "peak", "written", more);
    begin(name);
    run(ms, more);
}

int main(int argc, char **argv)
{
    long n_peak, scale;
    size_t i;

    n_base = argument(argc, argv, 1, "base", 1, 1 << 18);
    n_peak = argument(argc, argv, 2, "peak", 1, 1 << 18);
    scale = argument(argc, argv, 3, "scale", 1, 100000);
    base = pml_buffer("base", n_base * PML_PAGE);
    peak = pml_buffer("peak", n_peak * PML_PAGE);
    for (i = 0; i < BURSTS; i++) {
        phase("base", i + 1, bursts[i].rest_ms * scale / 100 + 1, 0);
        phase("peak", i + 1, bursts[i].burst_ms * scale / 100 + 1,
              n_peak * bursts[i].percent / 100);
    }
    return done("burst");
}

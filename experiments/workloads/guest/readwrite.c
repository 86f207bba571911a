/* SPDX-License-Identifier: Apache-2.0
 * readwrite RRWW SIZE_MIB PHASE_MS STRIDE: one buffer, read (R) or written (W) from end to end,
 * over and over, in phases read1, write1, ... Each takes PHASE_MS, and one whole pass at least.
 * The buffer has SIZE_MIB, or half of the memory that is available if that is less. */
#include "pace.h"

static unsigned long available_mib(void)
{
    char line[256];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib >> 10;
}

static void expect(const char *phase, int writing, unsigned long pages)
{
    pml_expect(phase, "buffer", "read", writing ? 0 : pages);
    pml_expect(phase, "buffer", "written", writing ? pages : 0);
}

static void pass(char *buffer, size_t bytes, size_t stride, int writing)
{
    volatile unsigned long *at;
    size_t i;

    for (i = 0; i < bytes; i += stride) {
        at = (volatile unsigned long *)(buffer + i);
        if (writing)
            *at = i;
        else
            pace_sum += *at;
    }
}

int main(int argc, char **argv)
{
    const char *order = argc > 1 ? argv[1] : "", *c;
    size_t mib = argument(argc, argv, 2, "size_mib", 1, 1 << 20), bytes;
    long phase_ms = argument(argc, argv, 3, "phase_ms", 0, 1000000);
    long stride = argument(argc, argv, 4, "stride", 8, PML_PAGE) & ~7l, done_of[2] = { 0, 0 };
    char phase[16], *buffer;
    long long stop;
    int writing;

    if (mib > available_mib() / 2)
        printf("readwrite: %zu MiB of the %zu asked for\n", available_mib() / 2, mib),
            mib = available_mib() / 2;
    bytes = mib << 20;
    buffer = pml_buffer("buffer", bytes);
    for (c = order; *c; c++) {
        writing = *c == 'W';
        snprintf(phase, sizeof(phase), "%s%ld", writing ? "write" : "read", ++done_of[writing]);
        expect(phase, writing, bytes / PML_PAGE);
        begin(phase);
        stop = now_ns() + phase_ms * MS;
        do
            pass(buffer, bytes, stride, writing);
        while (now_ns() < stop);
    }
    return done("readwrite");
}

/* SPDX-License-Identifier: Apache-2.0
 * For the synthetic workloads: touch pages, keep a pace, read arguments. */
#ifndef PACE_H
#define PACE_H
#include <errno.h>
#include <time.h>

#include "pmlkit.h"

#define MS 1000000ll

static volatile unsigned long pace_sum; /* what was read goes here, so that it is read */

static inline void read_page(const char *start, size_t page)
{
    pace_sum += *(volatile const unsigned long *)(start + page * PML_PAGE);
}

static inline void write_page(char *start, size_t page)
{
    *(volatile unsigned long *)(start + page * PML_PAGE) = page;
}

static inline long long now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static inline void sleep_until_ns(long long ns)
{
    struct timespec t = { ns / 1000000000ll, ns % 1000000000ll };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* Argument I as a whole number within [LOW, HIGH], or end with a message. */
static inline long argument(int argc, char **argv, int i, const char *name, long low, long high)
{
    char *rest = NULL;
    long value = i < argc ? strtol(argv[i], &rest, 10) : 0;

    if (!rest || *rest || value < low || value > high) {
        fprintf(stderr, "%s: argument %d (%s) should be %ld to %ld\n", argv[0], i, name, low, high);
        exit(2);
    }
    return value;
}
/* Begin a phase with a quiet moment on both sides of the mark: no recording window of up to
 * PAUSE_MS then sees accesses of two phases, and counts per phase are exact. (The lab's dom0 hears
 * of a mark some 20 ms later, and ends its round there.) */
#define PAUSE_MS 50ll

static inline void begin(const char *phase)
{
    sleep_until_ns(now_ns() + PAUSE_MS * MS);
    pml_phase(phase);
    sleep_until_ns(now_ns() + PAUSE_MS * MS);
}

static inline int done(const char *name)
{
    begin("done");
    printf("%s: done\n", name);
    return 0;
}
#endif

/* SPDX-License-Identifier: Apache-2.0
 * zipf PAGES S RATE PHASE_MS: RATE reads a millisecond; the page of rank r (the r-th of the
 * buffer) has a share of 1 / r^S. The sequence is always the same, so it is run through twice:
 * first on paper, to say how many pages of each region it will touch, then in earnest. */
#include <math.h>

#include "pace.h"

static double *share; /* of the pages up to a rank, summed up */
static long pages;

/* xorshift64: the same sequence on every machine */
static double next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (*state >> 11) * 0x1p-53;
}

static void prepare(double s)
{
    double sum = 0;
    long r;

    share = malloc(pages * sizeof(*share));
    for (r = 0; r < pages; r++)
        share[r] = sum += pow(r + 1, -s);
    for (r = 0; r < pages; r++)
        share[r] /= sum;
}

static long rank_of(double u)
{
    long low = 0, high = pages - 1, middle;

    while (low < high) {
        middle = (low + high) / 2;
        if (share[middle] > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Ranks 1-16, 17-256 and the rest: pages that lie in [from, to). */
static const struct { const char *name; long from, to; } parts[] = {
    { "top", 0, 16 }, { "middle", 16, 256 }, { "tail", 256, 1l << 30 },
};

static long end_of(int part)
{
    return parts[part].to < pages ? parts[part].to : pages;
}

static void predict(long reads)
{
    char *seen = calloc(pages, 1);
    uint64_t state = 1;
    long i, n;
    int part;

    for (i = 0; i < reads; i++)
        seen[rank_of(next_random(&state))] = 1;
    for (part = 0; part < 3; part++) {
        for (n = 0, i = parts[part].from; i < end_of(part); i++)
            n += seen[i];
        pml_expect("zipf", parts[part].name, "read", n);
        pml_expect("zipf", parts[part].name, "written", 0);
    }
    free(seen);
}

int main(int argc, char **argv)
{
    long rate, phase_ms, tick, i;
    uint64_t state = 1;
    long long start;
    char *buffer;
    int part;

    pages = argument(argc, argv, 1, "pages", 512, 1 << 18);
    rate = argument(argc, argv, 3, "rate", 1, 100000);
    phase_ms = argument(argc, argv, 4, "phase_ms", 1, 1000000);
    prepare(atof(argv[2]));
    buffer = mmap(NULL, pages * PML_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    if (buffer == MAP_FAILED)
        return perror("zipf"), 1;
    madvise(buffer, pages * PML_PAGE, MADV_NOHUGEPAGE);
    for (part = 0; part < 3; part++)
        pml_region(parts[part].name, buffer + parts[part].from * PML_PAGE,
                   (end_of(part) - parts[part].from) * PML_PAGE);
    predict(rate * phase_ms);
    begin("zipf");
    start = now_ns();
    for (tick = 0; tick < phase_ms; tick++) {
        for (i = 0; i < rate; i++)
            read_page(buffer, rank_of(next_random(&state)));
        sleep_until_ns(start + (tick + 1) * MS);
    }
    return done("zipf");
}

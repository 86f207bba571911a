/* SPDX-License-Identifier: Apache-2.0
 * What a workload can tell the recorder. Outside a recorded guest everything here does nothing.
 *
 *     #include "pmlkit.h"
 *     char *p = pml_buffer("buffer", bytes);         // mapped, touched, frames reported
 *     pml_expect("write", "buffer", "written", n);   // phase "write" will write n of its pages
 *     pml_phase("write");                            // the phase begins
 *
 * A report is a line on the guest's second serial port; a marker is an instruction that does
 * nothing but which the recorder sees, and so knows the moment.
 */
#ifndef PMLKIT_H
#define PMLKIT_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PML_PAGE 4096ul
/* nopl 0x4d50LL00(%rax): bytes 0f 1f 80 00 LL 50 4d; a no-op on any x86-64 */
#define PML_MARK(ll) __asm__ volatile("nopl 0x4d50" #ll "00(%%rax)" ::: "memory")
#define PML_MARK_ARM() PML_MARK(01)
#define PML_MARK_PHASE() PML_MARK(02)
#define PML_MARK_SAMPLE() PML_MARK(03)
#define PML_MARK_END() PML_MARK(04)

/* Only the guest's /init sets PMLKIT_REPORT: a workload that is run elsewhere must not write to
 * a real machine's serial port. */
static inline int pml_fd(void)
{
    static int fd = -2;
    const char *path = getenv("PMLKIT_REPORT");

    if (fd == -2)
        fd = path ? open(path, O_WRONLY | O_NOCTTY | O_APPEND | O_CLOEXEC) : -1;
    return fd;
}

/* Write one line at once, so that lines of several processes do not mix. */
__attribute__((format(printf, 1, 2))) static inline void pml_line(const char *format, ...)
{
    char line[512];
    va_list values;
    int n;

    if (pml_fd() < 0)
        return;
    va_start(values, format);
    n = vsnprintf(line, sizeof(line) - 1, format, values);
    va_end(values);
    if (n < 0 || n >= (int)sizeof(line) - 1)
        return;
    line[n++] = '\n';
    if (write(pml_fd(), line, n) != n)
        perror("pmlkit: report");
}

/* The phase NAME begins (no blanks in the name); it lasts until the next. */
static inline void pml_phase(const char *name)
{
    pml_line("phase %s", name);
    PML_MARK_PHASE();
}

/* Over the whole of PHASE, PAGES pages of REGION are "read", "written" or "touched" (either). */
static inline void pml_expect(const char *phase, const char *region, const char *kind,
                              unsigned long pages)
{
    pml_line("expect %s %s %s %lu", phase, region, kind, pages);
}

static inline int pml_by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Say which guest frames back a range of whole pages, as it is now. */
static inline void pml_frames(const char *name, void *start, size_t bytes)
{
    size_t i, j, n = (bytes + PML_PAGE - 1) / PML_PAGE;
    uint64_t *frames;
    int map;

    if (pml_fd() < 0)
        return;
    map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    frames = malloc(n * sizeof(*frames));
    if (map < 0 || !frames ||
        pread(map, frames, n * 8, (uintptr_t)start / PML_PAGE * 8) != (ssize_t)(n * 8)) {
        perror("pmlkit: the frames of a region cannot be read");
        exit(1);
    }
    for (i = 0; i < n; i++)
        frames[i] &= (1ull << 55) - 1;
    qsort(frames, n, sizeof(*frames), pml_by_value);
    for (i = 0; i < n; i = j) {
        for (j = i + 1; j < n && frames[j] == frames[i] + (j - i); j++)
            ;
        pml_line("region %s %llu %zu", name, (unsigned long long)frames[i], j - i);
    }
    free(frames);
    close(map);
}

/* Touch a range of whole pages (where it was never touched, zeroes are written), lock it, so that
 * its frames stay what they are, and say which they are. */
static inline void pml_region(const char *name, void *start, size_t bytes)
{
    size_t i, n = (bytes + PML_PAGE - 1) / PML_PAGE;
    volatile char *page = start;

    madvise(start, n * PML_PAGE, MADV_NOHUGEPAGE);
    if (mlock(start, n * PML_PAGE)) { /* it touches the pages, too */
        perror("pmlkit: mlock");
        for (i = 0; i < n; i++)
            page[i * PML_PAGE] = page[i * PML_PAGE];
    }
    pml_frames(name, start, bytes);
}

/* Map a private buffer of whole 4 KiB pages and report it as a region. */
static inline char *pml_buffer(const char *name, size_t bytes)
{
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (start == MAP_FAILED) {
        perror("pmlkit: no memory for a buffer");
        exit(1);
    }
    madvise(start, bytes, MADV_NOHUGEPAGE); /* before the first touch: it decides the page size */
    pml_region(name, start, bytes);
    return start;
}
#endif

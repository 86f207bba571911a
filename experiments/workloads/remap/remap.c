/* SPDX-License-Identifier: Apache-2.0
 * remap SIZE_MIB CYCLES PAUSE_MS: page tables that live shortly. Phases: a shared buffer is read
 * through one mapping (still, still2); it is mapped at a new place each time, read and unmapped, so
 * that its page tables are freed (remap); and memory of its own is mapped, written and unmapped in
 * between, so that the frames of those tables become data and the other way round (anonymous).
 * In every phase all pages of the buffer are read, and none is written. */
#define _GNU_SOURCE
#include "pace.h"

#define APART (1ul << 30) /* so far apart, mappings share no leaf table and no directory */

static size_t bytes;
static int memory;

static void *map(void *at, int fd, int protection)
{
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *start = mmap(at, bytes, protection, flags | (at ? MAP_FIXED : 0), fd, 0);

    if (start == MAP_FAILED) {
        perror("remap: no memory");
        exit(1);
    }
    madvise(start, bytes, MADV_NOHUGEPAGE);
    return start;
}

static void read_all(const char *start)
{
    size_t i;

    for (i = 0; i < bytes / PML_PAGE; i++)
        read_page(start, i);
}

static void *place(long cycle)
{
    return (void *)(0x100000000000ul + cycle % 64 * APART);
}

static void remap(long cycle, int with_data)
{
    char *start = map(place(cycle), memory, PROT_READ), *data;
    size_t i;

    read_all(start);
    munmap(start, bytes);
    if (!with_data)
        return;
    data = map(place(cycle + 1), -1, PROT_READ | PROT_WRITE);
    for (i = 0; i < bytes / PML_PAGE; i += 2)
        write_page(data, i);
    madvise(data, bytes / 2, MADV_DONTNEED);
    munmap(data, bytes);
}

static void expect(const char *phase)
{
    pml_expect(phase, "buffer", "read", bytes / PML_PAGE);
    pml_expect(phase, "buffer", "written", 0);
    begin(phase);
}

int main(int argc, char **argv)
{
    long cycles, pause_ms, cycle;
    char *buffer;
    int way;

    bytes = argument(argc, argv, 1, "size_mib", 1, 1 << 20) << 20;
    cycles = argument(argc, argv, 2, "cycles", 1, 1000000);
    pause_ms = argument(argc, argv, 3, "pause_ms", 0, 1000000);
    memory = memfd_create("buffer", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, bytes)) {
        perror("remap: no memory");
        return 1;
    }
    buffer = map(NULL, memory, PROT_READ | PROT_WRITE);
    pml_region("buffer", buffer, bytes);
    for (way = 0; way < 4; way++) {
        expect((const char *[]){ "still", "remap", "anonymous", "still2" }[way]);
        for (cycle = 0; cycle < cycles; cycle++) {
            if (way % 3)
                remap(cycle, way == 2);
            else
                read_all(buffer);
            sleep_until_ns(now_ns() + pause_ms * MS);
        }
    }
    return done("remap");
}

/* SPDX-License-Identifier: Apache-2.0
 * pagecache PAGES LARGE: files on the guest's disk, whose pages the kernel may evict.
 * A file of PAGES is written (write), evicted, and read twice. At first each page is copied from
 * the disk into the page cache, and from there to the reader (miss). Then it is only read (hit).
 * A file of LARGE pages, more than the memory has, is written (large) and evicted. Then each of its
 * pages is touched through a mapping, which is a major fault (fault). */
#include "pace.h"

#define SMALL_FILE "/disk/small"
#define LARGE_FILE "/disk/large"

static char page[PML_PAGE];

static int open_or_end(const char *path, int flags)
{
    int fd = open(path, flags, 0600);

    if (fd >= 0)
        return fd;
    perror(path);
    exit(1);
}

static void write_file(const char *path, long pages)
{
    int fd = open_or_end(path, O_WRONLY | O_CREAT);
    long i;

    for (i = 0; i < pages; i++)
        if (write(fd, page, sizeof(page)) != sizeof(page))
            perror(path), exit(1);
    fsync(fd);
    close(fd);
}

static void read_file(const char *path)
{
    int fd = open_or_end(path, O_RDONLY);

    while (read(fd, page, sizeof(page)) > 0)
        ;
    close(fd);
}

static char *map_file(const char *path, long pages)
{
    char *start = mmap(NULL, pages * PML_PAGE, PROT_READ, MAP_SHARED, open_or_end(path, O_RDONLY), 0);

    if (start == MAP_FAILED)
        perror(path), exit(1);
    return start;
}

static void touch(const char *start, long pages)
{
    long i;

    for (i = 0; i < pages; i++)
        read_page(start, i);
}

static void evict(void)
{
    int fd = open_or_end("/proc/sys/vm/drop_caches", O_WRONLY);

    if (write(fd, "3", 1) != 1)
        perror("drop_caches"), exit(1);
    close(fd);
}

/* Report the frames in which the page cache has a file, and what the phases did with them. */
static void report(const char *path, long pages)
{
    char *start = map_file(path, pages);

    touch(start, pages);
    pml_frames("file", start, pages * PML_PAGE);
    pml_expect("miss", "file", "written", pages);
    pml_expect("miss", "file", "read", pages);
    pml_expect("hit", "file", "written", 0);
    pml_expect("hit", "file", "read", pages);
}

int main(int argc, char **argv)
{
    long pages = argument(argc, argv, 1, "pages", 1, 1 << 20);
    long large = argument(argc, argv, 2, "large", 1, 1 << 20);
    char *mapping;

    begin("write");
    write_file(SMALL_FILE, pages);
    evict();
    begin("miss");
    read_file(SMALL_FILE);
    report(SMALL_FILE, pages);
    begin("hit");
    read_file(SMALL_FILE);
    begin("large");
    write_file(LARGE_FILE, large);
    evict();
    mapping = map_file(LARGE_FILE, large);
    madvise(mapping, large * PML_PAGE, MADV_RANDOM); /* no read-ahead: a fault for each page */
    sleep_until_ns(now_ns() + 200 * MS);             /* the guest's counters are sampled */
    begin("fault");
    touch(mapping, large);
    sleep_until_ns(now_ns() + 200 * MS);
    return done("pagecache");
}

/* SPDX-License-Identifier: Apache-2.0
 * The guest's voice: reports on the second serial port, and markers.
 *
 *     pmlguest boot               set the report port up, report the memory map, seed the kernel
 *     pmlguest arm [INTERVAL_MS]  the recording begins; a daemon samples the guest's own view
 *     pmlguest phase NAME         for shell scripts
 *     pmlguest end STATUS         the workload ended with STATUS; the recording ends
 *     pmlguest spin               keep the processor busy whenever nothing else runs
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/random.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>

#include "pmlkit.h"

#define MS 1000000l

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Lines must come out as they were written: no translation, no echo. */
static void raw_port(void)
{
    struct termios t;

    if (pml_fd() < 0 || tcgetattr(pml_fd(), &t))
        return;
    cfmakeraw(&t);
    tcsetattr(pml_fd(), TCSANOW, &t);
}

/* Top-level lines of /proc/iomem, such as "00100000-0ffdffff : System RAM". */
static void memory_map(void)
{
    char line[256];
    FILE *f = fopen("/proc/iomem", "r");

    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] != ' ')
            pml_line("memory %s", line);
    }
    if (f)
        fclose(f);
}

/* The emulated machine has no source of randomness, and a program that asks for some would wait
 * for it. The guest keeps no secret: a fixed seed starts it at once, and the same each time. */
static void seed(void)
{
    struct { int bits, bytes; char data[64]; } entropy = { 512, 64, "pmlkit" };
    int fd = open("/dev/urandom", O_WRONLY);

    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &entropy))
        perror("pmlguest: no entropy");
    if (fd >= 0)
        close(fd);
}

static void sleep_until(struct timespec *at, long ns)
{
    at->tv_nsec += ns % 1000000000l;
    at->tv_sec += ns / 1000000000l + at->tv_nsec / 1000000000l;
    at->tv_nsec %= 1000000000l;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, NULL) == EINTR)
        ;
}

/* Return the number after NAME at the start of a line, or 0. */
static unsigned long long value(const char *text, const char *name)
{
    size_t n = strlen(name);

    for (; text; text = strchr(text, '\n'), text += text != NULL)
        if (!strncmp(text, name, n) && (text[n] == ':' || text[n] == ' '))
            return strtoull(text + n + 1, NULL, 10);
    return 0;
}

static const char *slurp(int fd, char *text, size_t size)
{
    ssize_t n = pread(fd, text, size - 1, 0);

    text[n > 0 ? n : 0] = 0;
    return text;
}

static void sample(int meminfo, int vmstat)
{
    static char m[4096], v[16384];
    struct timespec now;

    slurp(meminfo, m, sizeof(m));
    slurp(vmstat, v, sizeof(v));
    clock_gettime(CLOCK_MONOTONIC, &now);
    pml_line("sample total=%llu free=%llu available=%llu cached=%llu committed=%llu anon=%llu "
             "slab=%llu pswpin=%llu pswpout=%llu pgmajfault=%llu pgfault=%llu mono_ns=%lld",
             value(m, "MemTotal") << 10, value(m, "MemFree") << 10,
             value(m, "MemAvailable") << 10, value(m, "Cached") << 10,
             value(m, "Committed_AS") << 10, value(m, "AnonPages") << 10, value(m, "Slab") << 10,
             value(v, "pswpin"), value(v, "pswpout"), value(v, "pgmajfault"),
             value(v, "pgfault"), now.tv_sec * 1000000000ll + now.tv_nsec);
    PML_MARK_SAMPLE();
}

/* Fork a daemon that is wholly in memory and waits until the returned pipe is closed. */
static int start_sampler(long interval_ms)
{
    int meminfo = open("/proc/meminfo", O_RDONLY), vmstat = open("/proc/vmstat", O_RDONLY);
    struct timespec at;
    int go[2];
    char c;

    if (meminfo < 0 || vmstat < 0 || pipe(go))
        die("pmlguest: sample");
    if (fork())
        return close(go[0]), go[1];
    close(go[1]);
    setsid();
    mlockall(MCL_CURRENT | MCL_FUTURE);
    if (read(go[0], &c, 1) < 0)
        die("pmlguest: sample");
    clock_gettime(CLOCK_MONOTONIC, &at);
    for (;; sleep_until(&at, interval_ms * MS))
        sample(meminfo, vmstat);
}

static void arm(long interval_ms)
{
    struct timespec now;
    int go = interval_ms > 0 ? start_sampler(interval_ms) : -1;

    clock_gettime(CLOCK_MONOTONIC, &now);
    sleep_until(&now, 20 * MS); /* the sampler has reached its read by then */
    pml_line("arm");
    PML_MARK_ARM();
    clock_gettime(CLOCK_MONOTONIC, &now);
    sleep_until(&now, 20 * MS); /* the recorder starts a moment after the marker */
    pml_phase("start");
    if (go >= 0)
        close(go); /* samples only after a phase: each has its marker in the recording */
}

static void end(const char *status)
{
    pml_line("exit %s", status);
    pml_line("end");
    PML_MARK_END();
}

/* Where the clock counts instructions, an idle processor has to execute some. The kernel's own
 * way, idle=poll, costs QEMU ten times as much: each of its pause instructions leaves the
 * translated code. Long stretches of nop keep the loop's own cost small. */
static void spin(void)
{
    struct sched_param none = { 0 };

    if (fork())
        return;
    setsid();
    if (sched_setscheduler(0, SCHED_IDLE, &none))
        die("pmlguest: spin");
    for (;;)
        __asm__ volatile(".rept 200\n nop\n .endr");
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "", *rest = argc > 2 ? argv[2] : NULL;

    if (!strcmp(verb, "boot"))
        raw_port(), memory_map(), seed();
    else if (!strcmp(verb, "arm"))
        arm(rest ? atol(rest) : 100);
    else if (!strcmp(verb, "phase") && rest)
        pml_phase(rest);
    else if (!strcmp(verb, "spin"))
        spin();
    else if (!strcmp(verb, "end"))
        end(rest ? rest : "0");
    else
        return fputs("usage: pmlguest boot | arm [MS] | phase NAME | end STATUS | spin\n", stderr),
               2;
    return 0;
}

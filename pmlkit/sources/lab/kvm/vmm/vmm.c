/* SPDX-License-Identifier: Apache-2.0
 * A small virtual machine monitor for KVM, which logs its guest's dirty pages like any other.
 *
 * A guest of the kit runs in lock step: it yields through a port when it is idle, and runs a round
 * for each command in its mailbox; with a period it runs freely. Another guest is stopped and
 * re-armed once per period, and when it reports a phase. In all cases all vCPUs are out of the guest
 * while pages are re-armed. With --steps, standard input contains the steps (`run_steps`), and
 * logging starts with them.
 */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* The kit's ports (hypervisor-patches/lab/kit/kit.c) and mailbox (pmlkit/xen/mailbox.py). */
#define PORT_CONSOLE 0xe9u
#define PORT_YIELD 0x4b0u
#define PORT_START 0x4b4u /* vCPU 1 starts at the address that is written */
#define MAILBOX 0x200000u
#define MAILBOX_COMMAND 2
#define MAILBOX_DONE 3 /* each vCPU's last round */
#define FREE_RUN 0xffffffffu

#define HUGE_BYTES (2u << 20)
#define TSS 0xfffbd000u
#define EVERY_REGISTER 0xffffffffu

static struct option options[] = {
    {"memory", required_argument, NULL, 'm'}, {"vcpus", required_argument, NULL, 'v'},
    {"ring", required_argument, NULL, 'r'},   {"huge", no_argument, NULL, 'H'},
    {"rounds", required_argument, NULL, 'n'}, {"period-us", required_argument, NULL, 'p'},
    {"ramdisk", required_argument, NULL, 'i'}, {"cmdline", required_argument, NULL, 'c'},
    {"kit", no_argument, NULL, 'k'},          {"wait-for", required_argument, NULL, 'w'},
    {"go", required_argument, NULL, 'g'},     {"rest-us", required_argument, NULL, 'R'},
    {"no-log", no_argument, NULL, 'N'},       {"steps", no_argument, NULL, 's'},
    {0},
};

static struct {
    unsigned memory_mib, rounds, period_us, rest_us;
    bool kit, no_log, steps;
    const char *kernel, *ramdisk, *cmdline, *wait_for, *go;
} settings = {.memory_mib = 64, .cmdline = ""};

static struct vm vm = {.vcpus = 1};
static FILE *console, *report, *rounds;
static struct serial ports[2];

/* `parked` vCPUs wait for `turn` to change; `running` ones were started. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static unsigned parked, running, turn;
static bool reported, waited_for, ended;
static uint32_t second_entry;
static pthread_t threads[MAX_VCPUS];
static __thread struct kvm_run *mine;

void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("vmm: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    _exit(1);
}

int kvm_request(int fd, unsigned long request, uintptr_t argument, const char *name)
{
    int result = ioctl(fd, request, argument);

    if (result < 0)
        die("%s: %m", name);
    return result;
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the machine ---- */

static void create(void)
{
    vm.bytes = (uint64_t)settings.memory_mib << 20;
    if ((vm.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)) < 0)
        die("/dev/kvm: %m");
    vm.fd = kvm_do(vm.kvm, KVM_CREATE_VM, 0);
    if (vm.ring_entries) {
        struct kvm_enable_cap ring = {
            .cap = KVM_CAP_DIRTY_LOG_RING,
            .args = {vm.ring_entries * sizeof(struct kvm_dirty_gfn)},
        };

        kvm_do(vm.fd, KVM_ENABLE_CAP, &ring);
    }
    kvm_do(vm.fd, KVM_SET_TSS_ADDR, TSS);
    if (vm.irqchip) {
        kvm_do(vm.fd, KVM_CREATE_IRQCHIP, 0);
        kvm_do(vm.fd, KVM_CREATE_PIT2,
               (&(struct kvm_pit_config){.flags = KVM_PIT_SPEAKER_DUMMY}));
    }
    /* A bare-metal guest has all of its memory from the start, without faults at first accesses. */
    vm.memory = mmap(NULL, vm.bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (vm.memory == MAP_FAILED)
        die("%u MiB: %m", settings.memory_mib);
    vm.memory = (void *)(((uintptr_t)vm.memory + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    if (madvise(vm.memory, vm.bytes, vm.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) && vm.huge)
        die("the kernel has no transparent huge pages: %m");
    for (uint64_t at = 0; settings.kit && at < vm.bytes; at += PAGE)
        vm.memory[at] = 0;
    log_set(&vm, false);
}

static void set_cpuid(const struct vcpu *vcpu)
{
    enum { MOST = 200 };
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + MOST * sizeof cpuid->entries[0]);

    if (!cpuid)
        die("no memory");
    cpuid->nent = MOST;
    kvm_do(vm.kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
    for (unsigned i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

        if (entry->function == 1)
            entry->ebx = (entry->ebx & 0xffff) | vcpu->number << 24 | vm.vcpus << 16;
        else if (entry->function == 0xb || entry->function == 0x1f)
            entry->edx = vcpu->number;
    }
    kvm_do(vcpu->fd, KVM_SET_CPUID2, cpuid);
    free(cpuid);
}

/* PVH's state at entry: flat 32-bit protected mode without paging, ebx: the start info. */
static void set_registers(const struct vcpu *vcpu, uint32_t entry)
{
    struct kvm_segment code = {.limit = EVERY_REGISTER, .selector = 8, .type = 11, .present = 1,
                               .s = 1, .db = 1, .g = 1};
    struct kvm_segment data = code, task = {.limit = 0x67, .type = 11, .present = 1};
    struct kvm_regs registers = {.rip = entry, .rflags = 2, .rbx = START_INFO};
    struct kvm_sregs special;

    data.selector = 16;
    data.type = 3;
    kvm_do(vcpu->fd, KVM_GET_SREGS, &special);
    special.cs = code;
    special.ds = special.es = special.fs = special.gs = special.ss = data;
    special.tr = task;
    special.cr0 = 0x11;
    kvm_do(vcpu->fd, KVM_SET_SREGS, &special);
    kvm_do(vcpu->fd, KVM_SET_REGS, &registers);
}

static void add_vcpu(unsigned number)
{
    struct vcpu *vcpu = &vm.vcpu[number];
    int bytes = kvm_do(vm.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    vcpu->number = number;
    vcpu->fd = kvm_do(vm.fd, KVM_CREATE_VCPU, number);
    vcpu->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED)
        die("vCPU %u: %m", number);
    if (vm.ring_entries) {
        vcpu->ring = mmap(NULL, vm.ring_entries * sizeof *vcpu->ring, PROT_READ | PROT_WRITE,
                          MAP_SHARED, vcpu->fd, KVM_DIRTY_LOG_PAGE_OFFSET * (long)PAGE);
        if (vcpu->ring == MAP_FAILED)
            die("the ring of vCPU %u: %m", number);
    }
    set_cpuid(vcpu);
}

/* ---- vCPUs ---- */

static void park(void)
{
    pthread_mutex_lock(&lock);
    parked++;
    pthread_cond_broadcast(&changed);
    for (unsigned now = turn; now == turn;)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* The second vCPU of a guest of the kit waits here, Linux's wait in KVM. */
static void wait_for_start(const struct vcpu *vcpu)
{
    pthread_mutex_lock(&lock);
    while (!second_entry)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    set_registers(vcpu, second_entry);
}

static void kit_out(uint16_t port, uint32_t value)
{
    if (port == PORT_CONSOLE) {
        fputc((int)(value & 0xff), console);
        fflush(console);
    } else if (port == PORT_YIELD) {
        park();
    } else if (port == PORT_START) {
        pthread_mutex_lock(&lock);
        running++;
        second_entry = value;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
}

/* Other ports have no device: a read returns ones. */
static void io(const struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    bool out = run->io.direction == KVM_EXIT_IO_OUT;

    for (unsigned i = 0; i < run->io.count; i++, data += run->io.size) {
        uint32_t value = 0;

        if (run->io.size == 1 && (serial_io(&vm, &ports[0], run->io.port, out, data)
                                  || serial_io(&vm, &ports[1], run->io.port, out, data)))
            continue;
        if (!out) {
            memset(data, 0xff, run->io.size);
            continue;
        }
        memcpy(&value, data, run->io.size);
        if (settings.kit)
            kit_out(run->io.port, value);
    }
}

static void *run_vcpu(void *argument)
{
    struct vcpu *vcpu = argument;
    char name[16];

    snprintf(name, sizeof name, "CPU %u/KVM", vcpu->number); /* as QEMU names them */
    prctl(PR_SET_NAME, name);
    mine = vcpu->run;
    if (settings.kit && vcpu->number)
        wait_for_start(vcpu);
    else if (!settings.kit && !settings.wait_for)
        park(); /* its boot is logged, so it runs from the first round on */
    for (;;) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) < 0) {
            if (errno != EINTR && errno != EAGAIN)
                die("vCPU %u does not run: %m", vcpu->number);
            if (mine->immediate_exit) {
                mine->immediate_exit = 0;
                park();
            }
            continue;
        }
        switch (mine->exit_reason) {
        case KVM_EXIT_IO:
            io(mine);
            break;
        case KVM_EXIT_MMIO: /* no device: a read returns ones */
            if (!mine->mmio.is_write)
                memset(mine->mmio.data, 0xff, sizeof mine->mmio.data);
            break;
        case KVM_EXIT_DIRTY_RING_FULL:
            die("the ring of vCPU %u is full: give it more entries", vcpu->number);
        default:
            die("vCPU %u ended (exit %u, %llx)", vcpu->number, mine->exit_reason,
                (unsigned long long)mine->hw.hardware_exit_reason);
        }
    }
}

/* ---- rounds ---- */

static void kicked(int number)
{
    (void)number;
    if (mine)
        mine->immediate_exit = 1;
}

static void await_parked(void)
{
    pthread_mutex_lock(&lock);
    while (parked < running)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void release(uint32_t command)
{
    pthread_mutex_lock(&lock);
    if (settings.kit)
        ((volatile uint32_t *)(vm.memory + MAILBOX))[MAILBOX_COMMAND] = command;
    parked = 0;
    turn++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void pause_all(void)
{
    for (unsigned i = 0; i < running; i++)
        pthread_kill(threads[i], SIGUSR1);
    await_parked();
}

/* Wait for a period, or until the guest reports; a phase's mark is followed by a rest. */
static void wait_period(void)
{
    uint64_t end = now_ns() + settings.period_us * 1000ull;
    struct timespec until = {.tv_sec = (time_t)(end / 1000000000u),
                             .tv_nsec = (long)(end % 1000000000u)};

    pthread_mutex_lock(&lock);
    while (!reported && !ended)
        if (pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT)
            break;
    reported = false;
    pthread_mutex_unlock(&lock);
}

static uint32_t done(unsigned vcpu)
{
    return ((volatile uint32_t *)(vm.memory + MAILBOX))[MAILBOX_DONE + vcpu];
}

/* Wait until a guest of the kit has run a whole round, however late it is. The first of two may be
 * the rest of one that a pause has cut. */
static void await_whole_round(const uint32_t *before)
{
    for (unsigned i = 0; settings.kit && i < running; i++)
        while (done(i) - before[i] < 2)
            usleep(1000);
}

static void round_end(unsigned number, uint64_t start)
{
    uint64_t end = now_ns(), armed;
    unsigned dirty = settings.no_log ? 0 : log_take(&vm);

    armed = now_ns();
    fprintf(rounds, "%u %llu %llu %u %llu\n", number, (unsigned long long)start,
            (unsigned long long)end, dirty, (unsigned long long)(armed - end));
    fflush(rounds);
}

static void run_rounds(void)
{
    for (unsigned n = 1; !ended && (!settings.rounds || n <= settings.rounds); n++) {
        uint64_t start = now_ns();
        uint32_t before[MAX_VCPUS];

        for (unsigned i = 0; i < running; i++)
            before[i] = done(i);
        release(settings.period_us ? FREE_RUN : n);
        if (settings.period_us) {
            wait_period();
            await_whole_round(before);
            pause_all();
        } else {
            await_parked();
        }
        round_end(n, start);
        usleep(settings.rest_us); /* while its vCPUs wait, the collector may look at its memory */
    }
}

/* Add a memory slot above the guest's memory, which the guest does not know. */
static void plug(unsigned mib)
{
    size_t bytes = (size_t)mib << 20;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {
        .slot = 1, .flags = KVM_MEM_LOG_DIRTY_PAGES, .guest_phys_addr = vm.bytes,
        .memory_size = bytes, .userspace_addr = (uintptr_t)memory,
    };

    if (memory == MAP_FAILED)
        die("%u MiB more: %m", mib);
    kvm_do(vm.fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* One step per line: `round N`, in lock step; `free`, to run until `pause`; `log 1`, `log 0`; `take`,
 * to read the log; `plug MIB`. The answer to each is a line with a number. */
static void run_steps(void)
{
    char line[64], step[16];

    printf("memory %llu\n", (unsigned long long)(uintptr_t)vm.memory);
    for (fflush(stdout); fgets(line, sizeof line, stdin); fflush(stdout)) {
        unsigned value = 0, answer = 0;

        if (sscanf(line, "%15s %u", step, &value) < 1)
            continue;
        if (!strcmp(step, "round")) {
            release(value);
            await_parked();
        } else if (!strcmp(step, "free")) {
            release(FREE_RUN);
        } else if (!strcmp(step, "pause")) {
            pause_all();
        } else if (!strcmp(step, "log")) {
            log_set(&vm, value);
        } else if (!strcmp(step, "take")) {
            answer = log_take(&vm);
        } else if (!strcmp(step, "plug")) {
            plug(value);
        } else {
            die("there is no step %s", step);
        }
        printf("%s %u\n", step, answer);
    }
}

/* ---- the guest's reports ---- */

static void console_line(const char *text)
{
    fprintf(console, "%s\n", text);
    fflush(console);
}

static void report_line(const char *text)
{
    fprintf(report, "%llu %s\n", (unsigned long long)now_ns(), text);
    fflush(report);
    pthread_mutex_lock(&lock);
    if (settings.wait_for && !strncmp(text, settings.wait_for, strlen(settings.wait_for)))
        waited_for = true;
    reported |= !strncmp(text, "phase ", 6);
    ended |= !strncmp(text, "exit ", 5);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static FILE *open_text(const char *name)
{
    FILE *file = fopen(name, "w");

    if (!file)
        die("%s: %m", name);
    return file;
}

/* ---- main ---- */

static void parse(int count, char **words)
{
    for (int c; (c = getopt_long(count, words, "", options, NULL)) != -1;) {
        switch (c) {
        case 'm': settings.memory_mib = (unsigned)atoi(optarg); break;
        case 'v': vm.vcpus = (unsigned)atoi(optarg); break;
        case 'r': vm.ring_entries = (uint32_t)atoi(optarg); break;
        case 'H': vm.huge = true; break;
        case 'n': settings.rounds = (unsigned)atoi(optarg); break;
        case 'p': settings.period_us = (unsigned)atoi(optarg); break;
        case 'i': settings.ramdisk = optarg; break;
        case 'c': settings.cmdline = optarg; break;
        case 'R': settings.rest_us = (unsigned)atoi(optarg); break;
        case 'k': settings.kit = true; break;
        case 'w': settings.wait_for = optarg; break;
        case 'g': settings.go = optarg; break;
        case 'N': settings.no_log = true; break;
        case 's': settings.steps = true; break;
        default: die("see vmm.c for the options");
        }
    }
    if (optind + 1 != count)
        die("name one kernel");
    settings.kernel = words[optind];
    if (!vm.vcpus || vm.vcpus > MAX_VCPUS || (settings.kit && vm.vcpus > 2))
        die("it cannot have %u vCPUs", vm.vcpus);
    if (settings.steps && !settings.kit)
        die("steps are for a guest of the kit");
    if (settings.memory_mib < 16 || settings.memory_mib > 2048)
        die("it cannot have %u MiB", settings.memory_mib);
}

static void begin(void)
{
    pthread_condattr_t clock;
    struct sigaction action = {.sa_handler = kicked};

    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &clock);
    sigaction(SIGUSR1, &action, NULL);
    console = open_text("guest.txt");
    report = open_text("report.txt");
    rounds = open_text("rounds.txt");
    ports[0] = (struct serial){.base = 0x3f8, .irq = 4, .line = console_line};
    ports[1] = (struct serial){.base = 0x2f8, .irq = 3, .line = report_line};
}

/* Run until the guest waits: one of the kit is set up, another has printed the awaited text. */
static void start(uint32_t entry)
{
    set_registers(&vm.vcpu[0], entry);
    running = settings.kit ? 1 : vm.vcpus;
    for (unsigned i = 0; i < vm.vcpus; i++)
        if ((errno = pthread_create(&threads[i], NULL, run_vcpu, &vm.vcpu[i])))
            die("a thread: %m");
    if (!settings.kit && settings.wait_for) {
        pthread_mutex_lock(&lock);
        while (!waited_for && !ended)
            pthread_cond_wait(&changed, &lock);
        reported = false;
        pthread_mutex_unlock(&lock);
        pause_all();
    }
    await_parked();
}

/* The collector creates the file as soon as it listens. */
static void await_collector(void)
{
    printf("ready\n");
    fflush(stdout);
    while (settings.go && access(settings.go, F_OK))
        usleep(10000);
}

int main(int count, char **words)
{
    parse(count, words);
    vm.irqchip = !settings.kit;
    begin();
    create();
    for (unsigned i = 0; i < vm.vcpus; i++)
        add_vcpu(i);
    start(load(&vm, settings.kernel, settings.ramdisk, settings.cmdline));
    if (settings.steps) {
        run_steps();
        _exit(0);
    }
    await_collector();
    if (!settings.no_log) {
        log_set(&vm, true);
        log_take(&vm); /* later entries are in rounds that begin and end with a re-arm */
    }
    run_rounds();
    if (!settings.no_log)
        log_set(&vm, false);
    printf("ended\n");
    fflush(stdout);
    _exit(0);
}

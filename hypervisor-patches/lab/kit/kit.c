/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

#define SCHED_OP 29
#define SCHEDOP_YIELD 0
#define VCPU_OP 24
#define VCPUOP_INITIALISE 0
#define VCPUOP_UP 1

#define CR0_PG_WP 0x80010000u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define MSR_EFER 0xc0000080u
#define EFER_LME 0x100u
#define PRESENT_WRITE 3u
#define LARGE_PAGE 0x80u

struct start_info { /* xen/include/public/arch-x86/hvm/start_info.h */
    u32 magic, version, flags, modules;
    u64 modlist, cmdline;
};

struct context { /* vcpu_hvm_context with vcpu_hvm_x86_32, see public/hvm/hvm_vcpu.h */
    u32 mode, pad;
    u32 eax, ecx, edx, ebx, esp, ebp, esi, edi, eip, eflags, cr0, cr3, cr4, pad1;
    u64 efer;
    u32 base[5], limit[5];
    u16 ar[5], pad2[3];
};

/* The recorder's marker (experiments/workloads/guest/pmlkit.h), a no-op elsewhere. */
#define MARK(ll) __asm__ volatile("nopl 0x4d50" #ll "00(%%eax)" : : : "memory")
#define REPORT 0x2f8u /* the second serial port */
#define KEYBOARD 0x64u
#define RESET 0xfeu

/* Ports of the KVM lab's monitor (pmlkit/sources/lab/kvm/vmm/vmm.c). */
#define VMM_YIELD 0x4b0u
#define VMM_START 0x4b4u

/* The local APIC's interrupt command: INIT, or start at a page below 1 MiB. */
#define APIC_ICR 0xfee00300u
#define APIC_ICR_TARGET 0xfee00310u
#define ICR_INIT 0x4500u
#define ICR_START 0x4600u
#define TRAMPOLINE 0x8000u

static const char *cmdline;
static u32 vmm; /* under the KVM lab's monitor: MiB of memory */
static struct context second;
static struct { u32 levels, mib, large; } paging;
extern void second_start(void);
extern const u8 trampoline[], trampoline_end[];

/* The mailbox has a separate frame, so that the guest writes one known page between rounds. */
static volatile struct kit_mailbox *const box = (void *)KIT_MAILBOX;

static int hypercall(u32 number, u32 a, u32 b, const void *c)
{
    u32 result;

    __asm__ volatile("vmcall" : "=a"(result), "+b"(a), "+c"(b) : "0"(number), "d"(c) : "memory");
    return result;
}

static void out(u32 port, u8 value)
{
    __asm__ volatile("outb %0,%1" : : "a"(value), "Nd"((u16)port));
}

static void out_word(u32 port, u32 value)
{
    __asm__ volatile("outl %0,%1" : : "a"(value), "Nd"((u16)port) : "memory");
}

static void yield(void)
{
    if (vmm)
        out_word(VMM_YIELD, 0);
    else
        hypercall(SCHED_OP, SCHEDOP_YIELD, 0, 0);
}

/* KVM maps memory at the first access, and a first read then counts as dirty. */
static void touch_all(u32 mib)
{
    for (u32 page = 0; page < mib * 256; page++)
        (void)*(volatile u8 *)(page * KIT_PAGE);
}

void kit_say(const char *text)
{
    while (*text)
        out(0xe9, *text++);
}

void kit_report(u32 i, u32 value)
{
    box->measured[i] = value;
}

static void report(const char *text)
{
    while (*text)
        out(REPORT, *text++);
}

static int on_xen(void)
{
    u32 leaf = 0x40000000u, b, c, d;

    __asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "=c"(c), "=d"(d));
    return b == 0x566e6558u && c == 0x65584d4du && d == 0x4d4d566eu; /* XenVMMXenVMM */
}

static int starts(const char *text, const char *name, u32 *length)
{
    u32 i = 0;

    while (name[i] && text[i] == name[i])
        i++;
    *length = i;
    return !name[i] && text[i] == '=';
}

u32 kit_option(const char *name, u32 otherwise)
{
    u32 value = 0, n;

    for (const char *at = cmdline; at && *at; at++)
        if ((at == cmdline || at[-1] == ' ') && starts(at, name, &n)) {
            for (at += n + 1; *at >= '0' && *at <= '9'; at++)
                value = value * 10 + *at - '0';
            return value;
        }
    return otherwise;
}

static void *table(u32 n)
{
    return (void *)(KIT_TABLES + n * KIT_PAGE);
}

/* Entries of 4 bytes with two levels, of 8 otherwise. */
static void set(u32 levels, void *at, u32 i, u32 value)
{
    if (levels == 2)
        ((u32 *)at)[i] = value;
    else
        ((u64 *)at)[i] = value;
}

static void build_tables(u32 levels, u32 mib, u32 large)
{
    u32 per_leaf = levels == 2 ? 1024 : 512, leaves = mib * 256 / per_leaf;

    for (u32 n = 0; n < leaves; n++) {
        if (large) {
            set(levels, table(2), n, n * per_leaf * KIT_PAGE | LARGE_PAGE | PRESENT_WRITE);
            continue;
        }
        for (u32 i = 0; i < per_leaf; i++)
            set(levels, table(16 + n), i, (n * per_leaf + i) * KIT_PAGE | PRESENT_WRITE);
        set(levels, table(2), n, (u32)table(16 + n) | PRESENT_WRITE);
    }
    /* With PAE the write flag of the four pointers is reserved. */
    for (u32 n = 0; n * 512 < leaves; n++) /* a directory for each GiB */
        set(levels, table(1), n, (u32)table(2 + n) | (levels == 3 ? 1 : PRESENT_WRITE));
    set(levels, table(0), 0, (u32)table(1) | PRESENT_WRITE);
}

static void paging_on(void)
{
    u32 levels = paging.levels, root = levels == 4 ? 0 : levels == 3 ? 1 : 2, cr4, cr0;

    __asm__ volatile("mov %%cr4,%0" : "=r"(cr4));
    cr4 |= levels == 2 ? CR4_PSE : CR4_PAE;
    __asm__ volatile("mov %0,%%cr4; mov %1,%%cr3" : : "r"(cr4), "r"(table(root)) : "memory");
    if (levels == 4)
        __asm__ volatile("rdmsr; or %0,%%eax; wrmsr"
                         : : "i"(EFER_LME), "c"(MSR_EFER) : "eax", "edx");
    __asm__ volatile("mov %%cr0,%0" : "=r"(cr0));
    __asm__ volatile("mov %0,%%cr0; jmp 1f; 1:" : : "r"(cr0 | CR0_PG_WP) : "memory");
}

void kit_paging(u32 levels, u32 mib, u32 large)
{
    paging.levels = levels;
    paging.mib = mib;
    paging.large = large;
    build_tables(levels, mib, large);
    paging_on();
}

static int start_second_by_xen(void)
{
    second.eip = (u32)second_start;
    second.eflags = 2;
    second.cr0 = 0x11;
    for (int i = 0; i < 5; i++)
        second.limit[i] = 0xffffffffu;
    second.limit[4] = 0x67;
    second.ar[0] = 0xc9b;
    second.ar[1] = second.ar[2] = second.ar[3] = 0xc93;
    second.ar[4] = 0x8b;
    return hypercall(VCPU_OP, VCPUOP_INITIALISE, 1, &second) || hypercall(VCPU_OP, VCPUOP_UP, 1, 0);
}

/* As on a PC: the vCPU starts in real mode, in a copy of the trampoline. */
static void start_second_by_apic(void)
{
    volatile u32 *icr = (void *)APIC_ICR, *target = (void *)APIC_ICR_TARGET;

    for (u32 i = 0; i < (u32)(trampoline_end - trampoline); i++)
        ((volatile u8 *)TRAMPOLINE)[i] = trampoline[i];
    *target = 1u << 24;
    *icr = ICR_INIT;
    *icr = ICR_START | TRAMPOLINE >> 12;
}

void kit_start_second(void)
{
    if (vmm && kit_option("free", 0)) /* under QEMU */
        start_second_by_apic();
    else if (vmm)
        out_word(VMM_START, (u32)second_start);
    else if (start_second_by_xen()) {
        kit_say("KIT: vCPU 1 does not start\n");
        return;
    }
    box->vcpus = 2;
}

static void rounds(u32 vcpu)
{
    u32 n = 0, command;

    for (;;) {
        while ((command = box->command) == n || !command)
            yield();
        n = command == KIT_FREE_RUN ? n + 1 : command;
        guest_round(n, vcpu);
        box->done[vcpu] = n;
    }
}

/* Without a lab's hypervisor, the guest runs ROUNDS rounds without commands, each a phase of the
 * recording, and ends. */
static void rounds_alone(u32 n_rounds)
{
    char name[] = "phase round000\n";

    MARK(01);
    for (volatile u32 i = 0; i < 1000000; i++) /* the recorder starts shortly after the mark */
        ;
    for (u32 n = 1; n <= n_rounds; n++) {
        name[11] = '0' + n / 100 % 10;
        name[12] = '0' + n / 10 % 10;
        name[13] = '0' + n % 10;
        report(name);
        MARK(02);
        guest_round(n, 0);
        box->done[0] = n;
    }
    report("phase done\n");
    MARK(02);
    report("exit 0\n");
    MARK(04);
    out(KEYBOARD, RESET);
    for (;;)
        __asm__ volatile("hlt");
}

/* Debian's Bochs delays dom0's interrupts while a guest never sets IF; ours does not. */
static void interrupts(void)
{
    if (on_xen() && kit_option("if", 1))
        __asm__ volatile("sti");
}

/* Memory may begin as anything: a debug build of Xen fills it with a pattern, which is no command. */
static void clear_mailbox(void)
{
    for (u32 i = 0; i < sizeof(*box) / sizeof(u32); i++)
        ((volatile u32 *)box)[i] = 0;
}

void kit_second(void)
{
    interrupts();
    if (paging.levels)
        paging_on();
    rounds(1);
}

void kit_main(const struct start_info *info)
{
    cmdline = (const char *)(u32)info->cmdline;
    vmm = kit_option("vmm", 0);
    clear_mailbox();
    interrupts();
    touch_all(vmm);
    box->vcpus = 1;
    guest_setup();
    kit_say("KIT ready\n");
    box->magic = KIT_MAGIC;
    if (kit_option("free", 0)) /* no commands in the mailbox: a self-test on a real host */
        box->command = KIT_FREE_RUN;
    if (vmm || on_xen())
        rounds(0);
    else
        rounds_alone(kit_option("rounds", 8));
}

/* SPDX-License-Identifier: GPL-2.0-only
 * Bare-metal guests with known answers. A guest is two functions:
 *
 *     #include "kit.h"
 *     void guest_setup(void) { }                          // once, on vCPU 0
 *     void guest_round(unsigned n, unsigned vcpu)         // round n = 1, 2, ...
 *     {
 *         for (unsigned i = 0; i < 300; i++)
 *             kit_page(i)[0]++;                           // page i of the data area
 *     }
 *
 * dom0 sends the number of the round through the mailbox; between rounds the guest touches only the
 * mailbox, its stack and its code. Under `pmlkit record` (QEMU, no Xen) each round is a phase.
 * Frames: 256.. code, data and stacks; 512 mailbox; 2048.. page tables; 4096.. the data area, as
 * much as the guest has memory.
 */
#ifndef KIT_H
#define KIT_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KIT_PAGE 4096u
#define KIT_MAILBOX 0x200000u
#define KIT_TABLES 0x800000u
#define KIT_DATA 0x1000000u
#define KIT_MAGIC 0x4b4c4d50u /* "PMLK" */
#define KIT_FREE_RUN 0xffffffffu /* command: round after round, without waiting */
#define KIT_VCPUS 2

/* What dom0's agent and the guest share (pmlkit/xen/mailbox.py). */
struct kit_mailbox {
    u32 magic;   /* guest: set up */
    u32 vcpus;   /* guest: the number of vCPUs that run rounds */
    u32 command; /* dom0: the round to run */
    u32 done[16]; /* guest: each vCPU's last round */
    u32 measured[16]; /* guest: its measurements, if any */
};

void guest_setup(void);
void guest_round(unsigned n, unsigned vcpu);

/* A page of the data area. */
static inline volatile u8 *kit_page(unsigned i)
{
    return (volatile u8 *)(KIT_DATA + i * KIT_PAGE);
}

/* A number from the guest's command line (`name=5`), otherwise the default. */
u32 kit_option(const char *name, u32 otherwise);

/* Report a measured number to dom0, before the round ends. */
void kit_report(u32 i, u32 value);

/* Print to Xen's console (`xl dmesg`). */
void kit_say(const char *text);

/* Switch paging on, on this vCPU: an identity map of the first MIB of memory.
 * LEVELS 2 (32-bit), 3 (PAE) or 4 (long mode, this code in compatibility mode);
 * LARGE: by pages of 4 MiB (2 levels) or 2 MiB. Tables: frame 2048 root, 2049 pointers,
 * 2050.. directories, one for each GiB, 2064.. leaves (only the existing levels). */
void kit_paging(u32 levels, u32 mib, u32 large);

/* Start vCPU 1, which then takes part in the rounds (vcpus=2 in the guest's description). */
void kit_start_second(void);

#endif

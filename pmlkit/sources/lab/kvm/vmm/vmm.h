/* SPDX-License-Identifier: Apache-2.0
 * A small virtual machine monitor for KVM: what its parts share. */
#ifndef VMM_H
#define VMM_H

#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define PAGE 4096u
#define MAX_VCPUS 16u

struct vcpu {
    int fd;
    unsigned number;
    struct kvm_run *run;
    struct kvm_dirty_gfn *ring; /* NULL with a bitmap */
    uint32_t next;              /* the first entry of the ring that was not taken yet */
};

struct vm {
    int kvm, fd;
    uint8_t *memory;
    uint64_t bytes;
    unsigned vcpus;
    uint32_t ring_entries; /* 0: a bitmap */
    bool huge, irqchip;
    struct vcpu vcpu[MAX_VCPUS];
};

/* Print why to stderr and end the process. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

/* ioctl() that ends the process if it fails, with the request's name. */
#define kvm_do(fd, request, argument) kvm_request(fd, request, (uintptr_t)(argument), #request)
int kvm_request(int fd, unsigned long request, uintptr_t argument, const char *name);
uint64_t now_ns(void); /* CLOCK_MONOTONIC */

/* dirty.c: the log of dirty pages. No vCPU may be in the guest during these. */
void log_set(struct vm *vm, bool on);
unsigned log_take(struct vm *vm); /* Take what was logged, re-arm it all; returns the pages. */

/* load.c: a PVH ELF file and what its entry expects; returns the entry's address. */
#define START_INFO 0x1000u
uint32_t load(struct vm *vm, const char *kernel, const char *ramdisk, const char *cmdline);

/* serial.c: 16550 ports without receivers, and a line for each that the guest prints. */
struct serial {
    uint16_t base;
    unsigned irq;
    uint8_t ier, lcr, mcr, fcr, scratch, divisor[2];
    bool empty, raised; /* an interrupt is due for the empty transmitter; the line's level */
    void (*line)(const char *text);
    char text[1024];
    unsigned length;
};
bool serial_io(struct vm *vm, struct serial *serial, uint16_t port, bool out, uint8_t *value);

#endif

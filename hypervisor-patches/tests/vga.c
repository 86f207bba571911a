/* SPDX-License-Identifier: GPL-2.0-only */
#include "kit.h"

/* An HVM guest that draws on QEMU's VGA: its memory is the guest's, and the device model tracks it. */

#define PCI_ADDRESS 0xcf8u
#define PCI_DATA 0xcfcu
#define PCI_COMMAND 0x04u
#define PCI_BAR 0x10u
#define VGA 0x11111234u /* device and vendor */
#define FRAME_BUFFER 0xf0000000u
#define DISPI 0x1ceu /* Bochs's interface to graphics modes: an index, then a value */
#define WIDTH 640u
#define HEIGHT 480u
#define PAGES (WIDTH * HEIGHT / KIT_PAGE) /* of the screen, a byte for each of its dots */
#define ATTRIBUTE 0x3c0u
#define COLOUR 0x3c8u /* its number; its red, green and blue follow on the next port */

static void outl(u32 port, u32 value)
{
    __asm__ volatile("outl %0,%1" : : "a"(value), "Nd"((u16)port));
}

static void outb(u32 port, u8 value)
{
    __asm__ volatile("outb %0,%1" : : "a"(value), "Nd"((u16)port));
}

static void outw(u32 port, u32 value)
{
    __asm__ volatile("outw %0,%1" : : "a"((u16)value), "Nd"((u16)port));
}

static u32 inl(u32 port)
{
    u32 value;

    __asm__ volatile("inl %1,%0" : "=a"(value) : "Nd"((u16)port));
    return value;
}

static u32 pci(u32 slot, u32 reg)
{
    outl(PCI_ADDRESS, 0x80000000u | slot << 11 | reg);
    return inl(PCI_DATA);
}

static void pci_set(u32 slot, u32 reg, u32 value)
{
    outl(PCI_ADDRESS, 0x80000000u | slot << 11 | reg);
    outl(PCI_DATA, value);
}

static void mode(u32 index, u32 value)
{
    outw(DISPI, index);
    outw(DISPI + 1, value);
}

static u32 found;

void guest_setup(void)
{
    for (u32 slot = 0; slot < 32; slot++)
        if (pci(slot, 0) == VGA) {
            pci_set(slot, PCI_BAR, FRAME_BUFFER);
            pci_set(slot, PCI_COMMAND, pci(slot, PCI_COMMAND) | 3); /* ports and memory */
            found = 1;
        }
    kit_say(found ? "VGA found\n" : "no VGA\n");
    mode(4, 0);
    mode(1, WIDTH);
    mode(2, HEIGHT);
    mode(3, 8); /* bits of a dot: QEMU draws it, and what has not changed it does not draw again */
    mode(4, 0x41); /* on, and linear */
    outb(ATTRIBUTE, 0x20); /* no longer blank: else QEMU shows, and tracks, nothing */
    outb(COLOUR, 1); /* 0 is black, 1 white */
    for (u32 i = 0; i < 3; i++)
        outb(COLOUR + 1, 63);
}

/* In round n dot n of each page becomes white. */
void guest_round(unsigned n, unsigned vcpu)
{
    for (unsigned pass = 0; pass < 20; pass++)
        for (unsigned i = 0; i < 300; i++)
            kit_page(i)[n & 4095]++;
    for (unsigned i = 0; i < 1500; i++)
        kit_page(1000 + i)[vcpu]++;
    for (unsigned i = 0; found && i < PAGES; i++)
        ((volatile u8 *)FRAME_BUFFER)[i * KIT_PAGE + (n & 4095)]++;
}

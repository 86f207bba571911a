/* SPDX-License-Identifier: Apache-2.0
 * A PVH guest in memory: the ELF file's segments, its start info, and ACPI's tables of its processors. */
#include "vmm.h"

#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE_ENTRY 18u /* XEN_ELFNOTE_PHYS32_ENTRY */
#define MAGIC 0x336ec578u
#define CMDLINE 0x3000u
#define ACPI 0x9fc00u /* the last KiB of low memory, which is not usable */
#define HIGH 0x100000u
#define LOCAL_APIC 0xfee00000u
#define IO_APIC 0xfec00000u

/* xen/include/public/arch-x86/hvm/start_info.h, version 1 */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t modlist, cmdline, rsdp, memmap;
    uint32_t memmap_entries, reserved;
    struct { uint64_t start, size, cmdline, reserved; } module;
    struct { uint64_t start, size; uint32_t type, reserved; } map[2];
};

struct file { uint8_t *data; size_t bytes; };

static struct file map_file(const char *path)
{
    struct stat facts;
    struct file file;
    int fd = open(path, O_RDONLY);

    if (fd < 0 || fstat(fd, &facts))
        die("%s: %m", path);
    file.bytes = (size_t)facts.st_size;
    file.data = mmap(NULL, file.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file.data == MAP_FAILED)
        die("%s: %m", path);
    close(fd);
    return file;
}

static uint8_t *at(struct vm *vm, uint64_t address, uint64_t bytes, const char *what)
{
    if (address > vm->bytes || bytes > vm->bytes - address)
        die("%s does not fit into the guest's %llu MiB", what, (unsigned long long)vm->bytes >> 20);
    return vm->memory + address;
}

/* Both kinds of ELF files have the same notes; the entry is of 4 or 8 bytes. */
static uint32_t entry_of(const uint8_t *notes, size_t bytes)
{
    for (size_t i = 0; i + 20 <= bytes; i += 4) {
        uint32_t head[3];

        memcpy(head, notes + i, sizeof head);
        if (head[0] == 4 && (head[1] == 4 || head[1] == 8) && head[2] == NOTE_ENTRY
            && !memcmp(notes + i + 12, "Xen", 4)) {
            uint32_t entry;

            memcpy(&entry, notes + i + 16, sizeof entry);
            return entry;
        }
    }
    return 0;
}

struct segment { uint32_t type; uint64_t offset, address, in_file, in_memory; };

static struct segment segment(const struct file *elf, unsigned i)
{
    if (elf->data[EI_CLASS] == ELFCLASS64) {
        const Elf64_Ehdr *head = (const void *)elf->data;
        const Elf64_Phdr *p = (const void *)(elf->data + head->e_phoff + i * head->e_phentsize);

        return (struct segment){p->p_type, p->p_offset, p->p_paddr, p->p_filesz, p->p_memsz};
    }
    const Elf32_Ehdr *head = (const void *)elf->data;
    const Elf32_Phdr *p = (const void *)(elf->data + head->e_phoff + i * head->e_phentsize);

    return (struct segment){p->p_type, p->p_offset, p->p_paddr, p->p_filesz, p->p_memsz};
}

static unsigned segments(const struct file *elf)
{
    if (elf->bytes < sizeof(Elf64_Ehdr) || memcmp(elf->data, ELFMAG, SELFMAG))
        die("the kernel is no ELF file");
    if (elf->data[EI_CLASS] == ELFCLASS64)
        return ((const Elf64_Ehdr *)elf->data)->e_phnum;
    return ((const Elf32_Ehdr *)elf->data)->e_phnum;
}

static uint32_t load_kernel(struct vm *vm, const char *path)
{
    struct file elf = map_file(path);
    uint32_t entry = 0;

    for (unsigned i = 0; i < segments(&elf); i++) {
        struct segment s = segment(&elf, i);

        if (s.offset > elf.bytes || s.in_file > elf.bytes - s.offset)
            die("%s is cut off", path);
        if (s.type == PT_LOAD)
            memcpy(at(vm, s.address, s.in_memory, path), elf.data + s.offset, s.in_file);
        else if (s.type == PT_NOTE && !entry)
            entry = entry_of(elf.data + s.offset, s.in_file);
    }
    munmap(elf.data, elf.bytes);
    if (!entry)
        die("%s has no PVH entry", path);
    return entry;
}

/* At the end of memory, where the kernel unpacks it last. */
static void load_ramdisk(struct vm *vm, const char *path, struct start_info *info)
{
    struct file file = map_file(path);
    uint64_t start;

    if (file.bytes > vm->bytes / 2)
        die("%s does not fit into the guest's %llu MiB", path, (unsigned long long)vm->bytes >> 20);
    start = (vm->bytes - file.bytes) & ~(uint64_t)(PAGE - 1);
    memcpy(vm->memory + start, file.data, file.bytes);
    munmap(file.data, file.bytes);
    info->modules = 1;
    info->modlist = START_INFO + offsetof(struct start_info, module);
    info->module.start = start;
    info->module.size = file.bytes;
}

static void seal(uint8_t *table, size_t bytes, unsigned place)
{
    uint8_t sum = 0;

    table[place] = 0;
    for (size_t i = 0; i < bytes; i++)
        sum += table[i];
    table[place] = -sum;
}

/* ACPI's tables of the interrupt controllers, all that a guest needs to find its processors. */
struct header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem[6], table[8];
    uint32_t oem_revision, creator, creator_revision;
} __attribute__((packed));

struct madt {
    struct header header;
    uint32_t local_apic, flags;
    struct { uint8_t type, length, id, reserved; uint32_t address, first; } io_apic;
    struct { uint8_t type, length, processor, id; uint32_t flags; } cpu[MAX_VCPUS];
} __attribute__((packed));

struct xsdt { struct header header; uint64_t madt; } __attribute__((packed));

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t whole_checksum, reserved[3];
} __attribute__((packed));

struct tables { struct rsdp rsdp; struct xsdt xsdt; struct madt madt; } __attribute__((packed));

static void begin(struct header *header, const char *signature, size_t bytes)
{
    *header = (struct header){.length = (uint32_t)bytes, .revision = 3, .creator = 1};
    memcpy(header->signature, signature, 4);
    memcpy(header->oem, "PMLKIT", 6);
    memcpy(header->table, "VMM     ", 8);
}

static uint64_t write_acpi(struct vm *vm)
{
    struct tables *all = (void *)(vm->memory + ACPI);
    size_t bytes = offsetof(struct madt, cpu) + vm->vcpus * sizeof all->madt.cpu[0];

    begin(&all->madt.header, "APIC", bytes);
    all->madt.local_apic = LOCAL_APIC;
    all->madt.flags = 1; /* there are 8259s, too */
    all->madt.io_apic.type = 1;
    all->madt.io_apic.length = sizeof all->madt.io_apic;
    all->madt.io_apic.address = IO_APIC;
    for (unsigned i = 0; i < vm->vcpus; i++) {
        all->madt.cpu[i].length = sizeof all->madt.cpu[i];
        all->madt.cpu[i].processor = all->madt.cpu[i].id = (uint8_t)i;
        all->madt.cpu[i].flags = 1;
    }
    seal((uint8_t *)&all->madt, bytes, offsetof(struct header, checksum));
    begin(&all->xsdt.header, "XSDT", sizeof all->xsdt);
    all->xsdt.madt = ACPI + offsetof(struct tables, madt);
    seal((uint8_t *)&all->xsdt, sizeof all->xsdt, offsetof(struct header, checksum));
    all->rsdp = (struct rsdp){.revision = 2, .length = sizeof all->rsdp,
                              .xsdt = ACPI + offsetof(struct tables, xsdt)};
    memcpy(all->rsdp.signature, "RSD PTR ", 8);
    memcpy(all->rsdp.oem, "PMLKIT", 6);
    seal((uint8_t *)&all->rsdp, 20, offsetof(struct rsdp, checksum));
    seal((uint8_t *)&all->rsdp, sizeof all->rsdp, offsetof(struct rsdp, whole_checksum));
    return ACPI;
}

uint32_t load(struct vm *vm, const char *kernel, const char *ramdisk, const char *cmdline)
{
    struct start_info *info = (void *)(vm->memory + START_INFO);
    uint32_t entry = load_kernel(vm, kernel);

    *info = (struct start_info){.magic = MAGIC, .version = 1, .cmdline = CMDLINE};
    info->memmap = START_INFO + offsetof(struct start_info, map);
    info->memmap_entries = 2;
    info->map[0].size = ACPI;
    info->map[1].start = HIGH;
    info->map[1].size = vm->bytes - HIGH;
    info->map[0].type = info->map[1].type = 1;
    strcpy((char *)at(vm, CMDLINE, strlen(cmdline) + 1, "the command line"), cmdline);
    if (ramdisk)
        load_ramdisk(vm, ramdisk, info);
    if (vm->irqchip)
        info->rsdp = write_acpi(vm);
    return entry;
}

/* SPDX-License-Identifier: GPL-2.0-only
 * PVH entry: an ELF note of Xen's names _start, entered in 32-bit protected mode without paging,
 * with the address of hvm_start_info in ebx. */
        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, 18          /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long _start

        .text
        .code32
        .globl _start, second_start, trampoline, trampoline_end
_start:
        cld
        mov $first_stack_top, %esp
        push %ebx
        call kit_main
second_start:
        cld
        mov $second_stack_top, %esp
        call kit_second
1:      hlt
        jmp 1b

        /* In real mode, in a copy below 1 MiB whose address is cs:0. */
        .code16
trampoline:
        cli
        lgdtl %cs:(gdt_pointer - trampoline)
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $8, $flat
gdt_pointer:
        .word gdt_end - gdt - 1
        .long gdt
trampoline_end:

        .code32
flat:
        mov $16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        jmp second_start
        .align 8
gdt:
        .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_end:

        .bss
        .align 4096
        .skip 4096
first_stack_top:
        .skip 4096
second_stack_top:

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
        .globl _start, second_start
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

        .bss
        .align 4096
        .skip 4096
first_stack_top:
        .skip 4096
second_stack_top:

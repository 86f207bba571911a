/* SPDX-License-Identifier: Apache-2.0
 * KVM's log of dirty pages: a ring for each vCPU, or a bitmap of the memory slot. */
#include "vmm.h"

#include <stdlib.h>
#include <string.h>

void log_set(struct vm *vm, bool on)
{
    struct kvm_userspace_memory_region region = {
        .flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        .memory_size = vm->bytes,
        .userspace_addr = (uintptr_t)vm->memory,
    };

    kvm_do(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static unsigned take_ring(struct vm *vm, struct vcpu *vcpu)
{
    unsigned taken = 0;

    for (;; vcpu->next++, taken++) {
        struct kvm_dirty_gfn *entry = &vcpu->ring[vcpu->next % vm->ring_entries];

        if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
            return taken;
        __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    }
}

static unsigned take_bitmap(struct vm *vm)
{
    static uint64_t *words;
    size_t count = (vm->bytes / PAGE + 63) / 64;
    unsigned taken = 0;

    if (!words && !(words = calloc(count, sizeof *words)))
        die("no memory for the bitmap");
    kvm_do(vm->fd, KVM_GET_DIRTY_LOG, (&(struct kvm_dirty_log){.dirty_bitmap = words}));
    for (size_t i = 0; i < count; i++)
        taken += __builtin_popcountll(words[i]);
    return taken;
}

unsigned log_take(struct vm *vm)
{
    unsigned taken = 0;

    if (!vm->ring_entries)
        return take_bitmap(vm);
    for (unsigned i = 0; i < vm->vcpus; i++)
        taken += take_ring(vm, &vm->vcpu[i]);
    kvm_do(vm->fd, KVM_RESET_DIRTY_RINGS, 0);
    return taken;
}

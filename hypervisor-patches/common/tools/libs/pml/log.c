/*
 * This library is free software; you can redistribute it and/or
 * modify it under the terms of the GNU Lesser General Public
 * License as published by the Free Software Foundation;
 * version 2.1 of the License.
 *
 * This library is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU
 * Lesser General Public License for more details.
 *
 * You should have received a copy of the GNU Lesser General Public
 * License along with this library; If not, see <http://www.gnu.org/licenses/>.
 */

/*
 * Reading a vCPU's log; xen/include/public/pml.h has the protocol.  Nothing in
 * here makes a hypercall: tools/tests/pml builds this file by itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define PAGE 4096UL

#define read_once(x)  __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define read_first(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)

static bool geometry_is_sane(const struct xen_pml_log *head, uint64_t size)
{
    uint64_t slots = head->nr_slots, desc = head->desc_offset;
    uint64_t data = head->data_offset, end = head->nr_frames * PAGE;

    return slots >= XEN_PML_MIN_SLOTS && slots <= XEN_PML_MAX_SLOTS &&
           !(slots & (slots - 1)) && end <= size &&
           desc >= PAGE && !(desc % PAGE) &&
           data >= desc + slots * sizeof(struct xen_pml_desc) &&
           !(data % PAGE) && data + slots * PAGE <= end;
}

xenpml_log *xenpml_log_attach(const void *memory, uint64_t size)
{
    const struct xen_pml_log *head = memory;
    struct xen_pml_log copy;
    xenpml_log *log;

    if ( !memory || size < PAGE )
    {
        errno = EINVAL;
        return NULL;
    }

    memcpy(&copy, head, sizeof(copy));
    if ( copy.magic != XEN_PML_LOG_MAGIC ||
         copy.version != XEN_PML_LOG_VERSION || !geometry_is_sane(&copy, size) )
    {
        errno = EPROTO;
        return NULL;
    }

    log = calloc(1, sizeof(*log));
    if ( !log )
        return NULL;

    log->head = head;
    log->desc = memory + copy.desc_offset;
    log->data = memory + copy.data_offset;
    log->slots = copy.nr_slots;
    log->frames = copy.nr_frames;

    return log;
}

int xenpml_log_get_info(xenpml_log *log, struct xenpml_log_info *info)
{
    const struct xen_pml_log *head = log->head;

    *info = (struct xenpml_log_info){
        .produced = read_first(head->produced),
        .slots = log->slots,
        .frames = log->frames,
        .domid = head->domid,
        .vcpu = head->vcpu,
        .generation = head->generation,
        .tsc_khz = head->tsc_khz,
        .epoch_tsc = head->epoch_tsc,
        .epoch_ns = head->epoch_ns,
        .entries = read_once(head->entries),
        .overwritten = read_once(head->overwritten),
    };

    return 0;
}

/* Copy record number n.  False if it has been overwritten, wholly or partly. */
static bool copy_record(const xenpml_log *log, uint64_t n,
                        struct xen_pml_desc *desc, uint64_t *data)
{
    uint32_t slot = n & (log->slots - 1);
    uint32_t count;

    memcpy(desc, &log->desc[slot], sizeof(*desc));
    count = desc->count < XEN_PML_SLOT_WORDS ? desc->count : XEN_PML_SLOT_WORDS;
    memcpy(data, log->data + slot * (uint64_t)XEN_PML_SLOT_WORDS,
           count * sizeof(*data));
    __atomic_thread_fence(__ATOMIC_ACQUIRE);

    return read_once(log->head->begun) - n <= log->slots;
}

int xenpml_log_read(xenpml_log *log, struct xenpml_record *record)
{
    struct xen_pml_desc desc;
    uint64_t missed = 0;

    for ( ; ; )
    {
        uint64_t produced = read_first(log->head->produced), begun;

        if ( produced == log->next )
            return 0;

        if ( copy_record(log, log->next, &desc, record->data) )
            break;

        /* Lapped.  Go on with the oldest record that is not being replaced. */
        begun = read_once(log->head->begun);
        if ( begun - log->slots <= log->next )
        {
            errno = EPROTO;
            return -1;
        }
        missed += begun - log->slots - log->next;
        log->next = begun - log->slots;
    }

    if ( desc.seq != log->next || desc.count > XEN_PML_SLOT_WORDS ||
         desc.first < log->next_first )
    {
        /* Not what Xen has written. */
        errno = EPROTO;
        return -1;
    }

    record->seq = desc.seq;
    record->first = desc.first;
    record->tsc_start = desc.tsc_start;
    record->tsc_end = desc.tsc_end;
    record->drain_tsc = desc.type == XEN_PML_TYPE_LOG ? desc.arg : 0;
    record->table = desc.type == XEN_PML_TYPE_TABLES ? desc.arg : 0;
    record->lost_entries = desc.first - log->next_first;
    record->lost_records = missed;
    record->round = desc.round;
    record->count = desc.count;
    record->type = desc.type;
    record->reason = desc.reason;
    record->flags = desc.flags;
    record->dropped = desc.dropped;
    record->vcpu = desc.vcpu;

    log->next++;
    log->next_first =
        desc.first + (desc.type == XEN_PML_TYPE_LOG ? desc.count : 0);

    return 1;
}

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

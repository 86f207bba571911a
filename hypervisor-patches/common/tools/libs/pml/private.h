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

#ifndef XENPML_PRIVATE_H
#define XENPML_PRIVATE_H

#include <stdbool.h>

#include <xenpml.h>
#include <xen/pml.h>

struct xenforeignmemory_handle;
struct xenforeignmemory_resource_handle;

/* A log which is being read. */
struct xenpml_log {
    const struct xen_pml_log *head;
    const struct xen_pml_desc *desc;
    const uint64_t *data;
    uint32_t slots, frames;     /* as checked when it was attached */
    uint64_t next;              /* the record to read next */
    uint64_t next_first;        /* and its `first`, if nothing is missed */

    /* If the library has mapped it. */
    struct xenforeignmemory_handle *fmem;
    struct xenforeignmemory_resource_handle *resource;
};

#endif

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * tab-width: 4
 * indent-tabs-mode: nil
 * End:
 */

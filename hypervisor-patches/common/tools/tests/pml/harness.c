/* SPDX-License-Identifier: GPL-2.0-only */
#include <xenpml.h>

/* The library's own is with what it maps from Xen; here nothing is mapped. */
int xenpml_log_unmap(xenpml_log *log)
{
    free(log);

    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* What the hypervisor's files find in the hypervisor, and tests need. */
#ifndef PML_HARNESS_H
#define PML_HARNESS_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xen/pml.h>

struct xenpml_log;
int xenpml_log_unmap(struct xenpml_log *log);

#define xzalloc_bytes(n) calloc(1, n)
#define xfree(p) free(p)
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define smp_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)
#define clear_bit(nr, p) \
    ((void)__atomic_fetch_and(p, ~(1ULL << (nr)), __ATOMIC_SEQ_CST))
#define write_atomic(p, x) __atomic_store_n(p, x, __ATOMIC_RELAXED)

#define CHECK(cond, fmt, args...)                                       \
    do {                                                                \
        if ( !(cond) )                                                  \
        {                                                               \
            fprintf(stderr, "%s:%d: %s: " fmt "\n", __FILE__, __LINE__, \
                    #cond, ## args);                                    \
            abort();                                                    \
        }                                                               \
    } while ( 0 )

#endif

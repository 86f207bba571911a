/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Xen for tests: what its libraries ask the hypervisor and Xenstore is answered out of a folder,
 * $FAKE_XEN. The file `domains` has a line "DOMID NAME UUID FLAGS" for each domain (flags as of
 * XEN_DOMCTL_getdomaininfo); `logdirty-DOMID` exists while its log-dirty mode is on.
 */
#ifndef FAKE_H
#define FAKE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake_domain {
    unsigned domid, flags;
    char name[128], uuid[64];
};

static inline const char *fake_path(char *to, const char *name, int domid)
{
    const char *folder = getenv("FAKE_XEN");

    if ( domid < 0 )
        snprintf(to, 512, "%s/%s", folder ? folder : ".", name);
    else
        snprintf(to, 512, "%s/%s-%d", folder ? folder : ".", name, domid);
    return to;
}

/* The first domain with an id of at least `domid`. */
static inline bool fake_find(unsigned domid, struct fake_domain *found)
{
    char path[512];
    FILE *file = fopen(fake_path(path, "domains", -1), "r");
    struct fake_domain d;
    bool any = false;

    while ( file &&
            fscanf(file, "%u %127s %63s %x", &d.domid, d.name, d.uuid, &d.flags) == 4 )
        if ( d.domid >= domid && (!any || d.domid < found->domid) )
        {
            *found = d;
            any = true;
        }
    if ( file )
        fclose(file);
    return any;
}

static inline bool fake_exists(unsigned domid)
{
    struct fake_domain d;

    return fake_find(domid, &d) && d.domid == domid;
}

static inline bool fake_logdirty(int domid)
{
    char path[512];

    return !access(fake_path(path, "logdirty", domid), F_OK);
}

static inline void fake_set_logdirty(int domid, bool on)
{
    char path[512];
    FILE *file;

    fake_path(path, "logdirty", domid);
    if ( !on )
        unlink(path);
    else if ( (file = fopen(path, "w")) )
        fclose(file);
}

static inline long fake_number(const char *name, long otherwise)
{
    const char *text = getenv(name);

    return text ? atol(text) : otherwise;
}

#endif

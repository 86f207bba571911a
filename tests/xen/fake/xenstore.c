/* SPDX-License-Identifier: Apache-2.0 */
/* libxenstore for tests: see fake.h. */
#include "fake.h"

struct xs_handle {
    int unused;
};

struct xs_handle *xs_open(unsigned long flags)
{
    if ( !getenv("FAKE_XEN") )
    {
        errno = ENOENT;
        return NULL;
    }
    return calloc(1, sizeof(struct xs_handle));
}

void xs_close(struct xs_handle *h)
{
    free(h);
}

char **xs_directory(struct xs_handle *h, uint32_t t, const char *path, unsigned *num)
{
    struct fake_domain d = { 0 };
    char **list = calloc(64, sizeof(char *) + 16);
    char *text = (char *)(list + 64);
    unsigned next;

    for ( next = *num = 0; *num < 64 && fake_find(next, &d); next = d.domid + 1 )
    {
        list[(*num)++] = text;
        text += sprintf(text, "%u", d.domid) + 1;
    }
    return list;
}

void *xs_read(struct xs_handle *h, uint32_t t, const char *path, unsigned *len)
{
    struct fake_domain d;
    unsigned domid;
    char what[32], *value = calloc(1, 256);

    if ( sscanf(path, "/local/domain/%u/%31[a-z/-]", &domid, what) == 2 && fake_find(domid, &d) &&
         d.domid == domid )
    {
        if ( !strcmp(what, "name") )
            strcpy(value, d.name);
        else if ( !strcmp(what, "vm") )
            sprintf(value, "/vm/%s", d.uuid);
        else if ( !strcmp(what, "memory/static-max") )
            strcpy(value, "65536");
    }
    if ( *value )
    {
        *len = strlen(value);
        return value;
    }
    free(value);
    errno = ENOENT;
    return NULL;
}

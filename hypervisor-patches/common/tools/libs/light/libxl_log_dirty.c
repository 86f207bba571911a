/*
 * This program is free software; you can redistribute it and/or modify
 * it under the terms of the GNU Lesser General Public License as published
 * by the Free Software Foundation; version 2.1 only. with the special
 * exception on linking described in file LICENSE.
 *
 * This program is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
 * GNU Lesser General Public License for more details.
 */

/* Log-dirty mode by Page Modification Logging, over libxenpml. */

#include "libxl_osdeps.h" /* must come before any other headers */
#include "libxl_internal.h"

#include <xenpml.h>
#include <xen/pml.h>

static xenpml_handle *log_dirty_open(libxl__gc *gc)
{
    xenpml_handle *h = xenpml_open(CTX->lg, 0);

    if (!h)
        LOGE(ERROR, "cannot open an interface to Xen");

    return h;
}

static int log_dirty_error(libxl__gc *gc, uint32_t domid, int err,
                           const char *what)
{
    switch (err) {
    case ESRCH:
        LOGED(ERROR, domid, "%s: there is no such domain", what);
        return ERROR_DOMAIN_NOTFOUND;
    case ENOENT:
        LOGD(ERROR, domid, "%s: it is not being logged", what);
        return ERROR_INVAL;
    case ENOSYS:
        LOGD(ERROR, domid, "%s: this Xen does not hand out PML logs", what);
        return ERROR_NI;
    case EBUSY:
        LOGD(ERROR, domid, "%s: somebody else is at it", what);
        return ERROR_INVAL;
    case ETIME:
        LOGD(ERROR, domid, "%s: an operation was broken off", what);
        return ERROR_FAIL;
    case ENOMEM:
        LOGED(ERROR, domid, "%s", what);
        return ERROR_NOMEM;
    default:
        LOGED(ERROR, domid, "%s", what);
        return ERROR_FAIL;
    }
}

int libxl__domain_check_not_logged(libxl__gc *gc, uint32_t domid)
{
    xenpml_handle *h = xenpml_open(CTX->lg, 0);
    struct xenpml_status s = {};

    /* Without an answer, it is for Xen to refuse. */
    if (h && xenpml_get_status(h, domid, &s))
        s.state = XENPML_STATE_OFF;
    xenpml_close(h);

    if (s.state == XENPML_STATE_OFF)
        return 0;

    LOGD(ERROR, domid, "it is being logged, and cannot be migrated live: "
         "use xl disable-log-dirty first");

    return ERROR_FAIL;
}

/* Xen would say EINVAL, and no more. */
static int check_options(libxl__gc *gc, uint32_t domid,
                         const libxl_log_dirty_options *o)
{
    if (o->slots & (o->slots - 1) || o->slots > XEN_PML_MAX_SLOTS ||
        (o->slots && o->slots < XEN_PML_MIN_SLOTS)) {
        LOGD(ERROR, domid, "the size of a ring is a power of two from %u to "
             "%u, not %"PRIu32, XEN_PML_MIN_SLOTS, XEN_PML_MAX_SLOTS, o->slots);
        return ERROR_INVAL;
    }
    if (o->buffers > XEN_PML_MAX_BUFFERS) {
        LOGD(ERROR, domid, "a vcpu has from 1 to %u buffers, not %"PRIu32,
             XEN_PML_MAX_BUFFERS, o->buffers);
        return ERROR_INVAL;
    }
    if (o->rearm_every > XEN_PML_MAX_REARM_EVERY) {
        LOGD(ERROR, domid, "pages can be re-armed after every 1 to %u buffers, "
             "not %"PRIu32, XEN_PML_MAX_REARM_EVERY, o->rearm_every);
        return ERROR_INVAL;
    }
    if (o->clear_accessed && o->rearm == LIBXL_LOG_DIRTY_REARM_NEVER) {
        LOGD(ERROR, domid, "accessed flags can only be cleared if pages are "
             "re-armed");
        return ERROR_INVAL;
    }

    return 0;
}

int libxl_domain_log_dirty_enable(libxl_ctx *ctx, uint32_t domid,
                                  const libxl_log_dirty_options *options)
{
    GC_INIT(ctx);
    struct xenpml_options o = {
        .slots = options->slots,
        .buffers = options->buffers,
        .rearm = options->rearm,
        .rearm_every = options->rearm_every,
    };
    uint32_t refusal = XENPML_REFUSED_NOT;
    xenpml_handle *h;
    int rc = check_options(gc, domid, options);

    if (rc)
        goto out;
    rc = ERROR_FAIL;

    switch (options->page_tables) {
    case LIBXL_LOG_DIRTY_PAGE_TABLES_DROP:
        o.flags |= XENPML_OPT_DROP;
        /* fall through */
    case LIBXL_LOG_DIRTY_PAGE_TABLES_MARK:
        o.flags |= XENPML_OPT_TABLES;
        break;
    default:
        break;
    }
    if (options->snapshots)
        o.flags |= XENPML_OPT_TABLES | XENPML_OPT_SNAPSHOTS;
    if (options->accessed)
        o.flags |= XENPML_OPT_ACCESSED;
    if (options->clear_accessed)
        o.flags |= XENPML_OPT_TABLES | XENPML_OPT_SNAPSHOTS | XENPML_OPT_CLEAR;

    h = log_dirty_open(gc);
    if (!h)
        goto out;

    rc = xenpml_enable(h, domid, &o, &refusal);
    if (rc && refusal != XENPML_REFUSED_NOT) {
        int unsupported = errno == EOPNOTSUPP;

        LOGD(ERROR, domid, "cannot be logged: %s",
             xenpml_refusal_text(refusal));
        rc = refusal == XENPML_REFUSED_DYING ? ERROR_DOMAIN_NOTFOUND :
             refusal == XENPML_REFUSED_MEMORY ||
             refusal == XENPML_REFUSED_POOL ? ERROR_NOMEM :
             unsupported ? ERROR_NI : ERROR_INVAL;
    } else if (rc)
        rc = log_dirty_error(gc, domid, errno, "enabling log-dirty mode");

    xenpml_close(h);
out:
    GC_FREE;
    return rc;
}

int libxl_domain_log_dirty_disable(libxl_ctx *ctx, uint32_t domid)
{
    GC_INIT(ctx);
    xenpml_handle *h = log_dirty_open(gc);
    int rc = ERROR_FAIL;

    if (!h)
        goto out;

    rc = xenpml_disable(h, domid);
    if (rc)
        rc = log_dirty_error(gc, domid, errno, "disabling log-dirty mode");

    xenpml_close(h);
out:
    GC_FREE;
    return rc;
}

int libxl_domain_log_dirty_status(libxl_ctx *ctx, uint32_t domid,
                                  libxl_log_dirty_status *status)
{
    GC_INIT(ctx);
    xenpml_handle *h = log_dirty_open(gc);
    struct xenpml_status s;
    int rc = ERROR_FAIL;

    if (!h)
        goto out;

    rc = xenpml_get_status(h, domid, &s);
    if (rc) {
        rc = log_dirty_error(gc, domid, errno, "status of log-dirty mode");
        goto close;
    }

    status->active = s.state == XENPML_STATE_LOGGING;
    status->possible = status->active || s.refusal == XENPML_REFUSED_NOT;
    status->reason = libxl__strdup(NOGC, s.state == XENPML_STATE_BROKEN ?
        "logging it was broken off: use xl disable-log-dirty first" :
        xenpml_refusal_text(s.refusal));
    status->options.slots = s.options.slots;
    status->options.buffers = s.options.buffers;
    status->options.rearm = s.options.rearm;
    status->options.rearm_every = s.options.rearm_every;
    status->options.page_tables =
        s.options.flags & XENPML_OPT_DROP ? LIBXL_LOG_DIRTY_PAGE_TABLES_DROP :
        s.options.flags & XENPML_OPT_TABLES ? LIBXL_LOG_DIRTY_PAGE_TABLES_MARK :
        LIBXL_LOG_DIRTY_PAGE_TABLES_PLAIN;
    status->options.snapshots = s.options.flags & XENPML_OPT_SNAPSHOTS;
    status->options.accessed = s.options.flags & XENPML_OPT_ACCESSED;
    status->options.clear_accessed = s.options.flags & XENPML_OPT_CLEAR;
    status->round = s.round;
    status->vcpus = s.vcpus;
    status->entries = s.entries;
    status->overwritten = s.overwritten;
    status->rearmed = s.rearmed;
    status->tables = s.tables;
    status->superpages = s.superpages;
    status->bitmap_failed = s.bitmap_failed;
    status->memory = s.memory;

close:
    xenpml_close(h);
out:
    GC_FREE;
    return rc;
}

/*
 * Local variables:
 * mode: C
 * c-basic-offset: 4
 * indent-tabs-mode: nil
 * End:
 */

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

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxl.h>
#include <libxl_utils.h>

#include "xl.h"
#include "xl_utils.h"

static uint32_t parse_count(const char *command, const char *what,
                            const char *text)
{
    unsigned long value;
    char *end;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno || end == text || *end || !value || value > UINT32_MAX) {
        fprintf(stderr, "%s: %s: \"%s\" is not a positive number\n",
                command, what, text);
        exit(EXIT_FAILURE);
    }

    return value;
}

static void parse_rearm(const char *command, const char *text,
                        libxl_log_dirty_options *options)
{
    char *name = xstrdup(text), *every = strchr(name, ':');

    if (every)
        *every++ = '\0';

    if (libxl_log_dirty_rearm_from_string(name, &options->rearm) ||
        (every && options->rearm != LIBXL_LOG_DIRTY_REARM_FLUSH)) {
        fprintf(stderr, "%s: --rearm is \"never\", \"round\", \"flush\" or "
                "\"flush:K\", not \"%s\"\n", command, text);
        exit(EXIT_FAILURE);
    }
    if (every)
        options->rearm_every = parse_count(command, "--rearm", every);

    free(name);
}

int main_enable_log_dirty(int argc, char **argv)
{
    static const char command[] = "enable-log-dirty";
    static const struct option opts[] = {
        {"ring", 1, 0, 'r'},
        {"buffers", 1, 0, 'b'},
        {"rearm", 1, 0, 'a'},
        {"page-tables", 1, 0, 't'},
        {"snapshots", 0, 0, 's'},
        {"accessed", 0, 0, 'A'},
        {"clear-accessed", 0, 0, 'c'},
        COMMON_LONG_OPTS
    };
    libxl_log_dirty_options options;
    int opt, rc;

    libxl_log_dirty_options_init(&options);
    options.rearm = LIBXL_LOG_DIRTY_REARM_ROUND;

    SWITCH_FOREACH_OPT(opt, "r:b:a:t:sAc", opts, command, 1) {
    case 'r':
        options.slots = parse_count(command, "--ring", optarg);
        break;
    case 'b':
        options.buffers = parse_count(command, "--buffers", optarg);
        break;
    case 'a':
        parse_rearm(command, optarg, &options);
        break;
    case 't':
        if (libxl_log_dirty_page_tables_from_string(optarg,
                                                    &options.page_tables)) {
            fprintf(stderr, "%s: --page-tables is \"plain\", \"mark\" or "
                    "\"drop\", not \"%s\"\n", command, optarg);
            return EXIT_FAILURE;
        }
        break;
    case 's':
        options.snapshots = true;
        break;
    case 'A':
        options.accessed = true;
        break;
    case 'c':
        options.clear_accessed = true;
        break;
    }

    rc = libxl_domain_log_dirty_enable(ctx, find_domain(argv[optind]),
                                       &options);
    libxl_log_dirty_options_dispose(&options);

    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main_disable_log_dirty(int argc, char **argv)
{
    int opt;

    SWITCH_FOREACH_OPT(opt, "", NULL, "disable-log-dirty", 1) {
        /* No options */
    }

    return libxl_domain_log_dirty_disable(ctx, find_domain(argv[optind]))
           ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main_log_dirty_status(int argc, char **argv)
{
    libxl_log_dirty_status status;
    int opt;

    SWITCH_FOREACH_OPT(opt, "", NULL, "log-dirty-status", 1) {
        /* No options */
    }

    libxl_log_dirty_status_init(&status);
    if (libxl_domain_log_dirty_status(ctx, find_domain(argv[optind]), &status))
        return EXIT_FAILURE;

    printf("%-15s: %s\n", "logging", status.active ? "on" : "off");
    if (!status.active) {
        printf("%-15s: %s%s%s\n", "possible", status.possible ? "yes" : "no",
               status.possible ? "" : ", ",
               status.possible ? "" : status.reason);
        goto out;
    }

    printf("%-15s: %"PRIu32"\n", "round", status.round);
    printf("%-15s: %"PRIu32"\n", "vcpus", status.vcpus);
    printf("%-15s: %"PRIu32" records per vcpu\n", "ring",
           status.options.slots);
    printf("%-15s: %"PRIu32"\n", "buffers", status.options.buffers);
    printf("%-15s: %s", "rearm",
           libxl_log_dirty_rearm_to_string(status.options.rearm));
    if (status.options.rearm == LIBXL_LOG_DIRTY_REARM_FLUSH)
        printf(":%"PRIu32, status.options.rearm_every);
    printf("\n%-15s: %s%s\n", "page tables",
           libxl_log_dirty_page_tables_to_string(status.options.page_tables),
           !status.options.snapshots ? "" :
           status.options.clear_accessed ? ", with snapshots that clear" :
                                           ", with snapshots");
    printf("%-15s: %s\n", "accessed flags",
           status.options.accessed ? "harvested" : "not harvested");
    printf("%-15s: %"PRIu64"\n", "entries", status.entries);
    printf("%-15s: %"PRIu64"\n", "overwritten", status.overwritten);
    printf("%-15s: %"PRIu64"\n", "rearmed", status.rearmed);
    printf("%-15s: %"PRIu64"\n", "tables known", status.tables);
    printf("%-15s: %"PRIu64"\n", "superpages", status.superpages);
    printf("%-15s: %"PRIu64"\n", "bitmap failed", status.bitmap_failed);
    printf("%-15s: %"PRIu64" KiB\n", "memory", (status.memory + 1023) / 1024);

out:
    libxl_log_dirty_status_dispose(&status);

    return EXIT_SUCCESS;
}

/*
 * Local variables:
 * mode: C
 * c-basic-offset: 4
 * indent-tabs-mode: nil
 * End:
 */

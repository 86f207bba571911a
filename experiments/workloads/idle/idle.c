/* SPDX-License-Identifier: Apache-2.0
 * idle PAGES PHASE_MS: has PAGES pages and touches none: what is left is the kernel's own noise. */
#include "pace.h"

int main(int argc, char **argv)
{
    long pages = argument(argc, argv, 1, "pages", 1, 1 << 18);
    long phase_ms = argument(argc, argv, 2, "phase_ms", 1, 1000000);

    pml_buffer("buffer", pages * PML_PAGE);
    pml_expect("idle", "buffer", "touched", 0);
    begin("idle");
    sleep_until_ns(now_ns() + phase_ms * MS);
    return done("idle");
}

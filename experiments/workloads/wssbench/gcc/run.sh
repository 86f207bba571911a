#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A build machine: small files most of the time, a large library now and then.
. ./bench.sh
cd /tmp
made() { # FUNCTIONS: a C file of so many functions
    awk -v n="$1" -v s="$seed" '
        function draw(limit) { s = (s * 16807) % 2147483647; return s % limit }
        BEGIN {
            print "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>"
            for (i = 0; i < n; i++) {
                printf "int f%d(int *a, int n)\n{\n    int r = %d;\n    for (int i = 0; i < n; i++)\n", i, draw(99)
                printf "        r = (r ^ a[i]) * %d + (a[i] > %d ? i : -i);\n", draw(999), draw(99)
                printf "    return r %s %d;\n}\n", draw(2) ? "+" : "^", draw(9999)
            }
        }' >made.c
}
library() { # NAME DEFINITION
    printf '#define %s\n#include <stdlib.h>\n#include <stb/%s.h>\n' "$2" "$1" >library.c
}
compile() { gcc-12 -w "$@" || exit 1; }
while :; do
    draw 8
    case $drawn in
    0 | 1 | 2) phase small; draw 30; made $((drawn + 3)); compile -O1 -c made.c -o made.o ;;
    3) phase small; draw 30; made $((drawn + 3)); compile -O0 -c made.c -o made2.o ;;
    4) phase optimize; draw 60; made $((drawn + 20)); compile -O2 -c made.c -o made.o ;;
    5) phase large; library stb_image_write STB_IMAGE_WRITE_IMPLEMENTATION; compile -O1 -c library.c -o library.o ;;
    6) phase large; library stb_rect_pack STB_RECT_PACK_IMPLEMENTATION; compile -O2 -c library.c -o library.o ;;
    7) phase link; for i in 1 2 3; do gcc-12 -shared -nostdlib ./*.o -o job.so 2>/dev/null; done ;;
    esac
    rest
done

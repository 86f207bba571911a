#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A developer's repository: many small commits, and what one asks of its history.
. ./bench.sh
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@guest GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@guest
mkdir /tmp/tree
cd /tmp/tree
g() { git -c gc.auto=0 -c advice.detachedHead=false "$@" >/dev/null 2>&1 || exit 1; }
edit() { # FILES: a few lines of so many files change
    for i in $(seq "$1"); do
        draw 300
        file=$(printf 'part%d/file%04d' $((drawn % 12)) $drawn)
        { head -n 30 "$file"; words 3; tail -n +33 "$file"; } >new
        mv new "$file"
    done
}
phase import
for i in 0 1 2 3 4 5 6 7 8 9 10 11; do mkdir part$i; done
words 12000 >/tmp/text
awk '{ n = int(NR / 40); f = sprintf("part%d/file%04d", n % 12, n); if (f != old) close(old); old = f; print >f }' /tmp/text
g init
cp /usr/bin/busybox program
g add -A
g commit -m import
while :; do
    draw 10
    case $drawn in
    0 | 1 | 2) phase commit; for c in 1 2 3; do draw 6; edit $((drawn + 1)); g commit -a -m "change $drawn"; done ;;
    3) phase commit; draw 60; edit $((drawn + 40)); g commit -a -m large ;;
    4) phase log; g log --stat -n 40 ;;
    5) phase search; g grep -n -c working; g log -S'memory frame' --oneline -n 30 ;;
    6) phase blame; draw 300; g blame "$(printf 'part%d/file%04d' $((drawn % 12)) $drawn)"; g diff HEAD~1 ;;
    7) phase branch; g checkout -B topic HEAD~1; edit 2; g commit -a -m topic; g checkout - ; g merge -X ours topic -m merge ;;
    8) phase clone; rm -rf /tmp/clone; g clone --no-local /tmp/tree /tmp/clone ;;
    9) phase repack; g repack -a -d ;;
    esac
    rest
done

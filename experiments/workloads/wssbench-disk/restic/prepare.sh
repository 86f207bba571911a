#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 200 texts that change, and 64 MiB of files that do not.
. ./bench.sh
mkdir -p /tmp/tree/videos
words 20000 >/tmp/text
pieces /tmp/text 100 /tmp/tree/text-
for i in $(seq 0 15); do head -c 4194304 /dev/urandom >/tmp/tree/videos/$i; done

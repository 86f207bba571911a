#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# redis-server under redis-benchmark over loopback: load, get, get of a few keys, idle.
set -e
redis-server --port 6379 --bind 127.0.0.1 --save '' --appendonly no --daemonize yes >/dev/null
until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done

bench() { # NUMBER KEYS COMMAND...: keys are named so that the server holds them by number
    number=$1 keys=$2
    shift 2
    redis-benchmark -q -n "$number" -r "$keys" -c 10 -P "$pipeline" "$@" |
        tr '\r' '\n' | grep 'per second'
}

pmlguest phase load
bench "$((keys * 2))" "$keys" -d "$value_bytes" -t set
redis-cli info memory | grep ^used_memory_human
pmlguest phase get
bench "$gets" "$keys" -t get
pmlguest phase get-few
bench "$gets" "$few" -t get
pmlguest phase idle
sleep "$idle_s"
pmlguest phase done
redis-cli shutdown nosave

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# redis-server under a load that rises and falls: the number of keys in use walks up and down, bursts
# of writes and reads follow each other with pauses, and now and then the server is emptied.
set -e
redis-server --port 6379 --bind 127.0.0.1 --save '' --appendonly no --daemonize yes >/dev/null
until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done

draw() { # LIMIT: a number from 0 to below it, in $drawn; the same ones each time
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    drawn=$((seed / 65536 % $1))
}

bench() { # NUMBER KEYS COMMAND...
    number=$1 range=$2
    shift 2
    redis-benchmark -q -n "$number" -r "$range" -c 10 -P "$pipeline" "$@" >/dev/null
}

episode() {
    draw 7; level=$((level + drawn - 3))
    [ $level -ge 1 ] || level=1
    [ $level -le 12 ] || level=12
    keys=$((level * step_keys))
    draw 10
    case $drawn in
    0 | 1 | 2) pmlguest phase write; bench $((keys + keys / 2)) $keys -d "$value_bytes" -t set ;;
    3 | 4) pmlguest phase read; bench $((keys * 2)) $keys -t get ;;
    5 | 6) pmlguest phase read-few; bench 20000 300 -t get ;;
    7) pmlguest phase mixed; bench $keys $keys -d "$value_bytes" -t set,get,incr ;;
    8) pmlguest phase lists; bench $((keys / 2)) $keys -d "$value_bytes" -t lpush,lpop ;;
    9) pmlguest phase flush; redis-cli flushall >/dev/null ;;
    esac
    draw 100; pause=$((drawn * drawn / 250 + 3)) # tenths of a second
    if [ $pause -ge 10 ]; then
        pmlguest phase pause
        sleep $((pause / 10)).$((pause % 10))
    fi
}

episodes=0
until [ "$(cut -d. -f1 /proc/uptime)" -ge "$until_s" ]; do
    episode
    episodes=$((episodes + 1))
done
pmlguest phase done
echo "redis-tides: $episodes episodes"
redis-cli shutdown nosave

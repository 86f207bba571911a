#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A cluster with pgbench's tables of scale 2, as the user postgres: the server refuses root.
echo 'postgres:x:100:100::/tmp:/bin/sh' >>/etc/passwd
echo 'postgres:x:100:' >>/etc/group
mkdir -p /tmp/db /tmp/run
chown postgres:postgres /tmp/db /tmp/run
./as initdb -D /tmp/db -A trust -N --locale=C -E UTF8 >/tmp/initdb 2>&1 || {
    tail -n 5 /tmp/initdb
    exit 1
}
cat >>/tmp/db/postgresql.conf <<'EOF'
listen_addresses = ''
unix_socket_directories = '/tmp/run'
shared_buffers = 24MB
work_mem = 8MB
fsync = off
jit = off
autovacuum_naptime = 20s
max_wal_size = 64MB
EOF
./as pg_ctl -D /tmp/db -w -l /tmp/run/log start >/dev/null || { cat /tmp/run/log; exit 1; }
./as pgbench -i -q -s 2 >/dev/null 2>&1

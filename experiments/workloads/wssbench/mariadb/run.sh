#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A shop's database: look-ups of customers most of the time, then inserts, reports, joins, updates.
. ./bench.sh
sql() { mariadb --no-defaults --socket=/tmp/run/s shop >/dev/null || exit 1; }
each() { # NUMBER STATEMENT: with %d for a number that is drawn each time
    awk -v n="$1" -v s="$seed" -v f="$2;\n" 'BEGIN { for (i = 0; i < n; i++) {
        s = (s * 16807) % 2147483647; printf f, s % 8000 } }' | sql
}
while :; do
    draw 10
    case $drawn in
    0 | 1 | 2 | 3) phase lookup; draw 8; each $((drawn * 60 + 60)) 'SELECT * FROM sale WHERE customer = %d ORDER BY day' ;;
    4 | 5) phase insert; each 250 'INSERT INTO sale (customer, day, amount) VALUES (%d, 400, 9.5)' ;;
    6) phase report; echo 'SELECT day, count(*), avg(amount), max(note) FROM sale GROUP BY day;' | sql ;;
    7)
        phase join
        echo 'SELECT city, sum(amount) FROM customer JOIN sale ON sale.customer = customer.id
            WHERE day < 60 GROUP BY city ORDER BY 2;' | sql
        ;;
    8) phase update; draw 400; echo "UPDATE sale SET amount = amount * 1.01 WHERE day BETWEEN $drawn AND $drawn + 12;" | sql ;;
    9) phase delete; draw 400; echo "DELETE FROM sale WHERE day BETWEEN $drawn AND $drawn + 3;" | sql ;;
    esac
    rest
done

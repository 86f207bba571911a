/* SPDX-License-Identifier: Apache-2.0
 * forks PROCESSES SLICE ROUNDS: a shared buffer of PROCESSES x SLICE pages, and as many processes,
 * each with page tables of its own. Phases: each process reads its own slice (slices), each reads
 * all of the buffer (shared), and processes that live just long enough to read a slice (churn).
 * In every phase all pages of the buffer are read, and none is written. */
#include <sys/wait.h>

#include "pace.h"

#define ALL (-1)
#define PAUSE_BETWEEN_MS 40

static char *buffer;
static long processes, slice;

static void read_slice(long which)
{
    long first = which == ALL ? 0 : which * slice, n = which == ALL ? processes * slice : slice, i;

    for (i = first; i < first + n; i++)
        read_page(buffer, i);
}

/* A worker reads what it is told, says so, and ends with its pipe. */
static void work(long me, int orders, int answers)
{
    char order;

    while (read(orders, &order, 1) == 1) {
        read_slice(order == 's' ? me : ALL);
        if (write(answers, &order, 1) != 1)
            break;
    }
    _exit(0);
}

static int *start_workers(int *answers)
{
    int *orders = malloc(processes * sizeof(*orders)), back[2], to[2];
    long i, j;

    if (!orders || pipe(back)) {
        perror("forks");
        exit(1);
    }
    for (i = 0; i < processes; i++) {
        if (pipe(to)) {
            perror("forks");
            exit(1);
        }
        switch (fork()) {
        case -1:
            perror("forks");
            exit(1);
        case 0:
            for (j = 0; j < i; j++)
                close(orders[j]);
            close(to[1]);
            work(i, to[0], back[1]);
        }
        close(to[0]);
        orders[i] = to[1];
    }
    *answers = back[0];
    return orders;
}

static void order_all(const int *orders, int answers, char order, long rounds)
{
    long round, i;
    char answer;

    for (round = 0; round < rounds; round++) {
        for (i = 0; i < processes; i++)
            if (write(orders[i], &order, 1) != 1 || read(answers, &answer, 1) != 1) {
                perror("forks: a process is gone");
                exit(1);
            }
        sleep_until_ns(now_ns() + PAUSE_BETWEEN_MS * MS);
    }
}

static void churn(long rounds)
{
    long round, i;

    for (round = 0; round < rounds; round++) {
        for (i = 0; i < processes; i++)
            if (!fork()) {
                read_slice(i);
                _exit(0);
            }
        while (wait(NULL) > 0)
            ;
        sleep_until_ns(now_ns() + PAUSE_BETWEEN_MS * MS);
    }
}

static void expect(const char *phase)
{
    pml_expect(phase, "buffer", "read", processes * slice);
    pml_expect(phase, "buffer", "written", 0);
}

int main(int argc, char **argv)
{
    long rounds, i;
    int *orders, answers;
    size_t bytes;

    processes = argument(argc, argv, 1, "processes", 1, 500);
    slice = argument(argc, argv, 2, "slice", 1, 1 << 16);
    rounds = argument(argc, argv, 3, "rounds", 1, 1000000);
    bytes = processes * slice * PML_PAGE;
    buffer = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) {
        perror("forks: no memory");
        return 1;
    }
    pml_region("buffer", buffer, bytes);
    orders = start_workers(&answers);
    expect("slices");
    begin("slices");
    order_all(orders, answers, 's', rounds);
    expect("shared");
    begin("shared");
    order_all(orders, answers, 'a', rounds);
    for (i = 0; i < processes; i++)
        close(orders[i]);
    while (wait(NULL) > 0)
        ;
    expect("churn");
    begin("churn");
    churn(rounds);
    return done("forks");
}

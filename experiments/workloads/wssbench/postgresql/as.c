/* SPDX-License-Identifier: Apache-2.0
 *
 * as COMMAND...: runs a program of PostgreSQL's as the user 100, as the server refuses root.
 */
#include <grp.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 2 || setgroups(0, NULL) || setgid(100) || setuid(100) || chdir("/tmp"))
        return 2;
    setenv("PATH", "/usr/lib/postgresql/15/bin:/usr/bin", 1);
    setenv("HOME", "/tmp", 1);
    setenv("PGHOST", "/tmp/run", 1);
    setenv("PGDATABASE", "postgres", 1);
    execvp(argv[1], argv + 1);
    return 3;
}

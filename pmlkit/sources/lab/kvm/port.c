/* SPDX-License-Identifier: Apache-2.0
 * port NUMBER TEXT: write a text to an I/O port. Debian's cloud kernel has no /dev/port. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

int main(int count, char **words)
{
    unsigned long port = count == 3 ? strtoul(words[1], NULL, 0) : 0;

    if (!port || port > 0xffff || ioperm(port, 1, 1)) {
        perror("port");
        return 1;
    }
    for (const char *at = words[2]; *at; at++)
        outb((unsigned char)*at, (unsigned short)port);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * A client of memcached: client SEED get|set|mix REQUESTS KEYS BYTES. It sends 16 requests at once.
 * Low keys are drawn more often: the square of a uniform draw.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_ONCE = 16 };
static uint64_t state;

static double draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / (double)(1ull << 53);
}

static void send_all(int s, const char *data, size_t length)
{
    while (length) {
        ssize_t sent = write(s, data, length);
        if (sent <= 0)
            exit(3);
        data += sent, length -= (size_t)sent;
    }
}

/* Reads until `answers` lines came that end an answer: STORED or END. */
static void receive(int s, int answers)
{
    static char data[1 << 16];
    static int at_line = 1;
    while (answers > 0) {
        ssize_t got = read(s, data, sizeof data);
        if (got <= 0)
            exit(4);
        for (ssize_t i = 0; i < got; i++) {
            answers -= at_line && (data[i] == 'S' || data[i] == 'E'); /* values have neither */
            at_line = data[i] == '\n';
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    state = strtoull(argv[1], NULL, 10) * 2654435761u + 1;
    int requests = atoi(argv[3]), keys = atoi(argv[4]), bytes = atoi(argv[5]);
    char *request = malloc((size_t)AT_ONCE * (size_t)(bytes + 100)), *value = malloc((size_t)bytes + 1);
    memset(value, 'v', (size_t)bytes);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(11211)};
    inet_aton("127.0.0.1", &to.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&to, sizeof to))
        return 5;
    for (int i = 0; i < requests; i += AT_ONCE) {
        size_t length = 0;
        for (int j = 0; j < AT_ONCE; j++) {
            double u = draw();
            int key = (int)(u * u * keys), set = argv[2][0] == 's' || (argv[2][0] == 'm' && j % 4 == 0);
            if (!set) {
                length += (size_t)sprintf(request + length, "get key%d\r\n", key);
                continue;
            }
            length += (size_t)sprintf(request + length, "set key%d 0 0 %d\r\n", key, bytes);
            memcpy(request + length, value, (size_t)bytes);
            length += (size_t)bytes;
            length += (size_t)sprintf(request + length, "\r\n");
        }
        send_all(s, request, length);
        receive(s, AT_ONCE);
    }
    return 0;
}

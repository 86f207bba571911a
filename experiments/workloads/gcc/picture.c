/* SPDX-License-Identifier: Apache-2.0
 * The workload's source: the stb libraries (Debian's libstb-dev, some ten thousand lines of C)
 * and a main that uses them: a picture is written as PNG, read again and compared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STBI_NO_SIMD
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

#define SIDE 256

int main(void)
{
    unsigned char *picture = malloc(SIDE * SIDE * 3), *png, *again;
    int i, length, w, h, channels;

    for (i = 0; i < SIDE * SIDE * 3; i++)
        picture[i] = i / 3 % SIDE ^ i / 3 / SIDE;
    png = stbi_write_png_to_mem(picture, 0, SIDE, SIDE, 3, &length);
    again = stbi_load_from_memory(png, length, &w, &h, &channels, 3);
    if (!again || w != SIDE || h != SIDE || memcmp(again, picture, SIDE * SIDE * 3))
        return fprintf(stderr, "picture: not the same\n"), 1;
    printf("picture: %d bytes of PNG\n", length);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 * For cffi: the part of libxenstore that finding a domain by its name needs. */
struct xs_handle *xs_open(unsigned long flags);
void xs_close(struct xs_handle *xsh);
char **xs_directory(struct xs_handle *h, uint32_t t, const char *path, unsigned int *num);
void *xs_read(struct xs_handle *h, uint32_t t, const char *path, unsigned int *len);
void free(void *memory);

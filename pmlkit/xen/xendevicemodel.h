/* SPDX-License-Identifier: Apache-2.0
 * For cffi: the part of libxendevicemodel.so.1 that hands pages back to a migration. */
typedef struct xendevicemodel_handle xendevicemodel_handle;
xendevicemodel_handle *xendevicemodel_open(void *logger, unsigned open_flags);
int xendevicemodel_close(xendevicemodel_handle *dmod);
int xendevicemodel_modified_memory(xendevicemodel_handle *dmod, uint16_t domid,
                                   uint64_t first_pfn, uint32_t nr);

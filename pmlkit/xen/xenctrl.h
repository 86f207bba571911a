/* SPDX-License-Identifier: Apache-2.0
 * For cffi: what of libxenctrl stock log-dirty and a domain's state need. Its ABI is not stable:
 * pmlkit/xen/xenctrl.py is the only one to call it, and tests it first. */
typedef struct xc_interface_core xc_interface;
typedef struct xc_hypercall_buffer {
    void *hbuf;
    struct xc_hypercall_buffer *param_shadow;
    int dir;
    void *ubuf;
    size_t sz;
} xc_hypercall_buffer_t;
typedef struct xc_shadow_op_stats {
    uint32_t fault_count;
    uint32_t dirty_count;
} xc_shadow_op_stats_t;
xc_interface *xc_interface_open(void *logger, void *dombuild_logger, unsigned open_flags);
int xc_interface_close(xc_interface *xch);
int xc_version(xc_interface *xch, int cmd, void *arg);
int xc_domain_pause(xc_interface *xch, uint32_t domid);
int xc_domain_unpause(xc_interface *xch, uint32_t domid);
int xc_domain_getinfolist(xc_interface *xch, uint32_t first_domain, unsigned int max_domains,
                          void *info);
int xc_domain_maximum_gpfn(xc_interface *xch, uint32_t domid, unsigned long *gpfns);
int xc_shadow_control(xc_interface *xch, uint32_t domid, unsigned int sop, unsigned int *mb,
                      unsigned int mode);
long long xc_logdirty_control(xc_interface *xch, uint32_t domid, unsigned int sop,
                              xc_hypercall_buffer_t *dirty_bitmap, unsigned long pages,
                              unsigned int mode, xc_shadow_op_stats_t *stats);
/* Before Xen 4.16 xc_shadow_control() did both. */
typedef int (*xc_shadow_control_4_15)(xc_interface *xch, uint32_t domid, unsigned int sop,
                                      xc_hypercall_buffer_t *dirty_bitmap, unsigned long pages,
                                      unsigned long *mb, uint32_t mode,
                                      xc_shadow_op_stats_t *stats);
void *xc__hypercall_buffer_alloc_pages(xc_interface *xch, xc_hypercall_buffer_t *b, int nr_pages);
void xc__hypercall_buffer_free_pages(xc_interface *xch, xc_hypercall_buffer_t *b, int nr_pages);
int xc_availheap(xc_interface *xch, int min_width, int max_width, int node, uint64_t *bytes);

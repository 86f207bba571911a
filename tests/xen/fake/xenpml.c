/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libxenpml for tests. The log, its writer and its reader are the real ones, out of the patches
 * (ring.c, log.c); what makes hypercalls is here, and a thread is the processor.
 *
 * Entry n of a vCPU is (vcpu << 24 | n % 2^24) << 12 | kind, kind 0x11 for every 37th and 2 else,
 * or word n of the file $FAKE_WORDS, over and over. $FAKE_PACE_US: pause between two buffers, or
 * -1: none are made but by fake_produce(); otherwise each round has one, however late the thread
 * runs. $FAKE_VCPUS: how many vCPUs. $FAKE_SHORT: want of memory (XENPML_REFUSED_*) when logging is
 * enabled; $FAKE_SHORT_CLOSING: when a guided round is closed. $FAKE_SIGNAL comes while logging is
 * being enabled.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "fake.h"
#include "private.h"
#include "ring.h"

#define MAX_VCPUS 8

struct xenpml_handle {
    int unused;
};

static struct vcpu {
    struct pml_ring ring;
    void *memory;
    uint16_t *counts;
    uint64_t made, exits, drains;
} vcpus[MAX_VCPUS];
static struct xenpml_options options;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t producer;
static volatile bool running;
static int owner = -1;
static unsigned nr_vcpus, number;
static uint64_t epoch, generation, in_round, last_end;
static const uint64_t *words;
static size_t nr_words;

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000UL + t.tv_nsec;
}

static uint64_t word(unsigned vcpu, uint64_t n)
{
    if ( words )
        return words[n % nr_words];
    return ((uint64_t)vcpu << 24 | (n & 0xffffff)) << 12 | (n % 37 ? 0x02 : 0x11);
}

static void produce(unsigned vcpu, unsigned count, unsigned reason)
{
    struct vcpu *v = &vcpus[vcpu];
    uint64_t *to = pml_ring_begin(&v->ring);
    struct xen_pml_desc desc = {
        .type = XEN_PML_TYPE_LOG, .reason = reason, .round = number, .count = count,
        .vcpu = vcpu, .tsc_start = last_end, .tsc_end = now(),
    };
    unsigned i;

    for ( i = 0; i < count; i++ )
        to[i] = word(vcpu, v->made + i);
    v->made += count;
    v->drains++;
    v->exits += reason == XEN_PML_REASON_FULL;
    in_round += count;
    last_end = desc.tsc_end;
    pml_ring_commit(&v->ring, &desc);
}

void fake_produce(unsigned vcpu, unsigned records)
{
    pthread_mutex_lock(&lock);
    while ( records-- )
        produce(vcpu, XEN_PML_SLOT_WORDS, XEN_PML_REASON_FULL);
    pthread_mutex_unlock(&lock);
}

static void begin_round(void)
{
    in_round = 0;
    if ( fake_number("FAKE_PACE_US", 1000) >= 0 )
        produce(0, XEN_PML_SLOT_WORDS, XEN_PML_REASON_FULL);
}

static void *run(void *unused)
{
    long pace_us = fake_number("FAKE_PACE_US", 1000);
    unsigned vcpu = 0;

    while ( running && pace_us >= 0 )
    {
        fake_produce(vcpu++ % nr_vcpus, 1);
        if ( pace_us )
            usleep(pace_us);
    }
    return NULL;
}

/* The domain may be gone, and nobody has switched logging off. */
__attribute__((destructor)) static void stop(void)
{
    if ( running )
    {
        running = false;
        pthread_join(producer, NULL);
    }
}

static void map_words(void)
{
    const char *path = getenv("FAKE_WORDS");
    struct stat info;
    int fd = path ? open(path, O_RDONLY) : -1;

    if ( fd >= 0 && !fstat(fd, &info) )
    {
        nr_words = info.st_size / 8;
        words = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    }
}

xenpml_handle *xenpml_open(struct xentoollog_logger *logger, unsigned flags)
{
    return calloc(1, sizeof(struct xenpml_handle));
}

int xenpml_close(xenpml_handle *h)
{
    free(h);
    return 0;
}

static int refuse(int error)
{
    errno = error;
    return -1;
}

static void lay_out(unsigned vcpu)
{
    struct vcpu *v = &vcpus[vcpu];
    struct xen_pml_log *log;
    size_t size = pml_ring_frames(options.slots) * 4096UL;

    memset(v, 0, sizeof(*v));
    v->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    v->counts = calloc(options.slots, sizeof(*v->counts));
    pml_ring_init(&v->ring, v->memory, v->counts, options.slots);
    log = v->memory;
    log->tsc_khz = 1000000;
    log->epoch_tsc = epoch;
    log->generation = generation;
    log->vcpu = vcpu;
}

int xenpml_enable(xenpml_handle *h, uint32_t domid, const struct xenpml_options *asked,
                  uint32_t *refusal)
{
    unsigned vcpu;

    *refusal = XENPML_REFUSED_NOT;
    if ( fake_number("FAKE_SIGNAL", 0) )
        raise(fake_number("FAKE_SIGNAL", 0));
    if ( fake_number("FAKE_UNPATCHED", 0) )
        return refuse(ENOSYS);
    if ( !fake_exists(domid) )
        return refuse(ESRCH);
    if ( fake_logdirty(domid) )
    {
        *refusal = XENPML_REFUSED_ACTIVE;
        return refuse(EBUSY);
    }
    if ( fake_number("FAKE_SHORT", 0) )
    {
        *refusal = fake_number("FAKE_SHORT", 0);
        return refuse(ENOMEM);
    }
    options = *asked;
    if ( !options.slots )
        options.slots = XEN_PML_DEFAULT_SLOTS;
    if ( !pml_ring_valid_slots(options.slots) )
        return refuse(EINVAL);
    map_words();
    nr_vcpus = fake_number("FAKE_VCPUS", 2);
    epoch = last_end = now();
    generation = 4711;
    number = 0;
    for ( vcpu = 0; vcpu < nr_vcpus; vcpu++ )
        lay_out(vcpu);
    begin_round();
    owner = domid;
    fake_set_logdirty(domid, true);
    running = true;
    return pthread_create(&producer, NULL, run, NULL);
}

int xenpml_disable(xenpml_handle *h, uint32_t domid)
{
    unsigned vcpu;

    if ( !fake_exists(domid) )
        return refuse(ESRCH);
    if ( !fake_logdirty(domid) )
        return refuse(ENOENT);
    if ( running )
    {
        running = false;
        pthread_join(producer, NULL);
        for ( vcpu = 0; vcpu < nr_vcpus; vcpu++ )
            produce(vcpu, 7, XEN_PML_REASON_STOP);
    }
    fake_set_logdirty(domid, false);
    return 0;
}

int xenpml_close_round(xenpml_handle *h, uint32_t domid, struct xenpml_round *round)
{
    unsigned vcpu, gfn;

    if ( !fake_exists(domid) )
        return refuse(ESRCH);
    if ( !running || owner != domid )
        return refuse(ENOENT);
    if ( fake_number("FAKE_CLOSING_FAILS", 0) )
        return refuse(fake_number("FAKE_CLOSING_FAILS", 0));
#ifdef XENPML_ROUND_PRUNED
    round->refusal = XENPML_REFUSED_NOT;
    if ( round->flags & XENPML_ROUND_GUIDED && fake_number("FAKE_SHORT_CLOSING", 0) )
    {
        round->refusal = fake_number("FAKE_SHORT_CLOSING", 0);
        return refuse(ENOMEM);
    }
#endif
    pthread_mutex_lock(&lock);
    round->tsc_pause = now();
    for ( vcpu = 0; vcpu < nr_vcpus; vcpu++ )
        produce(vcpu, 100 + vcpu, XEN_PML_REASON_ROUND);
    round->round = number++;
    round->entries = round->dirty_pages = round->rearmed = in_round;
    round->rearm_tsc = 3 * round->rearmed;
    round->tsc_resume = now();
    begin_round();
    pthread_mutex_unlock(&lock);
    round->accessed_pages = 0;
    if ( round->accessed )
        memset(round->accessed, 0, round->pages / 8);
    for ( gfn = 0; round->accessed && gfn < 100; gfn++ )
    {
        uint64_t order = round->flags >> 8 & 15, rest = (1 << order) - 1;
        uint64_t draw = round->flags & 32 ? 1 + round->round : 0, group = gfn >> order;

        if ( draw )
        {
            group = (group + (draw << 40)) * 0x9e3779b97f4a7c15;
            group ^= group >> 32;
        }
        if ( (group * 0x9e3779b97f4a7c15 >> 40 & rest) != (gfn & rest) )
            continue;
        ((uint8_t *)round->accessed)[gfn / 8] |= 1 << gfn % 8;
        round->accessed_pages++;
    }
#ifdef XENPML_ROUND_PRUNED
    if ( round->flags & XENPML_ROUND_GUIDED )
    {
        static uint64_t touched[200];

        for ( gfn = 0; gfn < 200; gfn++ )
            touched[gfn] = (uint64_t)(1000 + gfn) << 12 | (gfn % 2 ? 1 : 2);
        round->touched = touched;
        round->touched_count = 200;
    }
#endif
    return 0;
}

int xenpml_get_status(xenpml_handle *h, uint32_t domid, struct xenpml_status *status)
{
    if ( fake_number("FAKE_UNPATCHED", 0) )
        return refuse(ENOSYS);
    if ( !fake_exists(domid) )
        return refuse(ESRCH);
    *status = (struct xenpml_status){
        .state = fake_logdirty(domid) ? XENPML_STATE_LOGGING : XENPML_STATE_OFF,
        .options = options, .round = number, .vcpus = nr_vcpus, .tsc_khz = 1000000,
        .max_gfn = 65535, .bitmap_pages = 65536, .generation = fake_logdirty(domid) ? 4711 : 0,
    };
    return 0;
}

int xenpml_get_vcpu_status(xenpml_handle *h, uint32_t domid, uint32_t vcpu,
                           struct xenpml_vcpu_status *status)
{
    if ( !fake_exists(domid) || vcpu >= nr_vcpus )
        return refuse(fake_exists(domid) ? ENOENT : ESRCH);
    *status = (struct xenpml_vcpu_status){
        .exits = vcpus[vcpu].exits, .drains = vcpus[vcpu].drains, .entries = vcpus[vcpu].made,
        .exit_tsc = vcpus[vcpu].exits * 1000, .drain_tsc = vcpus[vcpu].drains * 2000,
    };
    return 0;
}

const char *xenpml_refusal_text(uint32_t refusal)
{
    return refusal == XENPML_REFUSED_ACTIVE ? "it is being logged already" :
           refusal == XENPML_REFUSED_MEMORY ? "Xen has too little free memory for the log" :
           refusal == XENPML_REFUSED_POOL ? "set shadow_memory higher" : "it is not";
}

xenpml_log *xenpml_log_map(xenpml_handle *h, uint32_t domid, uint32_t vcpu)
{
    if ( vcpu >= nr_vcpus )
    {
        errno = ENOENT;
        return NULL;
    }
    return xenpml_log_attach(vcpus[vcpu].memory, pml_ring_frames(options.slots) * 4096UL);
}

int xenpml_log_unmap(xenpml_log *log)
{
    free(log);
    return 0;
}

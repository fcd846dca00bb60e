// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A fuzzer of virtio-dma-track: the device's own source, and as little of QEMU
 * around it as it takes
 *
 * Each input is a story of what a guest, a migration and a user do: requests of
 * any bytes, in any number of parts; guest memory written; the VM stopped and
 * continued; memory shrunk and unplugged; planes read; a stream loaded; resets.
 * Memory of the guest, requests and bitmaps are allocated to the byte, so that
 * AddressSanitizer sees any access beside them. Besides, after each step:
 *
 *  - each request that was taken is answered once, or given up once, or is an
 *    UNFENCE that goes on; none is taken while the VM is stopped;
 *  - an answer is eight bytes, with a status code that there is; one that says
 *    that a request was read is to a request of which all could be read;
 *  - a reset for UNFENCE is begun for the current generation only;
 *  - sections are no more than there can be, and each page is in use once.
 */
#include "hw/virtio/virtio-dma-track.c"
#include "hw/virtio/virtio-dma-track-sections.c"

/* --- The story ---------------------------------------------------------- */

static const uint8_t *story;
static size_t left;

static uint8_t next8(void)
{
    if (!left) {
        return 0;
    }
    left--;
    return *story++;
}

static uint16_t next16(void)
{
    uint16_t low = next8();

    return low | next8() << 8;
}

static uint32_t next32(void)
{
    uint32_t low = next16();

    return low | (uint32_t)next16() << 16;
}

static void next_bytes(void *to, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++) {
        ((uint8_t *)to)[i] = next8();
    }
}

/* --- The machine -------------------------------------------------------- */

typedef struct Memory {
    hwaddr gpa;
    hwaddr size;
    /* Of the region in its block. */
    hwaddr offset;
    bool rom;
    bool device;
    bool migratable;
    bool pluggable;
    bool unplugged;
    MemoryRegion mr;
    RAMBlock rb;
    int refs;
} Memory;

#define PAGES(n) ((n) * UINT64_C(4096))

static Memory memories[] = {
    { 0, PAGES(16), .migratable = true },
    { 0x8000000, PAGES(66), .migratable = true, .pluggable = true },
    /* In the middle of a word of a plane, and of its block. */
    { 0x100003000, PAGES(20), PAGES(2), .migratable = true },
    { 0xf0000000, PAGES(2), .device = true },
    { 0xf8000000, PAGES(2) },
    { 0xfffff000, PAGES(1), .rom = true, .migratable = true },
};
/* Sections 0, 1, 0x1e, 0x1f (two memories) and 0x20. */
#define MAX_SECTIONS 5

static MemoryListener *listener;
static VirtIODMATrack device;
static bool running, active;
static DMATrackFunction functions[2];
static PCIDevice pci_devices[2];
static bool idle;

AddressSpace address_space_memory;
static MemoryRegion system_memory;

static Memory *memory_of(MemoryRegion *mr)
{
    return container_of(mr, Memory, mr);
}

MemoryRegion *get_system_memory(void)
{
    return &system_memory;
}

void memory_region_ref(MemoryRegion *mr)
{
    memory_of(mr)->refs++;
}

void memory_region_unref(MemoryRegion *mr)
{
    if (mr) {
        assert(memory_of(mr)->refs-- > 0);
    }
}

bool memory_region_is_ram_device(const MemoryRegion *mr)
{
    return mr->ram_device;
}

void *memory_region_get_ram_ptr(const MemoryRegion *mr)
{
    return mr->ram_block->host;
}

RamDiscardManager *memory_region_get_ram_discard_manager(MemoryRegion *mr)
{
    Memory *m = memory_of(mr);

    return m->pluggable ? (RamDiscardManager *)m : NULL;
}

bool ram_discard_manager_is_populated(const RamDiscardManager *rdm,
                                      const MemoryRegionSection *section)
{
    return !((Memory *)rdm)->unplugged;
}

int ram_discard_manager_replay_populated(const RamDiscardManager *rdm,
                                         const MemoryRegionSection *section,
                                         ReplayRamDiscardState replay_fn,
                                         void *opaque)
{
    return ((Memory *)rdm)->unplugged ? 0 : replay_fn(section, opaque);
}

ram_addr_t qemu_ram_get_used_length(const RAMBlock *rb)
{
    return rb->used_length;
}

bool qemu_ram_is_migratable(const RAMBlock *rb)
{
    return container_of(rb, Memory, rb)->migratable;
}

MemoryRegionSection memory_region_find(MemoryRegion *mr, hwaddr addr,
                                       uint64_t size)
{
    MemoryRegionSection found = {};
    int i;

    for (i = 0; i < ARRAY_SIZE(memories); i++) {
        Memory *m = &memories[i];

        if (addr < m->gpa || addr - m->gpa >= m->size) {
            continue;
        }
        found.mr = &m->mr;
        found.offset_within_region = m->offset + (addr - m->gpa);
        found.size = int128_make64(MIN(size, m->size - (addr - m->gpa)));
        found.readonly = m->rom;
        memory_region_ref(found.mr);
        return found;
    }
    return found;
}

void memory_listener_register(MemoryListener *l, AddressSpace *as)
{
    listener = l;
}

void memory_listener_unregister(MemoryListener *l)
{
}

static void announce(Memory *m, void (*tell)(MemoryListener *,
                                             MemoryRegionSection *))
{
    MemoryRegionSection mrs = {
        .mr = &m->mr,
        .offset_within_address_space = m->gpa,
        .offset_within_region = m->offset,
        .size = int128_make64(m->size),
    };

    tell(listener, &mrs);
}

static void start_machine(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(memories); i++) {
        Memory *m = &memories[i];

        m->rb.used_length = m->offset + m->size;
        m->rb.max_length = m->rb.used_length;
        m->rb.host = g_malloc0(m->rb.used_length);
        m->rb.mr = &m->mr;
        m->mr.ram = true;
        m->mr.ram_block = &m->rb;
        m->mr.ram_device = m->device;
        m->mr.readonly = m->rom;
        m->unplugged = false;
    }
    memset(pci_devices, 0, sizeof(pci_devices));
    memset(functions, 0, sizeof(functions));
    running = true;
    active = idle = false;
}

static void stop_machine(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(memories); i++) {
        announce(&memories[i], listener->region_del);
        /* Nothing holds on to memory that is gone. */
        assert(!memories[i].refs);
        g_free(memories[i].rb.host);
    }
}

/* --- Functions and migration -------------------------------------------- */

static uint32_t asked_generation;
static DMATrackUnfenceDone *unfence_done[2];
static void *unfence_opaque[2];

static void begin_unfence(DMATrackFunction *fn, DMATrackUnfenceDone *done,
                          void *opaque)
{
    int i = fn - functions;

    assert(asked_generation == fn->generation);
    assert(!unfence_done[i]);
    unfence_done[i] = done;
    unfence_opaque[i] = opaque;
}

static void end_unfence(int i, Error *err)
{
    DMATrackUnfenceDone *done = unfence_done[i];

    unfence_done[i] = NULL;
    if (done) {
        done(unfence_opaque[i], err);
    }
}

static const DMATrackFunctionOps ops = { .unfence = begin_unfence };

static void start_functions(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(functions); i++) {
        functions[i].pdev = &pci_devices[i];
        functions[i].name = "function";
        functions[i].tracked_by = DMA_TRACKED_BY_GUEST;
        functions[i].ops = i ? &ops : NULL;
        functions[i].has_capability = i;
        pci_devices[i].enabled = true;
    }
}

uint32_t dma_track_function_sbdf(const DMATrackFunction *fn)
{
    return 8 + (fn - functions);
}

char *dma_track_function_label(const DMATrackFunction *fn)
{
    return g_strdup(fn->name);
}

void warn_report(const char *fmt, ...)
{
}

void dma_track_changed(void)
{
}

DMATrackFunction *dma_track_function_first(void)
{
    return functions;
}

DMATrackFunction *dma_track_function_next(DMATrackFunction *fn)
{
    return fn == functions ? fn + 1 : NULL;
}

DMATrackFunction *dma_track_function_find(uint32_t sbdf)
{
    return sbdf == 8 || sbdf == 9 ? &functions[sbdf - 8] : NULL;
}

bool dma_track_function_is_idle(DMATrackFunction *fn)
{
    return idle;
}

bool dma_track_active(void)
{
    return active;
}

void dma_track_fail(Error *err)
{
    active = false;
}

bool dma_track_check_failed(Error **errp)
{
    return true;
}

bool dma_track_given_up(void)
{
    return true;
}

bool dma_track_provider_register(DMATrackProvider *p, Error **errp)
{
    return true;
}

void dma_track_provider_unregister(DMATrackProvider *p)
{
}

bool runstate_is_running(void)
{
    return running;
}

/* --- The queue ---------------------------------------------------------- */

static VirtQueueElement *waiting;
static unsigned taken, returned;

static VirtQueueElement *make_element(void)
{
    size_t size = next16() % 3200;
    size_t room = next8() % 24;
    size_t first = size ? next16() % (size + 1) : 0;
    VirtQueueElement *elem;

    elem = g_malloc0(sizeof(*elem) + 4 * sizeof(struct iovec));
    /* Parts of their own, allocated to the byte. */
    elem->out_sg = (struct iovec *)(elem + 1);
    elem->in_sg = elem->out_sg + 2;
    elem->out_num = 2;
    elem->in_num = 2;
    elem->out_sg[0] = (struct iovec) { g_malloc(first), first };
    elem->out_sg[1] = (struct iovec) { g_malloc(size - first), size - first };
    elem->in_sg[0] = (struct iovec) { g_malloc(room / 2), room / 2 };
    elem->in_sg[1] = (struct iovec) { g_malloc(room - room / 2),
                                      room - room / 2 };
    next_bytes(elem->out_sg[0].iov_base, first);
    next_bytes(elem->out_sg[1].iov_base, size - first);
    return elem;
}

static void free_parts(const VirtQueueElement *elem)
{
    g_free(elem->out_sg[0].iov_base);
    g_free(elem->out_sg[1].iov_base);
    g_free(elem->in_sg[0].iov_base);
    g_free(elem->in_sg[1].iov_base);
}

void *virtqueue_pop(VirtQueue *vq, size_t sz)
{
    VirtQueueElement *elem = waiting;
    struct virtio_dma_track_req req = {};

    if (!elem) {
        return NULL;
    }
    assert(running);
    waiting = NULL;
    taken++;
    iov_to_buf_full(elem->out_sg, elem->out_num, 0, &req, sizeof(req));
    asked_generation = le32_to_cpu(req.unfence.generation);
    return elem;
}

/* Has the request all that its head says? */
static bool is_whole(const VirtQueueElement *elem)
{
    struct virtio_dma_track_req head = {};
    size_t size = iov_size(elem->out_sg, elem->out_num);

    iov_to_buf_full(elem->out_sg, elem->out_num, 0, &head, 8);
    return size >= 8 + (uint64_t)le32_to_cpu(head.nr_entries) *
                   virtio_dma_track_entry_size(le16_to_cpu(head.type));
}

void virtqueue_push(VirtQueue *vq, const VirtQueueElement *elem,
                    unsigned int len)
{
    struct virtio_dma_track_resp resp = {};

    returned++;
    assert(len == sizeof(resp));
    assert(iov_to_buf_full(elem->in_sg, elem->in_num, 0, &resp,
                           sizeof(resp)) == sizeof(resp));
    assert(le16_to_cpu(resp.status) <= VIRTIO_DMA_TRACK_E_RESET);
    assert(!resp.reserved && !resp.reserved2);
    assert(le16_to_cpu(resp.status) == VIRTIO_DMA_TRACK_E_FIELD ||
           is_whole(elem));
    free_parts(elem);
}

void virtqueue_detach_element(VirtQueue *vq, const VirtQueueElement *elem,
                              unsigned int len)
{
    returned++;
    free_parts(elem);
}

void virtio_error(VirtIODevice *vdev, const char *fmt, ...)
{
    vdev->broken = true;
}

size_t iov_size(const struct iovec *iov, const unsigned int nr)
{
    size_t sum = 0;
    unsigned i;

    for (i = 0; i < nr; i++) {
        sum += iov[i].iov_len;
    }
    return sum;
}

static size_t iov_copy_bytes(const struct iovec *iov, unsigned nr,
                             size_t offset, uint8_t *buf, size_t bytes,
                             bool to_iov)
{
    size_t done = 0;
    unsigned i;

    for (i = 0; i < nr && done < bytes; i++) {
        size_t part;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        part = MIN(iov[i].iov_len - offset, bytes - done);
        if (to_iov) {
            memcpy((uint8_t *)iov[i].iov_base + offset, buf + done, part);
        } else {
            memcpy(buf + done, (uint8_t *)iov[i].iov_base + offset, part);
        }
        done += part;
        offset = 0;
    }
    return done;
}

size_t iov_to_buf_full(const struct iovec *iov, const unsigned int nr,
                       size_t offset, void *buf, size_t bytes)
{
    return iov_copy_bytes(iov, nr, offset, buf, bytes, false);
}

size_t iov_from_buf_full(const struct iovec *iov, unsigned int nr,
                         size_t offset, const void *buf, size_t bytes)
{
    return iov_copy_bytes(iov, nr, offset, (uint8_t *)buf, bytes, true);
}

/* --- What is not looked at ---------------------------------------------- */

Object *object_dynamic_cast_assert(Object *obj, const char *type,
                                   const char *file, int line,
                                   const char *func)
{
    return obj;
}

ObjectClass *object_class_dynamic_cast_assert(ObjectClass *klass,
                                              const char *type,
                                              const char *file, int line,
                                              const char *func)
{
    return klass;
}

/* Messages are made, so that what they print is read. */
void error_setg_internal(Error **errp, const char *src, int line,
                         const char *func, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
}

const char *error_get_pretty(const Error *err)
{
    return "error";
}

static QEMUTimer *no_timer;
static int64_t now;

int64_t qemu_clock_get_ns(QEMUClockType type)
{
    return now += 1000000000;
}

static void lock_nothing(QemuMutex *mutex, const char *file, int line)
{
}

static bool wait_for_nothing(QemuCond *cond, QemuMutex *mutex, int ms,
                             const char *file, int line)
{
    return false;
}

QemuMutexLockFunc qemu_mutex_lock_func = lock_nothing;
QemuCondTimedWaitFunc qemu_cond_timedwait_func = wait_for_nothing;

void timer_init_full(QEMUTimer *ts, QEMUTimerListGroup *group,
                     QEMUClockType type, int scale, int attributes,
                     QEMUTimerCB *cb, void *opaque)
{
    no_timer = ts;
}

#define DOES_NOTHING(name, ...) void name(__VA_ARGS__) {}
DOES_NOTHING(bql_lock_impl, const char *file, int line)
DOES_NOTHING(bql_unlock, void)
DOES_NOTHING(device_class_set_props_n, DeviceClass *dc, const Property *props,
             size_t n)
DOES_NOTHING(qemu_bh_delete, QEMUBH *bh)
DOES_NOTHING(qemu_bh_schedule, QEMUBH *bh)
DOES_NOTHING(qemu_cond_broadcast, QemuCond *cond)
DOES_NOTHING(qemu_cond_init, QemuCond *cond)
DOES_NOTHING(qemu_cond_destroy, QemuCond *cond)
DOES_NOTHING(qemu_mutex_init, QemuMutex *mutex)
DOES_NOTHING(qemu_mutex_destroy, QemuMutex *mutex)
DOES_NOTHING(qemu_mutex_unlock_impl, QemuMutex *mutex, const char *file,
             int line)
DOES_NOTHING(qemu_del_vm_change_state_handler, VMChangeStateEntry *e)
DOES_NOTHING(qemu_log, const char *fmt, ...)
DOES_NOTHING(register_module_init, void (*fn)(void), module_init_type type)
DOES_NOTHING(timer_del, QEMUTimer *ts)
DOES_NOTHING(timer_mod, QEMUTimer *ts, int64_t at)
DOES_NOTHING(virtio_cleanup, VirtIODevice *vdev)
DOES_NOTHING(virtio_delete_queue, VirtQueue *vq)
DOES_NOTHING(virtio_init, VirtIODevice *vdev, uint16_t id, size_t size)
DOES_NOTHING(virtio_notify, VirtIODevice *vdev, VirtQueue *vq)
DOES_NOTHING(virtio_notify_config, VirtIODevice *vdev)

VMChangeStateEntry *
qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque)
{
    return NULL;
}

VirtQueue *virtio_add_queue(VirtIODevice *vdev, int size,
                            VirtIOHandleOutput handle)
{
    return NULL;
}

QEMUBH *virtio_bh_new_guarded_full(DeviceState *dev, QEMUBHFunc *cb,
                                   void *opaque, const char *name)
{
    return NULL;
}

struct TypeImpl *type_register_static(const TypeInfo *info)
{
    return NULL;
}

const PropertyInfo qdev_prop_bool, qdev_prop_uint32, qdev_prop_string;
const VMStateInfo vmstate_info_bool, vmstate_info_uint32, vmstate_info_uint64,
                  virtio_vmstate_info;
const TargetPageBits target_page = {
    .decided = true, .bits = 12, .mask = -4096,
};
unsigned int qemu_loglevel;
int trace_events_enabled_count;
uint16_t _TRACE_VIRTIO_DMA_TRACK_ACK_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_ALIVE_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_FUNCTION_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_NOTIFY_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_PHASE_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_PUBLISH_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_RESET_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_RESTORED_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_SETUP_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_UNFENCED_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_UNFENCE_DSTATE,
         _TRACE_VIRTIO_DMA_TRACK_WITHDRAW_DSTATE;

/* --- The stream --------------------------------------------------------- */

unsigned int qemu_get_be32(QEMUFile *f)
{
    return next32();
}

uint64_t qemu_get_be64(QEMUFile *f)
{
    uint64_t low = next32();

    return low | (uint64_t)next32() << 32;
}

void qemu_put_be32(QEMUFile *f, unsigned int value)
{
}

void qemu_put_be64(QEMUFile *f, uint64_t value)
{
}

/* As vmstate_load_state() does; a stream that is refused ends QEMU. */
static bool load_stream(VirtIODMATrack *s)
{
    virtio_dma_track_pre_load(s, NULL);
    s->phase = next32();
    s->phase_seq = next32();
    s->phase_seq_echoed = next32();
    s->alive_seq = next32();
    s->alive_seq_echoed = next32();
    s->reset_seq = next32();
    s->reset_seq_echoed = next32();
    s->ready = next8() & 1;
    s->status.gpa = qemu_get_be64(NULL);
    return virtio_dma_track_load_sections(NULL, s, 0, NULL, NULL) &&
           virtio_dma_track_post_load(s, 1, NULL);
}

/* --- Steps -------------------------------------------------------------- */

static void read_planes(VirtIODMATrack *s)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(memories); i++) {
        RAMBlock *rb = &memories[i].rb;
        uint64_t nr = rb->used_length >> qemu_target_page_bits();
        g_autofree unsigned long *bmap =
            g_malloc0(BITS_TO_LONGS(nr) * sizeof(unsigned long));
        uint64_t streaming = 0, coherent = 0;

        virtio_dma_track_merge_pinned(DMA_TRACK_PROVIDER(s), rb, bmap,
                                      &streaming, &coherent);
    }
}

static void ask(VirtIODMATrack *s)
{
    DMATrackProviderInfo *info = virtio_dma_track_query(DMA_TRACK_PROVIDER(s));
    struct virtio_dma_track_config config;
    uint64_t pinned, streaming, coherent;
    int i;

    pinned = virtio_dma_track_count_pinned(DMA_TRACK_PROVIDER(s), &streaming,
                                           &coherent);
    g_assert(pinned >= MAX(streaming, coherent) &&
             pinned <= streaming + coherent);
    g_free(info->lost);
    g_free(info);
    virtio_dma_track_check(DMA_TRACK_PROVIDER(s), NULL);
    for (i = 0; i < ARRAY_SIZE(functions); i++) {
        virtio_dma_track_check_function(DMA_TRACK_PROVIDER(s), &functions[i],
                                        NULL);
    }
    virtio_dma_track_get_config(VIRTIO_DEVICE(s), (uint8_t *)&config);
    virtio_dma_track_save_sections(NULL, s, 0, NULL, NULL, NULL);
}

static void write_memory(void)
{
    Memory *m = &memories[next8() % 3];
    size_t size = next8();
    size_t at = next32() % m->size;

    next_bytes(m->rb.host + m->offset + at, MIN(size, m->size - at));
}

static void request(VirtIODMATrack *s)
{
    unsigned before = taken;

    waiting = make_element();
    virtio_dma_track_handle_output(VIRTIO_DEVICE(s), s->vq);
    if (waiting) {
        /* Not taken: the VM is stopped, or the device broken. */
        assert(taken == before);
        free_parts(waiting);
        g_free(waiting);
        waiting = NULL;
    }
}

static void change_memory(void)
{
    Memory *m = &memories[next8() % 3];
    uint8_t how = next8();

    m->unplugged = m->pluggable && (how & 1);
    m->rb.used_length = m->rb.max_length -
                        (how & 2 ? PAGES(next8() % 16) : 0);
}

static bool step(VirtIODMATrack *s)
{
    switch (next8() % 16) {
    case 0 ... 5:
        request(s);
        break;
    case 6:
        write_memory();
        break;
    case 7:
        running = !running;
        virtio_dma_track_vm_change(s, running, RUN_STATE_RUNNING);
        break;
    case 8:
        active = !active;
        virtio_dma_track_set_phase(s, active ? VIRTIO_DMA_TRACK_PHASE_LOGGING
                                             : VIRTIO_DMA_TRACK_PHASE_IDLE);
        break;
    case 9:
        read_planes(s);
        break;
    case 10:
        ask(s);
        break;
    case 11:
        virtio_dma_track_reset(VIRTIO_DEVICE(s));
        VIRTIO_DEVICE(s)->broken = false;
        break;
    case 12:
        change_memory();
        break;
    case 13:
        /* Into a machine that has just begun, as an incoming migration is. */
        virtio_dma_track_reset(VIRTIO_DEVICE(s));
        return load_stream(s);
    case 14:
        if (next8() & 1) {
            virtio_dma_track_settle(DMA_TRACK_PROVIDER(s));
        } else {
            end_unfence(1, next8() & 1 ? (Error *)&device : NULL);
        }
        break;
    case 15:
        idle = next8() & 1;
        functions[idle].generation++;
        virtio_dma_track_function_replaced(DMA_TRACK_PROVIDER(s),
                                           &functions[idle]);
        break;
    }
    return true;
}

static void check(VirtIODMATrack *s)
{
    VirtIODMATrackUnfence *u;
    unsigned going_on = 0;

    QTAILQ_FOREACH(u, &s->unfences, next) {
        going_on += u->elem != NULL;
    }
    assert(taken == returned + going_on);
    assert(g_tree_nnodes(s->sections) <= MAX_SECTIONS);
    assert(g_hash_table_size(s->pages) ==
           2 * g_tree_nnodes(s->sections) + s->ready);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    VirtIODMATrack *s = &device;
    int i, steps;

    story = data;
    left = size;
    taken = returned = 0;
    start_machine();
    start_functions();
    memset(s, 0, sizeof(*s));
    s->ack_timeout_ms = 1;
    virtio_dma_track_instance_init(OBJECT(s));
    virtio_dma_track_realize(DEVICE(s), NULL);
    for (i = 0; i < ARRAY_SIZE(memories); i++) {
        announce(&memories[i], listener->region_add);
    }

    for (steps = 0; left && steps < 200; steps++) {
        if (!step(s)) {
            break;
        }
        check(s);
    }

    end_unfence(1, NULL);
    virtio_dma_track_drop_unfences(s);
    virtio_dma_track_forget_guest(s);
    stop_machine();
    timer_free(s->notify_timer);
    virtio_dma_track_instance_finalize(OBJECT(s));
    return 0;
}

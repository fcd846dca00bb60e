/*
 * Virtio DMA tracking device
 *
 * The guest publishes which frames of its memory assigned functions may be
 * writing; see standard-headers/linux/virtio_dma_track.h for the contract and
 * migration/dma-track.h for what migration does with it.
 *
 * The guest is not trusted: with what it writes it can make its own migration
 * fail, or lose its own memory, and nothing else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "hw/core/qdev-properties.h"
#include "hw/virtio/virtio-dma-track.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "standard-headers/linux/virtio_ids.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-dma-track-sections.h"

/* Requests handled at a stretch, before others of the main loop have a turn. */
#define VIRTIO_DMA_TRACK_REQUESTS_PER_RUN 64

/*
 * The configuration interrupt is repeated after 100 ms, because an MSI-X edge
 * can be lost in a move, then more and more slowly: a guest that is busy does
 * not get faster by interrupts.
 */
#define VIRTIO_DMA_TRACK_NOTIFY_MIN_MS 100
#define VIRTIO_DMA_TRACK_NOTIFY_MAX_MS 1000

/* How often a wait looks whether the migration was given up, in ms. */
#define VIRTIO_DMA_TRACK_WAIT_SLICE_MS 50

QEMU_BUILD_BUG_ON(sizeof(struct virtio_dma_track_config) != 280);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_dma_track_status) >
                  VIRTIO_DMA_TRACK_PLANE_SIZE);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_dma_track_function) != 8);
QEMU_BUILD_BUG_ON(offsetof(struct virtio_dma_track_req, setup) != 8);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_dma_track_req_publish) != 24);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_dma_track_req_withdraw) != 8);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_dma_track_req_restored) != 16);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_dma_track_resp) != 8);

/* What a request can carry after its first eight bytes. */
typedef union VirtIODMATrackPayload {
    struct virtio_dma_track_req_setup setup;
    struct virtio_dma_track_req_publish publish[VIRTIO_DMA_TRACK_MAX_ENTRIES];
    struct virtio_dma_track_req_withdraw
        withdraw[VIRTIO_DMA_TRACK_MAX_ENTRIES];
    struct virtio_dma_track_req_function function;
    struct virtio_dma_track_req_ack ack;
    struct virtio_dma_track_req_alive alive;
    struct virtio_dma_track_req_unfence unfence;
    struct virtio_dma_track_req_restored restored;
} VirtIODMATrackPayload;

/*
 * For messages: the id that the user gave, or the type. A wait for the guest
 * can ask while the device is being unplugged.
 */
static const char *virtio_dma_track_name(VirtIODMATrack *s)
{
    BusState *bus = qatomic_read(&DEVICE(s)->parent_bus);
    DeviceState *proxy = bus ? qatomic_read(&bus->parent) : NULL;

    return proxy && proxy->id ? proxy->id : TYPE_VIRTIO_DMA_TRACK;
}

/* --- Notices to the guest ---------------------------------------------- */

static bool virtio_dma_track_notice_pending(VirtIODMATrack *s)
{
    return s->phase_seq_echoed != s->phase_seq ||
           s->alive_seq_echoed != s->alive_seq ||
           s->reset_seq_echoed != s->reset_seq;
}

/*
 * The configuration space has changed. A driver that is just reading it takes
 * note of that at once, or it would have half of the old one. The interrupt is
 * raised from the timer, also the first one: callers are anywhere, and the
 * guest may have no driver.
 */
static void virtio_dma_track_notify(VirtIODMATrack *s)
{
    VIRTIO_DEVICE(s)->generation++;
    s->notify_delay_ms = VIRTIO_DMA_TRACK_NOTIFY_MIN_MS;
    timer_mod(s->notify_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
}

static void virtio_dma_track_notify_timer(void *opaque)
{
    VirtIODMATrack *s = opaque;
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    /* Goes on when the VM runs, or when the guest has a driver again. */
    if (!virtio_dma_track_notice_pending(s) || !runstate_is_running() ||
        !(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        return;
    }

    trace_virtio_dma_track_notify(s->phase, s->phase_seq, s->alive_seq,
                                  s->reset_seq);
    virtio_notify_config(vdev);
    timer_mod(s->notify_timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + s->notify_delay_ms);
    s->notify_delay_ms = MIN(s->notify_delay_ms * 2,
                             VIRTIO_DMA_TRACK_NOTIFY_MAX_MS);
}

static void virtio_dma_track_set_phase(VirtIODMATrack *s, uint32_t phase)
{
    if (s->phase == phase) {
        return;
    }
    qemu_mutex_lock(&s->lock);
    s->phase = phase;
    s->phase_seq++;
    qemu_mutex_unlock(&s->lock);
    trace_virtio_dma_track_phase(phase, s->phase_seq);
    virtio_dma_track_notify(s);
}

/* What is shared with the guest, and was promised by it, is gone. */
static void virtio_dma_track_fail(VirtIODMATrack *s, const char *what)
{
    Error *err = NULL;

    if (s->phase != VIRTIO_DMA_TRACK_PHASE_LOGGING && !dma_track_active()) {
        return;
    }
    error_setg(&err, "%s: %s during migration", virtio_dma_track_name(s), what);
    dma_track_fail(err);
}

/* --- Requests ----------------------------------------------------------- */

static void virtio_dma_track_respond(VirtIODMATrack *s, VirtQueueElement *elem,
                                     uint16_t status)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    struct virtio_dma_track_resp resp = {
        .status = cpu_to_le16(status),
    };

    iov_from_buf(elem->in_sg, elem->in_num, 0, &resp, sizeof(resp));
    virtqueue_push(s->vq, elem, sizeof(resp));
    virtio_notify(vdev, s->vq);
    g_free(elem);
}

static uint16_t virtio_dma_track_setup(VirtIODMATrack *s,
                                       const VirtIODMATrackPayload *payload)
{
    VirtIODMATrackPage page = {
        .gpa = le64_to_cpu(payload->setup.status),
    };

    if (s->ready) {
        return VIRTIO_DMA_TRACK_E_STATE;
    }
    if (!virtio_dma_track_page_aligned(page.gpa)) {
        return VIRTIO_DMA_TRACK_E_FIELD;
    }
    if (!virtio_dma_track_page_get(&page)) {
        return VIRTIO_DMA_TRACK_E_NOT_RAM;
    }

    s->status = page;
    g_hash_table_add(s->pages, &s->status.gpa);
    s->ready = true;
    trace_virtio_dma_track_setup(page.gpa);
    dma_track_changed();
    return VIRTIO_DMA_TRACK_OK;
}

static uint16_t
virtio_dma_track_publish_section(VirtIODMATrack *s,
                                 const struct virtio_dma_track_req_publish *req)
{
    uint32_t section = le32_to_cpu(req->section);
    hwaddr streaming = le64_to_cpu(req->streaming);
    hwaddr coherent = le64_to_cpu(req->coherent);
    VirtIODMATrackSection *sec;

    if (req->reserved || !virtio_dma_track_page_aligned(streaming) ||
        !virtio_dma_track_page_aligned(coherent)) {
        return VIRTIO_DMA_TRACK_E_FIELD;
    }
    if (virtio_dma_track_section(s, section) || streaming == coherent ||
        virtio_dma_track_page_in_use(s, streaming) ||
        virtio_dma_track_page_in_use(s, coherent)) {
        return VIRTIO_DMA_TRACK_E_EXISTS;
    }
    if (!virtio_dma_track_section_has_populated_ram(s, section)) {
        return VIRTIO_DMA_TRACK_E_EMPTY;
    }

    sec = g_new0(VirtIODMATrackSection, 1);
    sec->section = section;
    sec->streaming.gpa = streaming;
    sec->coherent.gpa = coherent;
    if (!virtio_dma_track_page_get(&sec->streaming) ||
        !virtio_dma_track_page_get(&sec->coherent)) {
        virtio_dma_track_section_free(sec);
        return VIRTIO_DMA_TRACK_E_NOT_RAM;
    }
    virtio_dma_track_section_insert(s, sec);
    trace_virtio_dma_track_publish(section, streaming, coherent);
    return VIRTIO_DMA_TRACK_OK;
}

static uint16_t
virtio_dma_track_publish_sections(VirtIODMATrack *s,
                                  const VirtIODMATrackPayload *payload,
                                  uint32_t nr)
{
    uint32_t i;

    for (i = 0; i < nr; i++) {
        uint16_t status =
            virtio_dma_track_publish_section(s, &payload->publish[i]);

        if (status == VIRTIO_DMA_TRACK_OK) {
            continue;
        }
        /* All of the request, or nothing. */
        while (i-- > 0) {
            virtio_dma_track_section_remove(
                s, le32_to_cpu(payload->publish[i].section));
        }
        return status;
    }
    return VIRTIO_DMA_TRACK_OK;
}

static uint16_t
virtio_dma_track_withdraw_sections(VirtIODMATrack *s,
                                   const VirtIODMATrackPayload *payload,
                                   uint32_t nr)
{
    uint32_t i, j;

    for (i = 0; i < nr; i++) {
        if (payload->withdraw[i].reserved) {
            return VIRTIO_DMA_TRACK_E_FIELD;
        }
    }
    /*
     * What is pinned in the section must be sent by this migration, and only
     * the planes tell what that is.
     */
    if (dma_track_active()) {
        return VIRTIO_DMA_TRACK_E_BUSY;
    }
    for (i = 0; i < nr; i++) {
        uint32_t section = le32_to_cpu(payload->withdraw[i].section);

        if (!virtio_dma_track_section(s, section)) {
            return VIRTIO_DMA_TRACK_E_NO_SECTION;
        }
        for (j = 0; j < i; j++) {
            if (payload->withdraw[j].section == payload->withdraw[i].section) {
                return VIRTIO_DMA_TRACK_E_NO_SECTION;
            }
        }
    }
    for (i = 0; i < nr; i++) {
        uint32_t section = le32_to_cpu(payload->withdraw[i].section);

        trace_virtio_dma_track_withdraw(section);
        virtio_dma_track_section_remove(s, section);
    }
    return VIRTIO_DMA_TRACK_OK;
}

/* What the guest says of one function, read from the status page at once. */
typedef struct VirtIODMATrackGuestFunction {
    uint32_t sbdf;
    uint16_t state;
    uint16_t reason;
} VirtIODMATrackGuestFunction;

/* Only of a status page that is usable. */
static VirtIODMATrackGuestFunction
virtio_dma_track_guest_function(VirtIODMATrack *s, unsigned index)
{
    const struct virtio_dma_track_status *status =
        virtio_dma_track_page_host(&s->status);
    const uint64_t *entry = (const uint64_t *)&status->functions[index];
    uint64_t value = le64_to_cpu(qatomic_read(entry));

    return (VirtIODMATrackGuestFunction) {
        .sbdf = value,
        .state = value >> 32,
        .reason = value >> 48,
    };
}

static const char *virtio_dma_track_reason(uint16_t reason)
{
    switch (reason) {
    case VIRTIO_DMA_TRACK_REASON_BOUND_BEFORE:
        return "its driver was bound before tracking began; bind it again in "
               "the guest, by dma_track's file 'track'";
    case VIRTIO_DMA_TRACK_REASON_NO_CAPABILITY:
        return "it has no capability and the host has not named it; plug it "
               "into a PCI Express port";
    case VIRTIO_DMA_TRACK_REASON_BEHIND_API:
        return "its driver maps memory behind the DMA API; unbind that driver "
               "for the time of the migration";
    case VIRTIO_DMA_TRACK_REASON_NO_RESOURCES:
        return "the guest had no resources to track it; bind its driver again";
    default:
        return "the guest gives no known reason; see its kernel log";
    }
}

/*
 * The guest says that @fn is untracked. In the middle of a migration that is
 * for good: it may be tracked again by the last pass, but not what it wrote in
 * between.
 */
static void virtio_dma_track_note_untracked(DMATrackFunction *fn,
                                            uint16_t reason)
{
    g_autofree char *label = NULL;
    Error *err = NULL;

    if (fn->tracked_by != DMA_TRACKED_BY_GUEST || !dma_track_active()) {
        return;
    }
    label = dma_track_function_label(fn);
    error_setg(&err, "%s became untracked during migration: %s", label,
               virtio_dma_track_reason(reason));
    dma_track_fail(err);
}

static uint16_t
virtio_dma_track_function_changed(VirtIODMATrack *s,
                                  const VirtIODMATrackPayload *payload)
{
    uint32_t index = le32_to_cpu(payload->function.index);
    VirtIODMATrackGuestFunction guest;
    DMATrackFunction *fn;

    if (payload->function.reserved || index >= VIRTIO_DMA_TRACK_MAX_FUNCTIONS) {
        return VIRTIO_DMA_TRACK_E_FIELD;
    }
    if (!virtio_dma_track_page_usable(&s->status)) {
        return VIRTIO_DMA_TRACK_E_NOT_RAM;
    }
    guest = virtio_dma_track_guest_function(s, index);
    trace_virtio_dma_track_function(index, guest.sbdf, guest.state,
                                    guest.reason);
    dma_track_changed();
    if (guest.state == VIRTIO_DMA_TRACK_FUNCTION_NONE) {
        return VIRTIO_DMA_TRACK_OK;
    }
    fn = dma_track_function_find(guest.sbdf);
    if (!fn) {
        return VIRTIO_DMA_TRACK_E_NO_FUNCTION;
    }
    if (guest.state == VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED) {
        virtio_dma_track_note_untracked(fn, guest.reason);
    }
    return VIRTIO_DMA_TRACK_OK;
}

static uint16_t virtio_dma_track_ack(VirtIODMATrack *s,
                                     const VirtIODMATrackPayload *payload)
{
    uint32_t seq = le32_to_cpu(payload->ack.phase_seq);

    if (payload->ack.reserved) {
        return VIRTIO_DMA_TRACK_E_FIELD;
    }
    trace_virtio_dma_track_ack(seq, s->phase_seq);
    if (seq != s->phase_seq) {
        return VIRTIO_DMA_TRACK_E_STALE;
    }
    qemu_mutex_lock(&s->lock);
    s->phase_seq_echoed = seq;
    qemu_cond_broadcast(&s->echoed);
    qemu_mutex_unlock(&s->lock);
    return VIRTIO_DMA_TRACK_OK;
}

static uint16_t virtio_dma_track_alive(VirtIODMATrack *s,
                                       const VirtIODMATrackPayload *payload)
{
    uint32_t alive_seq = le32_to_cpu(payload->alive.alive_seq);
    uint32_t reset_seq = le32_to_cpu(payload->alive.reset_seq);

    trace_virtio_dma_track_alive(alive_seq, s->alive_seq, reset_seq,
                                 s->reset_seq);
    qemu_mutex_lock(&s->lock);
    s->alive_seq_echoed = alive_seq;
    s->reset_seq_echoed = reset_seq;
    qemu_cond_broadcast(&s->echoed);
    qemu_mutex_unlock(&s->lock);

    /* One of them may be new: then the guest has to look again. */
    if (alive_seq != s->alive_seq || reset_seq != s->reset_seq) {
        return VIRTIO_DMA_TRACK_E_STALE;
    }
    return VIRTIO_DMA_TRACK_OK;
}

/* DMATrackUnfenceDone */
static void virtio_dma_track_unfenced(void *opaque, Error *err)
{
    VirtIODMATrackUnfence *u = opaque;
    VirtIODMATrack *s = u->s;

    trace_virtio_dma_track_unfenced(err ? error_get_pretty(err) : "ok");
    if (s) {
        QTAILQ_REMOVE(&s->unfences, u, next);
    }
    if (u->elem) {
        virtio_dma_track_respond(s, u->elem, err ? VIRTIO_DMA_TRACK_E_RESET
                                                 : VIRTIO_DMA_TRACK_OK);
    }
    g_free(u);
}

/* Takes @elem and answers it, now or later. */
static void virtio_dma_track_unfence(VirtIODMATrack *s,
                                     const VirtIODMATrackPayload *payload,
                                     VirtQueueElement *elem)
{
    uint32_t sbdf = le32_to_cpu(payload->unfence.sbdf);
    uint32_t generation = le32_to_cpu(payload->unfence.generation);
    DMATrackFunction *fn = dma_track_function_find(sbdf);
    VirtIODMATrackUnfence *u;

    trace_virtio_dma_track_unfence(sbdf, generation);
    if (!fn) {
        virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_E_NO_FUNCTION);
        return;
    }
    /* P6: a fence is let go for the generation that stands behind it only. */
    if (generation != fn->generation) {
        virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_E_STALE);
        return;
    }
    QTAILQ_FOREACH(u, &s->unfences, next) {
        if (u->fn == fn) {
            virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_E_STATE);
            return;
        }
    }
    if (!fn->ops || !fn->ops->unfence) {
        virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_OK);
        return;
    }

    u = g_new0(VirtIODMATrackUnfence, 1);
    u->s = s;
    u->fn = fn;
    u->elem = elem;
    /* First: it may be done before unfence() returns. */
    QTAILQ_INSERT_TAIL(&s->unfences, u, next);
    fn->ops->unfence(fn, virtio_dma_track_unfenced, u);
}

/* The answer of resets that go on does not matter any more. */
static void virtio_dma_track_drop_unfences(VirtIODMATrack *s)
{
    VirtIODMATrackUnfence *u;

    QTAILQ_FOREACH(u, &s->unfences, next) {
        if (u->elem) {
            virtqueue_detach_element(s->vq, u->elem, 0);
            g_free(u->elem);
            u->elem = NULL;
        }
    }
}

/* The device goes away, perhaps by the guest's doing; resets go on. */
static void virtio_dma_track_orphan_unfences(VirtIODMATrack *s)
{
    VirtIODMATrackUnfence *u;

    virtio_dma_track_drop_unfences(s);
    while ((u = QTAILQ_FIRST(&s->unfences))) {
        QTAILQ_REMOVE(&s->unfences, u, next);
        u->s = NULL;
    }
}

/* DMATrackProviderClass.settle */
static void virtio_dma_track_settle(DMATrackProvider *p)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);
    VirtIODMATrackUnfence *u;

    /*
     * Where the VM goes on, here or there, the function has a new generation:
     * the guest has to look again and ask again.
     */
    QTAILQ_FOREACH(u, &s->unfences, next) {
        if (u->elem) {
            VirtQueueElement *elem = u->elem;

            u->elem = NULL;
            virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_E_STALE);
        }
    }
}

static uint16_t virtio_dma_track_restored(VirtIODMATrack *s,
                                          const VirtIODMATrackPayload *payload)
{
    static const DMATrackRestored results[] = {
        [VIRTIO_DMA_TRACK_RESTORED_OK] = DMA_TRACK_RESTORED_OK,
        [VIRTIO_DMA_TRACK_RESTORED_FAILED] = DMA_TRACK_RESTORED_FAILED,
        [VIRTIO_DMA_TRACK_RESTORED_NO_DRIVER] = DMA_TRACK_RESTORED_NO_DRIVER,
    };
    uint32_t sbdf = le32_to_cpu(payload->restored.sbdf);
    uint32_t generation = le32_to_cpu(payload->restored.generation);
    uint32_t result = le32_to_cpu(payload->restored.result);
    DMATrackFunction *fn = dma_track_function_find(sbdf);

    if (payload->restored.reserved || result >= ARRAY_SIZE(results)) {
        return VIRTIO_DMA_TRACK_E_FIELD;
    }
    trace_virtio_dma_track_restored(sbdf, generation, result);
    if (!fn) {
        return VIRTIO_DMA_TRACK_E_NO_FUNCTION;
    }
    if (generation != fn->generation) {
        return VIRTIO_DMA_TRACK_E_STALE;
    }
    /* Only the first of a generation: the guest may go on and on. */
    if (fn->restored == DMA_TRACK_RESTORED_NONE &&
        results[result] == DMA_TRACK_RESTORED_FAILED) {
        g_autofree char *label = dma_track_function_label(fn);

        warn_report("%s: the guest could not restore its driver; see the "
                    "guest's kernel log", label);
    }
    fn->restored = results[result];
    return VIRTIO_DMA_TRACK_OK;
}

/* Bytes of one entry of the payload, or 0 if the type is not known. */
static size_t virtio_dma_track_entry_size(uint16_t type)
{
    switch (type) {
    case VIRTIO_DMA_TRACK_REQ_SETUP:
        return sizeof(struct virtio_dma_track_req_setup);
    case VIRTIO_DMA_TRACK_REQ_PUBLISH:
        return sizeof(struct virtio_dma_track_req_publish);
    case VIRTIO_DMA_TRACK_REQ_WITHDRAW:
        return sizeof(struct virtio_dma_track_req_withdraw);
    case VIRTIO_DMA_TRACK_REQ_FUNCTION:
        return sizeof(struct virtio_dma_track_req_function);
    case VIRTIO_DMA_TRACK_REQ_ACK:
        return sizeof(struct virtio_dma_track_req_ack);
    case VIRTIO_DMA_TRACK_REQ_ALIVE:
        return sizeof(struct virtio_dma_track_req_alive);
    case VIRTIO_DMA_TRACK_REQ_UNFENCE:
        return sizeof(struct virtio_dma_track_req_unfence);
    case VIRTIO_DMA_TRACK_REQ_RESTORED:
        return sizeof(struct virtio_dma_track_req_restored);
    default:
        return 0;
    }
}

static bool virtio_dma_track_nr_entries_valid(uint16_t type, uint32_t nr)
{
    switch (type) {
    case VIRTIO_DMA_TRACK_REQ_PUBLISH:
    case VIRTIO_DMA_TRACK_REQ_WITHDRAW:
        return nr >= 1 && nr <= VIRTIO_DMA_TRACK_MAX_ENTRIES;
    default:
        return nr == 1;
    }
}

static uint16_t virtio_dma_track_execute(VirtIODMATrack *s, uint16_t type,
                                         const VirtIODMATrackPayload *payload,
                                         uint32_t nr)
{
    switch (type) {
    case VIRTIO_DMA_TRACK_REQ_SETUP:
        return virtio_dma_track_setup(s, payload);
    case VIRTIO_DMA_TRACK_REQ_PUBLISH:
        return virtio_dma_track_publish_sections(s, payload, nr);
    case VIRTIO_DMA_TRACK_REQ_WITHDRAW:
        return virtio_dma_track_withdraw_sections(s, payload, nr);
    case VIRTIO_DMA_TRACK_REQ_FUNCTION:
        return virtio_dma_track_function_changed(s, payload);
    case VIRTIO_DMA_TRACK_REQ_ACK:
        return virtio_dma_track_ack(s, payload);
    case VIRTIO_DMA_TRACK_REQ_ALIVE:
        return virtio_dma_track_alive(s, payload);
    case VIRTIO_DMA_TRACK_REQ_RESTORED:
        return virtio_dma_track_restored(s, payload);
    default:
        return VIRTIO_DMA_TRACK_E_TYPE;
    }
}

/* Takes @elem. */
static void virtio_dma_track_handle_request(VirtIODMATrack *s,
                                            VirtQueueElement *elem)
{
    struct virtio_dma_track_req head = {};
    const size_t head_size = offsetof(struct virtio_dma_track_req, setup);
    VirtIODMATrackPayload payload;
    size_t size = iov_size(elem->out_sg, elem->out_num);
    size_t payload_size;
    uint16_t type;
    uint32_t nr;

    if (size < head_size ||
        iov_size(elem->in_sg, elem->in_num) <
        sizeof(struct virtio_dma_track_resp)) {
        goto malformed;
    }
    iov_to_buf(elem->out_sg, elem->out_num, 0, &head, head_size);
    type = le16_to_cpu(head.type);
    nr = le32_to_cpu(head.nr_entries);

    if (!virtio_dma_track_entry_size(type)) {
        virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_E_TYPE);
        return;
    }
    if (head.reserved || !virtio_dma_track_nr_entries_valid(type, nr)) {
        virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_E_FIELD);
        return;
    }
    payload_size = nr * virtio_dma_track_entry_size(type);
    assert(payload_size <= sizeof(payload));
    if (size - head_size < payload_size) {
        goto malformed;
    }
    iov_to_buf(elem->out_sg, elem->out_num, head_size, &payload, payload_size);

    if (type != VIRTIO_DMA_TRACK_REQ_SETUP && !s->ready) {
        virtio_dma_track_respond(s, elem, VIRTIO_DMA_TRACK_E_STATE);
        return;
    }
    if (type == VIRTIO_DMA_TRACK_REQ_UNFENCE) {
        virtio_dma_track_unfence(s, &payload, elem);
        return;
    }
    virtio_dma_track_respond(s, elem,
                             virtio_dma_track_execute(s, type, &payload, nr));
    return;

malformed:
    virtio_error(VIRTIO_DEVICE(s), "virtio-dma-track: a request is too short or"
                 " has no room for the answer");
    virtqueue_detach_element(s->vq, elem, 0);
    g_free(elem);
    virtio_dma_track_fail(s, "the guest broke the protocol");
}

static void virtio_dma_track_handle_requests(VirtIODMATrack *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int i;

    for (i = 0; i < VIRTIO_DMA_TRACK_REQUESTS_PER_RUN; i++) {
        VirtQueueElement *elem;

        /*
         * With stopped vCPUs nothing is written to guest memory that the last
         * pass would miss; goes on when the VM runs.
         */
        if (!runstate_is_running() || vdev->broken) {
            return;
        }
        elem = virtqueue_pop(s->vq, sizeof(*elem));
        if (!elem) {
            return;
        }
        virtio_dma_track_handle_request(s, elem);
    }
    qemu_bh_schedule(s->bh);
}

static void virtio_dma_track_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    virtio_dma_track_handle_requests(VIRTIO_DMA_TRACK(vdev));
}

static void virtio_dma_track_bh(void *opaque)
{
    virtio_dma_track_handle_requests(opaque);
}

/* --- Provider ----------------------------------------------------------- */

/* DMATrackProviderClass.check_function */
static bool virtio_dma_track_check_function(DMATrackProvider *p,
                                            DMATrackFunction *fn, Error **errp)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);
    uint32_t sbdf = dma_track_function_sbdf(fn);
    unsigned i;

    virtio_dma_track_resolve(s);
    if (!s->ready) {
        error_setg(errp, "untracked: the guest has no driver for %s; load "
                   "dma_track in the guest", virtio_dma_track_name(s));
        return false;
    }
    if (!virtio_dma_track_page_usable(&s->status)) {
        error_setg(errp, "untracked: the guest's status page is not RAM; "
                   "reload dma_track there");
        return false;
    }

    for (i = 0; i < VIRTIO_DMA_TRACK_MAX_FUNCTIONS; i++) {
        VirtIODMATrackGuestFunction guest =
            virtio_dma_track_guest_function(s, i);

        if (guest.state == VIRTIO_DMA_TRACK_FUNCTION_NONE ||
            guest.sbdf != sbdf) {
            continue;
        }
        switch (guest.state) {
        case VIRTIO_DMA_TRACK_FUNCTION_TRACKED:
            return true;
        case VIRTIO_DMA_TRACK_FUNCTION_UNBOUND:
            if (dma_track_function_is_idle(fn)) {
                return true;
            }
            error_setg(errp, "untracked: no driver is bound to it, but it can "
                       "master the bus; bind a driver or reset it in the "
                       "guest");
            return false;
        case VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED:
            virtio_dma_track_note_untracked(fn, guest.reason);
            error_setg(errp, "untracked: %s",
                       virtio_dma_track_reason(guest.reason));
            return false;
        default:
            error_setg(errp, "untracked: the guest gives it the unknown state "
                       "%" PRIu16, guest.state);
            return false;
        }
    }
    error_setg(errp, "untracked: the guest does not know it; see its kernel "
               "log");
    return false;
}

/* NULL if nothing is lost. Only of a status page that is usable. */
static const char *virtio_dma_track_lost(VirtIODMATrack *s)
{
    const struct virtio_dma_track_status *status =
        virtio_dma_track_page_host(&s->status);

    switch (le32_to_cpu(qatomic_read(&status->lost))) {
    case VIRTIO_DMA_TRACK_LOST_NO:
        return NULL;
    case VIRTIO_DMA_TRACK_LOST_NO_SECTION:
        return "a device was given memory that lies in no published section";
    case VIRTIO_DMA_TRACK_LOST_NO_FRAME:
        return "the frame behind a DMA address could not be found";
    case VIRTIO_DMA_TRACK_LOST_HOOK:
        return "a hook was found disabled or bypassed";
    default:
        return "the guest gives an unknown reason";
    }
}

/* DMATrackProviderClass.check */
static bool virtio_dma_track_check(DMATrackProvider *p, Error **errp)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);
    const char *lost;

    virtio_dma_track_resolve(s);
    if (s->broken) {
        error_setg(errp, "%s: %s", virtio_dma_track_name(s), s->broken);
        return false;
    }
    /* Without it no function is tracked, which says all. */
    if (!s->ready) {
        return true;
    }
    if (!virtio_dma_track_page_usable(&s->status)) {
        error_setg(errp, "%s: the guest's status page is not RAM",
                   virtio_dma_track_name(s));
        return false;
    }
    lost = virtio_dma_track_lost(s);
    if (lost) {
        error_setg(errp, "%s: the guest has lost track: %s; reload dma_track "
                   "there", virtio_dma_track_name(s), lost);
        return false;
    }
    return true;
}

/*
 * Wait until *@echoed is *@seq, at most ack-timeout-ms. The wait also ends, and
 * well, when there is nothing to wait for any more: when the migration was
 * cancelled, or when the VM was stopped.
 */
static bool virtio_dma_track_wait(VirtIODMATrack *s, const uint32_t *seq,
                                  const uint32_t *echoed, const char *what,
                                  Error **errp)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                       s->ack_timeout_ms;

    QEMU_LOCK_GUARD(&s->lock);
    while (*echoed != *seq) {
        int64_t left = deadline - qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

        if (!dma_track_check_failed(errp)) {
            return false;
        }
        if (dma_track_given_up() || !runstate_is_running()) {
            return true;
        }
        if (left <= 0) {
            error_setg(errp, "%s: the guest did not %s within %" PRIu32 " ms "
                       "(ack-timeout-ms)", virtio_dma_track_name(s), what,
                       s->ack_timeout_ms);
            return false;
        }
        qemu_cond_timedwait(&s->echoed, &s->lock,
                            MIN(left, VIRTIO_DMA_TRACK_WAIT_SLICE_MS));
    }
    return true;
}

/* DMATrackProviderClass.start */
static bool virtio_dma_track_start(DMATrackProvider *p, Error **errp)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);

    bql_lock();
    if (!s->ready) {
        bql_unlock();
        error_setg(errp, "%s: the guest has no driver for it",
                   virtio_dma_track_name(s));
        return false;
    }
    virtio_dma_track_set_phase(s, VIRTIO_DMA_TRACK_PHASE_LOGGING);
    bql_unlock();

    return virtio_dma_track_wait(s, &s->phase_seq, &s->phase_seq_echoed,
                                 "acknowledge that it logs", errp);
}

/* DMATrackProviderClass.is_logging */
static bool virtio_dma_track_is_logging(DMATrackProvider *p)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);

    return s->phase == VIRTIO_DMA_TRACK_PHASE_LOGGING &&
           s->phase_seq_echoed == s->phase_seq;
}

/* DMATrackProviderClass.stop */
static void virtio_dma_track_stop(DMATrackProvider *p)
{
    virtio_dma_track_set_phase(VIRTIO_DMA_TRACK(p),
                               VIRTIO_DMA_TRACK_PHASE_IDLE);
}

/* DMATrackProviderClass.echo */
static bool virtio_dma_track_echo(DMATrackProvider *p, Error **errp)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);

    bql_lock();
    /* It may have been reset or unplugged since the BQL was dropped. */
    if (!s->ready || !virtio_dma_track_is_logging(p)) {
        bql_unlock();
        error_setg(errp, "the guest has given up %s", TYPE_VIRTIO_DMA_TRACK);
        return false;
    }
    qemu_mutex_lock(&s->lock);
    s->alive_seq++;
    qemu_mutex_unlock(&s->lock);
    virtio_dma_track_notify(s);
    bql_unlock();

    return virtio_dma_track_wait(s, &s->alive_seq, &s->alive_seq_echoed,
                                 "give a sign of life", errp);
}

/* DMATrackProviderClass.function_replaced */
static void virtio_dma_track_function_replaced(DMATrackProvider *p,
                                               DMATrackFunction *fn)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);

    qemu_mutex_lock(&s->lock);
    s->reset_seq++;
    qemu_mutex_unlock(&s->lock);
    virtio_dma_track_notify(s);
}

/* DMATrackProviderClass.max_pinned */
static uint64_t virtio_dma_track_max_pinned(DMATrackProvider *p)
{
    return VIRTIO_DMA_TRACK(p)->max_pinned;
}

/* DMATrackProviderClass.suppressed_steps */
static uint32_t virtio_dma_track_suppressed_steps(DMATrackProvider *p)
{
    return VIRTIO_DMA_TRACK(p)->suppressed_steps;
}

/* DMATrackProviderClass.query */
static DMATrackProviderInfo *virtio_dma_track_query(DMATrackProvider *p)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);
    DMATrackProviderInfo *info = g_new0(DMATrackProviderInfo, 1);

    info->ready = s->ready;
    info->phase = s->phase == VIRTIO_DMA_TRACK_PHASE_LOGGING ?
                  DMA_TRACK_PHASE_LOGGING : DMA_TRACK_PHASE_IDLE;
    info->acknowledged = s->phase_seq_echoed == s->phase_seq;
    info->sections = g_tree_nnodes(s->sections);
    info->max_pinned = s->max_pinned;

    virtio_dma_track_resolve(s);
    if (s->broken) {
        info->lost = g_strdup(s->broken);
    }
    if (s->ready && virtio_dma_track_page_usable(&s->status)) {
        const struct virtio_dma_track_status *status =
            virtio_dma_track_page_host(&s->status);

        if (!info->lost) {
            info->lost = g_strdup(virtio_dma_track_lost(s));
        }
        info->maps = le64_to_cpu(qatomic_read(&status->maps));
        info->unmaps = le64_to_cpu(qatomic_read(&status->unmaps));
        info->dirtied = le64_to_cpu(qatomic_read(&status->dirtied));
        info->saturated = le64_to_cpu(qatomic_read(&status->saturated));
        info->unknown_unmaps =
            le64_to_cpu(qatomic_read(&status->unknown_unmaps));
        info->undirtied = le64_to_cpu(qatomic_read(&status->undirtied));
    }
    return info;
}

/* --- Device ------------------------------------------------------------- */

static uint64_t virtio_dma_track_get_features(VirtIODevice *vdev,
                                              uint64_t features, Error **errp)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(vdev);

    if (s->sync_dirty) {
        virtio_add_feature(&features, VIRTIO_DMA_TRACK_F_SYNC_DIRTY);
    }
    return features;
}

static void virtio_dma_track_get_config(VirtIODevice *vdev, uint8_t *data)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(vdev);
    struct virtio_dma_track_config config = {
        .phase = cpu_to_le32(s->phase),
        .phase_seq = cpu_to_le32(s->phase_seq),
        .alive_seq = cpu_to_le32(s->alive_seq),
        .reset_seq = cpu_to_le32(s->reset_seq),
    };
    DMATrackFunction *fn;
    unsigned nr = 0;

    /* One that finds no room stays unknown to the guest, hence untracked. */
    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (!fn->has_capability && fn->pdev->enabled &&
            nr < VIRTIO_DMA_TRACK_MAX_CONFIG_FUNCTIONS) {
            config.functions[nr].sbdf =
                cpu_to_le32(dma_track_function_sbdf(fn));
            config.functions[nr].generation = cpu_to_le32(fn->generation);
            nr++;
        }
    }
    config.nr_functions = cpu_to_le32(nr);
    memcpy(data, &config, sizeof(config));
}

static int virtio_dma_track_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(vdev);

    if ((status & VIRTIO_CONFIG_S_DRIVER_OK) &&
        virtio_dma_track_notice_pending(s)) {
        virtio_dma_track_notify(s);
    }
    return 0;
}

static void virtio_dma_track_reset(VirtIODevice *vdev)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(vdev);

    if (s->ready) {
        virtio_dma_track_fail(s, "the guest has reset the device");
    }
    trace_virtio_dma_track_reset();
    dma_track_changed();
    virtio_dma_track_drop_unfences(s);
    virtio_dma_track_forget_guest(s);

    /* The next driver reads all of it when it begins. */
    virtio_dma_track_set_phase(s, VIRTIO_DMA_TRACK_PHASE_IDLE);
    qemu_mutex_lock(&s->lock);
    s->phase_seq_echoed = s->phase_seq;
    s->alive_seq_echoed = s->alive_seq;
    s->reset_seq_echoed = s->reset_seq;
    qemu_mutex_unlock(&s->lock);
}

/* What was taken from the queue cannot be given back to it any more. */
static void virtio_dma_track_queue_reset(VirtIODevice *vdev, uint32_t index)
{
    virtio_dma_track_drop_unfences(VIRTIO_DMA_TRACK(vdev));
}

static void virtio_dma_track_vm_change(void *opaque, bool running,
                                       RunState state)
{
    VirtIODMATrack *s = opaque;

    if (!running) {
        return;
    }
    virtio_dma_track_resolve(s);
    /* Requests that came while the VM was stopped, and notices likewise. */
    qemu_bh_schedule(s->bh);
    if (virtio_dma_track_notice_pending(s)) {
        virtio_notify_config(VIRTIO_DEVICE(s));
        virtio_dma_track_notify(s);
    }
}

static bool virtio_dma_track_parse_suppress(VirtIODMATrack *s, Error **errp)
{
    static const struct {
        const char *name;
        uint32_t step;
    } known[] = {
        { "flush", DMA_TRACK_STEP_FLUSH },
        { "busmaster", DMA_TRACK_STEP_BUSMASTER },
        { "pending", DMA_TRACK_STEP_PENDING },
        { "iommu", DMA_TRACK_STEP_IOMMU },
        { "reset", DMA_TRACK_STEP_RESET },
        { "all", DMA_TRACK_STEP_ALL },
    };
    g_auto(GStrv) steps = g_strsplit(s->suppress ? s->suppress : "", ",", -1);
    unsigned i, j;

    for (i = 0; steps[i]; i++) {
        for (j = 0; j < ARRAY_SIZE(known); j++) {
            if (!strcmp(steps[i], known[j].name)) {
                s->suppressed_steps |= known[j].step;
                break;
            }
        }
        if (j == ARRAY_SIZE(known)) {
            error_setg(errp, "x-dma-quiesce-suppress: '%s' is not one of "
                       "flush, busmaster, pending, iommu, reset, all",
                       steps[i]);
            return false;
        }
    }
    return true;
}

static void virtio_dma_track_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(dev);

    if (!s->ack_timeout_ms) {
        error_setg(errp, "ack-timeout-ms must not be 0");
        return;
    }
    if (!virtio_dma_track_parse_suppress(s, errp) ||
        !dma_track_provider_register(DMA_TRACK_PROVIDER(s), errp)) {
        return;
    }

    virtio_init(vdev, VIRTIO_ID_DMA_TRACK,
                sizeof(struct virtio_dma_track_config));
    s->vq = virtio_add_queue(vdev, 64, virtio_dma_track_handle_output);
    s->bh = virtio_bh_new_guarded(dev, virtio_dma_track_bh, s);
    s->notify_timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                   virtio_dma_track_notify_timer, s);
    s->vm_change = qemu_add_vm_change_state_handler(virtio_dma_track_vm_change,
                                                    s);
    virtio_dma_track_sections_listen(s);
}

static void virtio_dma_track_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(dev);

    dma_track_provider_unregister(DMA_TRACK_PROVIDER(s));
    virtio_dma_track_orphan_unfences(s);
    virtio_dma_track_forget_guest(s);
    memory_listener_unregister(&s->listener);
    qemu_del_vm_change_state_handler(s->vm_change);
    timer_free(s->notify_timer);
    s->notify_timer = NULL;
    qemu_bh_delete(s->bh);
    s->bh = NULL;
    virtio_delete_queue(s->vq);
    virtio_cleanup(vdev);
}

static void virtio_dma_track_instance_init(Object *obj)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(obj);

    qemu_mutex_init(&s->lock);
    qemu_cond_init(&s->echoed);
    QTAILQ_INIT(&s->unfences);
    virtio_dma_track_sections_init(s);
}

static void virtio_dma_track_instance_finalize(Object *obj)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(obj);

    virtio_dma_track_sections_finalize(s);
    qemu_cond_destroy(&s->echoed);
    qemu_mutex_destroy(&s->lock);
}

/* --- Migration stream --------------------------------------------------- */

static bool virtio_dma_track_pre_load(void *opaque, Error **errp)
{
    virtio_dma_track_forget_guest(opaque);
    return true;
}

static bool virtio_dma_track_post_load(void *opaque, int version_id,
                                       Error **errp)
{
    VirtIODMATrack *s = opaque;

    if (s->phase != VIRTIO_DMA_TRACK_PHASE_IDLE &&
        s->phase != VIRTIO_DMA_TRACK_PHASE_LOGGING) {
        error_setg(errp, "virtio-dma-track: phase %" PRIu32 " in the stream is "
                   "not known", s->phase);
        return false;
    }
    if (!virtio_dma_track_page_aligned(s->status.gpa) ||
        virtio_dma_track_page_in_use(s, s->status.gpa) ||
        (!s->ready && g_tree_nnodes(s->sections))) {
        error_setg(errp, "virtio-dma-track: the status page in the stream is "
                   "misaligned, missing, or also a plane");
        return false;
    }
    if (s->ready) {
        g_hash_table_add(s->pages, &s->status.gpa);
    }

    /*
     * Here no migration is running. All functions are new here, whether they
     * are loaded before or after us. The guest is told when it runs.
     */
    s->phase = VIRTIO_DMA_TRACK_PHASE_IDLE;
    s->phase_seq++;
    s->reset_seq++;
    return true;
}

static const VMStateDescription virtio_dma_track_vmstate_device = {
    .name = "virtio-dma-track-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load_errp = virtio_dma_track_pre_load,
    .post_load_errp = virtio_dma_track_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(phase, VirtIODMATrack),
        VMSTATE_UINT32(phase_seq, VirtIODMATrack),
        VMSTATE_UINT32(phase_seq_echoed, VirtIODMATrack),
        VMSTATE_UINT32(alive_seq, VirtIODMATrack),
        VMSTATE_UINT32(alive_seq_echoed, VirtIODMATrack),
        VMSTATE_UINT32(reset_seq, VirtIODMATrack),
        VMSTATE_UINT32(reset_seq_echoed, VirtIODMATrack),
        VMSTATE_BOOL(ready, VirtIODMATrack),
        VMSTATE_UINT64(status.gpa, VirtIODMATrack),
        {
            .name = "sections",
            .size = sizeof(VirtIODMATrack),
            .info = &virtio_dma_track_vmstate_sections,
            .flags = VMS_SINGLE,
            .offset = 0,
        },
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription virtio_dma_track_vmstate = {
    .name = "virtio-dma-track",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};

static const Property virtio_dma_track_properties[] = {
    DEFINE_PROP_UINT32("ack-timeout-ms", VirtIODMATrack, ack_timeout_ms, 5000),
    DEFINE_PROP_BOOL("sync-dirty", VirtIODMATrack, sync_dirty, true),
    DEFINE_PROP_SIZE("max-pinned", VirtIODMATrack, max_pinned, 0),
    DEFINE_PROP_STRING("x-dma-quiesce-suppress", VirtIODMATrack, suppress),
};

static void virtio_dma_track_class_init(ObjectClass *klass, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    DMATrackProviderClass *dpc = DMA_TRACK_PROVIDER_CLASS(klass);

    dc->vmsd = &virtio_dma_track_vmstate;
    device_class_set_props(dc, virtio_dma_track_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    vdc->realize = virtio_dma_track_realize;
    vdc->unrealize = virtio_dma_track_unrealize;
    vdc->reset = virtio_dma_track_reset;
    vdc->queue_reset = virtio_dma_track_queue_reset;
    vdc->get_features = virtio_dma_track_get_features;
    vdc->get_config = virtio_dma_track_get_config;
    vdc->set_status = virtio_dma_track_set_status;
    vdc->vmsd = &virtio_dma_track_vmstate_device;

    dpc->check_function = virtio_dma_track_check_function;
    dpc->check = virtio_dma_track_check;
    dpc->start = virtio_dma_track_start;
    dpc->is_logging = virtio_dma_track_is_logging;
    dpc->stop = virtio_dma_track_stop;
    dpc->echo = virtio_dma_track_echo;
    dpc->merge_pinned = virtio_dma_track_merge_pinned;
    dpc->settle = virtio_dma_track_settle;
    dpc->count_pinned = virtio_dma_track_count_pinned;
    dpc->max_pinned = virtio_dma_track_max_pinned;
    dpc->function_replaced = virtio_dma_track_function_replaced;
    dpc->query = virtio_dma_track_query;
    dpc->suppressed_steps = virtio_dma_track_suppressed_steps;
}

static const TypeInfo virtio_dma_track_info = {
    .name = TYPE_VIRTIO_DMA_TRACK,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIODMATrack),
    .instance_init = virtio_dma_track_instance_init,
    .instance_finalize = virtio_dma_track_instance_finalize,
    .class_init = virtio_dma_track_class_init,
    .interfaces = (const InterfaceInfo[]) {
        { TYPE_DMA_TRACK_PROVIDER },
        { }
    },
};

static void virtio_dma_track_register_types(void)
{
    type_register_static(&virtio_dma_track_info);
}

type_init(virtio_dma_track_register_types)

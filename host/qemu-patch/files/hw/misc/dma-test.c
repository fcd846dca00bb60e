/*
 * DMA test device
 *
 * A PCI Express endpoint with which a test proves that no write of a device is
 * lost. It writes guest memory as hardware does, also while the vCPUs are
 * stopped, and logs each write once it has reached memory. See
 * hw/misc/dma_test_abi.h for its registers and its log.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/core/qdev-properties.h"
#include "hw/misc/dma_test_abi.h"
#include "hw/pci/dma-quiesce.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"
#include "migration/blocker.h"
#include "migration/vmstate.h"
#include "qom/object.h"
#include "system/runstate.h"
#include "trace.h"

#define TYPE_DMA_TEST "dma-test"
OBJECT_DECLARE_SIMPLE_TYPE(DMATestState, DMA_TEST)

/* Room in configuration space, from the first free byte on. */
#define DMA_TEST_EXP_CAP 0x80
/* In extended configuration space, behind the one for error reporting. */
#define DMA_TEST_QUIESCE_CAP 0x180
/* Landings per timer callback, so that one guest cannot occupy the main loop */
#define DMA_TEST_BURST 256

/* In which way the device is broken, for tests of who uses it. */
typedef enum DMATestFault {
    DMA_TEST_FAULT_NONE,
    /* A ring flush never ends. */
    DMA_TEST_FAULT_FLUSH_NEVER,
    /* A ring flush ends with STATUS ERROR. */
    DMA_TEST_FAULT_FLUSH_ERROR,
    /* What completes during a ring flush sends no interrupt. */
    DMA_TEST_FAULT_FLUSH_SILENT,
    /* A transaction never ends: TRPND stays set, and a ring flush waits. */
    DMA_TEST_FAULT_PENDING,
    /* Configuration space reads as all ones, and cannot be written. */
    DMA_TEST_FAULT_GONE,
} DMATestFault;

static const char *const dma_test_fault_names[] = {
    "none", "flush-never", "flush-error", "flush-silent", "pending", "gone",
    NULL,
};

static const QEnumLookup dma_test_fault_lookup = {
    .array = dma_test_fault_names,
    .size = ARRAY_SIZE(dma_test_fault_names) - 1,
};

/* One issued transfer. */
typedef struct DMATestTransfer {
    bool used;
    uint64_t addr;
    uint64_t seed;
    uint32_t len;
    uint32_t cookie;
    uint16_t op;
    uint16_t kind;
    /* Which run of the engine fetched it: it completes into no other. */
    uint32_t run;
    /* When it lands, by the device's clock. */
    int64_t lands_at;
    /* When it was issued, by the host's clock; for the log. */
    int64_t issued_at;
} DMATestTransfer;

struct DMATestState {
    PCIDevice parent_obj;

    /* Properties. */
    char *log_path;
    char *clock_name;
    bool dma_quiesce;

    DMATestFault fault;
    QEMUClockType clock;
    MemoryRegion regs;
    /* Fetches and lands. Pending while there is anything to do. */
    QEMUTimer *timer;
    QEMUTimer *periodic_timer;
    Error *migration_blocker;

    int log_fd;
    uint64_t log_seq;
    uint64_t written;
    uint64_t marker;

    /* Registers, by their names in dma_test_abi.h. */
    bool enabled;
    bool error;
    uint64_t sq_base;
    uint32_t sq_size;
    uint32_t sq_tail;
    uint32_t sq_head;
    uint64_t cq_base;
    uint32_t cq_size;
    uint32_t cq_shift;
    uint32_t cq_tail;
    uint32_t width;
    uint64_t periodic_addr;
    uint32_t periodic_interval;
    uint32_t periodic_kind;
    uint32_t periodic_pages;
    uint64_t periodic_count;

    /* Increased whenever the engine is enabled. */
    uint32_t run;
    /* Entries of @issued in use. */
    uint32_t nr_issued;
    DMATestTransfer issued[DMA_TEST_MAX_WIDTH];
    /* When the periodic writer is due, by the device's clock. */
    int64_t periodic_at;
};

/* --- Log ---------------------------------------------------------------- */

typedef struct DMATestRecord {
    uint64_t issued;
    uint64_t addr;
    uint64_t seed;
    uint32_t len;
    uint16_t type;
    uint16_t kind;
    uint32_t cookie;
    uint32_t status;
} DMATestRecord;

/* The log's clock, whatever the device's own is. */
static int64_t dma_test_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static void dma_test_log_bytes(DMATestState *s, const uint8_t *buf, size_t size)
{
    if (s->log_fd < 0) {
        return;
    }
    if (qemu_write_full(s->log_fd, buf, size) != size) {
        /* A log with a hole would prove things that are not so: end it. */
        error_report("dma-test: cannot write '%s': %s", s->log_path,
                     strerror(errno));
        close(s->log_fd);
        s->log_fd = -1;
    }
}

static void dma_test_log(DMATestState *s, const DMATestRecord *rec)
{
    uint8_t buf[DMA_TEST_LOG_RECORD_SIZE] = { 0 };
    int64_t now = dma_test_now();

    stq_le_p(buf + DMA_TEST_REC_SEQ, ++s->log_seq);
    stq_le_p(buf + DMA_TEST_REC_TIME, now);
    stq_le_p(buf + DMA_TEST_REC_ISSUED, rec->issued ? rec->issued : now);
    stq_le_p(buf + DMA_TEST_REC_ADDR, rec->addr);
    stq_le_p(buf + DMA_TEST_REC_SEED, rec->seed);
    stl_le_p(buf + DMA_TEST_REC_LEN, rec->len);
    stw_le_p(buf + DMA_TEST_REC_TYPE, rec->type);
    stw_le_p(buf + DMA_TEST_REC_KIND, rec->kind);
    stl_le_p(buf + DMA_TEST_REC_COOKIE, rec->cookie);
    stl_le_p(buf + DMA_TEST_REC_STATUS, rec->status);
    dma_test_log_bytes(s, buf, sizeof(buf));
}

static void dma_test_log_event(DMATestState *s, uint16_t type, uint64_t seed)
{
    dma_test_log(s, &(DMATestRecord) { .type = type, .seed = seed });
    trace_dma_test_event(type, seed);
}

static bool dma_test_log_open(DMATestState *s, Error **errp)
{
    uint8_t hdr[DMA_TEST_LOG_HEADER_SIZE] = DMA_TEST_LOG_MAGIC;

    s->log_fd = -1;
    if (!s->log_path) {
        return true;
    }
    s->log_fd = qemu_create(s->log_path, O_WRONLY | O_TRUNC | O_APPEND, 0644,
                            errp);
    if (s->log_fd < 0) {
        return false;
    }
    stl_le_p(hdr + DMA_TEST_LOG_HDR_VERSION, DMA_TEST_LOG_VERSION);
    stl_le_p(hdr + DMA_TEST_LOG_HDR_RECORD_SIZE, DMA_TEST_LOG_RECORD_SIZE);
    stq_le_p(hdr + DMA_TEST_LOG_HDR_MONOTONIC, dma_test_now());
    stq_le_p(hdr + DMA_TEST_LOG_HDR_WALL, qemu_clock_get_ns(QEMU_CLOCK_HOST));
    dma_test_log_bytes(s, hdr, sizeof(hdr));
    return true;
}

/* --- Memory ------------------------------------------------------------- */

static bool dma_test_is_master(DMATestState *s)
{
    return pci_get_word(s->parent_obj.config + PCI_COMMAND) &
           PCI_COMMAND_MASTER;
}

/*
 * Write as a transaction that is on its way already: through the IOMMU, but
 * whether or not the function may master the bus.
 */
static bool dma_test_write(DMATestState *s, uint64_t addr, const void *buf,
                           uint32_t len)
{
    PCIDevice *pdev = PCI_DEVICE(s);
    MemTxAttrs attrs = {
        .requester_id = pci_requester_id(pdev),
        .untracked_dma = pdev->untracked_dma,
    };

    return address_space_write(pci_device_iommu_address_space(pdev), addr,
                               attrs, buf, len) == MEMTX_OK;
}

/* Word @i of the stamp with seed @seed: splitmix64. */
static uint64_t dma_test_stamp_word(uint64_t seed, uint32_t i)
{
    uint64_t z = seed + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15ULL;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* The first @len bytes of the stamp; @buf has room for whole words. */
static void dma_test_stamp(uint8_t *buf, uint64_t seed, uint32_t len)
{
    uint32_t i;

    for (i = 0; i < DIV_ROUND_UP(len, 8); i++) {
        stq_le_p(buf + i * 8, dma_test_stamp_word(seed, i));
    }
}

/* --- Engine ------------------------------------------------------------- */

static void dma_test_update_pending(DMATestState *s)
{
    PCIDevice *pdev = PCI_DEVICE(s);
    uint8_t *devsta = pdev->config + pdev->exp.exp_cap + PCI_EXP_DEVSTA;

    if (s->nr_issued || s->fault == DMA_TEST_FAULT_PENDING) {
        pci_word_test_and_set_mask(devsta, PCI_EXP_DEVSTA_TRPND);
    } else {
        pci_word_test_and_clear_mask(devsta, PCI_EXP_DEVSTA_TRPND);
    }
}

static uint32_t dma_test_queued(DMATestState *s)
{
    return s->enabled ? s->sq_tail - s->sq_head : 0;
}

static void dma_test_periodic_schedule(DMATestState *s);

/* Issued transfers have landed, and the news of them was written. */
static void dma_test_end_flush(DMATestState *s)
{
    PCIDevice *pdev = PCI_DEVICE(s);

    if (s->nr_issued || !pci_dma_quiesce_is_flushing(pdev)) {
        return;
    }
    if (s->fault == DMA_TEST_FAULT_FLUSH_ERROR) {
        /* Nothing has stopped then. */
        pci_dma_quiesce_failed(pdev);
        dma_test_periodic_schedule(s);
    } else if (s->fault != DMA_TEST_FAULT_FLUSH_NEVER &&
               s->fault != DMA_TEST_FAULT_PENDING) {
        dma_test_log_event(s, DMA_TEST_LOG_QUIESCED, 0);
        pci_dma_quiesce_flushed(pdev);
    }
}

/* Returns how many queued transfers died. */
static uint32_t dma_test_disable(DMATestState *s)
{
    uint32_t died = dma_test_queued(s);

    s->enabled = false;
    return died;
}

static void dma_test_fault(DMATestState *s, uint64_t addr, uint32_t len)
{
    dma_test_log(s, &(DMATestRecord) {
        .type = DMA_TEST_LOG_FAULT, .addr = addr, .len = len,
    });
    trace_dma_test_fault(addr, len);
}

/* A ring cannot be reached: only the driver gets the engine out of it. */
static void dma_test_ring_fault(DMATestState *s, uint64_t addr, uint32_t len)
{
    dma_test_fault(s, addr, len);
    dma_test_disable(s);
    s->error = true;
}

static void dma_test_interrupt(DMATestState *s)
{
    PCIDevice *pdev = PCI_DEVICE(s);

    if (s->fault != DMA_TEST_FAULT_FLUSH_SILENT ||
        !pci_dma_quiesce_is_flushing(pdev)) {
        msix_notify(pdev, DMA_TEST_VECTOR_COMPLETION);
    }
}

static void dma_test_complete(DMATestState *s, const DMATestTransfer *t,
                              uint32_t status)
{
    uint8_t buf[1 << DMA_TEST_MAX_CQ_SHIFT];
    uint32_t index = s->cq_tail + 1;
    uint32_t size;
    uint64_t addr;

    /* A completion is a new transaction: it needs the bus. */
    if (!s->enabled || t->run != s->run || !dma_test_is_master(s)) {
        return;
    }

    size = 1u << s->cq_shift;
    addr = s->cq_base + (uint64_t)(s->cq_tail & (s->cq_size - 1)) * size;
    dma_test_stamp(buf, index, size);
    stl_le_p(buf + DMA_TEST_COMP_INDEX, index);
    stl_le_p(buf + DMA_TEST_COMP_STATUS, status);
    stq_le_p(buf + DMA_TEST_COMP_COOKIE, t->cookie);

    if (!dma_test_write(s, addr + 8, buf + 8, size - 8)) {
        dma_test_ring_fault(s, addr, size);
        return;
    }
    /* The driver polls for the index: it must come last. */
    smp_wmb();
    if (!dma_test_write(s, addr, buf, 8)) {
        dma_test_ring_fault(s, addr, size);
        return;
    }
    s->cq_tail++;
    s->written++;
    dma_test_log(s, &(DMATestRecord) {
        .type = DMA_TEST_LOG_COMPLETION, .kind = DMA_TEST_KIND_RING,
        .addr = addr, .len = size, .seed = index,
        .cookie = t->cookie, .status = status,
    });
    if (t->op & DMA_TEST_OP_IRQ) {
        dma_test_interrupt(s);
    }
}

static uint32_t dma_test_execute(DMATestState *s, const DMATestTransfer *t)
{
    g_autofree uint8_t *buf = NULL;

    switch (t->op & ~DMA_TEST_OP_IRQ) {
    case DMA_TEST_OP_NOP:
        return DMA_TEST_COMP_OK;
    case DMA_TEST_OP_STAMP:
        break;
    default:
        return DMA_TEST_COMP_INVALID;
    }
    if (!t->len || t->len > DMA_TEST_MAX_LEN) {
        return DMA_TEST_COMP_INVALID;
    }

    buf = g_malloc(ROUND_UP(t->len, 8));
    dma_test_stamp(buf, t->seed, t->len);
    if (!dma_test_write(s, t->addr, buf, t->len)) {
        dma_test_fault(s, t->addr, t->len);
        return DMA_TEST_COMP_FAULT;
    }
    s->written++;
    dma_test_log(s, &(DMATestRecord) {
        .type = DMA_TEST_LOG_STAMP, .kind = t->kind, .issued = t->issued_at,
        .addr = t->addr, .len = t->len, .seed = t->seed, .cookie = t->cookie,
    });
    return DMA_TEST_COMP_OK;
}

static void dma_test_land(DMATestState *s, DMATestTransfer *t)
{
    DMATestTransfer landing = *t;
    uint32_t status;

    /* The write may reach our own registers: nothing lands twice. */
    t->used = false;
    status = dma_test_execute(s, &landing);
    /* Landed, so the function waits for one less; then the news of it. */
    s->nr_issued--;
    dma_test_update_pending(s);
    dma_test_complete(s, &landing, status);
    dma_test_end_flush(s);
}

/* Also those whose time has not come. */
static void dma_test_land_all(DMATestState *s)
{
    int i;

    for (i = 0; i < DMA_TEST_MAX_WIDTH; i++) {
        if (s->issued[i].used) {
            dma_test_land(s, &s->issued[i]);
        }
    }
}

/* Fetch one descriptor into @t. Returns false if the engine has stopped. */
static bool dma_test_issue(DMATestState *s, DMATestTransfer *t, int64_t now)
{
    uint8_t buf[DMA_TEST_DESC_SIZE];
    uint64_t addr = s->sq_base + (uint64_t)(s->sq_head & (s->sq_size - 1)) *
                    DMA_TEST_DESC_SIZE;
    uint32_t delay_us;

    if (pci_dma_read(PCI_DEVICE(s), addr, buf, sizeof(buf)) != MEMTX_OK) {
        dma_test_ring_fault(s, addr, sizeof(buf));
        return false;
    }
    s->sq_head++;

    delay_us = MIN(ldl_le_p(buf + DMA_TEST_DESC_DELAY_US),
                   DMA_TEST_MAX_DELAY_US);
    *t = (DMATestTransfer) {
        .used = true,
        .addr = ldq_le_p(buf + DMA_TEST_DESC_ADDR),
        .len = ldl_le_p(buf + DMA_TEST_DESC_LEN),
        .op = lduw_le_p(buf + DMA_TEST_DESC_OP),
        .kind = lduw_le_p(buf + DMA_TEST_DESC_KIND),
        .seed = ldq_le_p(buf + DMA_TEST_DESC_SEED),
        .cookie = ldl_le_p(buf + DMA_TEST_DESC_COOKIE),
        .run = s->run,
        .lands_at = now + delay_us * 1000LL,
        .issued_at = dma_test_now(),
    };
    s->nr_issued++;
    return true;
}

static bool dma_test_can_issue(DMATestState *s)
{
    return s->enabled && dma_test_is_master(s) && s->nr_issued < s->width &&
           s->sq_head != s->sq_tail &&
           !pci_dma_quiesce_is_stopped(PCI_DEVICE(s));
}

static void dma_test_issue_all(DMATestState *s, int64_t now)
{
    int i;

    for (i = 0; i < DMA_TEST_MAX_WIDTH && dma_test_can_issue(s); i++) {
        if (!s->issued[i].used && !dma_test_issue(s, &s->issued[i], now)) {
            break;
        }
    }
    dma_test_update_pending(s);
}

/* Also correct if the timer runs already. */
static void dma_test_schedule(DMATestState *s)
{
    int64_t next = INT64_MAX;
    int i;

    if (dma_test_can_issue(s)) {
        next = qemu_clock_get_ns(s->clock);
    }
    for (i = 0; i < DMA_TEST_MAX_WIDTH; i++) {
        if (s->issued[i].used) {
            next = MIN(next, s->issued[i].lands_at);
        }
    }
    if (next == INT64_MAX) {
        timer_del(s->timer);
    } else {
        timer_mod_ns(s->timer, next);
    }
}

static void dma_test_timer(void *opaque)
{
    DMATestState *s = opaque;
    int64_t now = qemu_clock_get_ns(s->clock);
    int i, landed = 0;
    bool more;

    do {
        more = false;
        for (i = 0; i < DMA_TEST_MAX_WIDTH; i++) {
            if (s->issued[i].used && s->issued[i].lands_at <= now) {
                dma_test_land(s, &s->issued[i]);
                landed++;
                more = true;
            }
        }
        dma_test_issue_all(s, now);
    } while (more && landed < DMA_TEST_BURST);

    dma_test_schedule(s);
}

static bool dma_test_rings_valid(DMATestState *s)
{
    return is_power_of_2(s->sq_size) && s->sq_size <= DMA_TEST_MAX_ENTRIES &&
           is_power_of_2(s->cq_size) && s->cq_size <= DMA_TEST_MAX_ENTRIES &&
           s->cq_shift >= DMA_TEST_MIN_CQ_SHIFT &&
           s->cq_shift <= DMA_TEST_MAX_CQ_SHIFT &&
           s->width >= 1 && s->width <= DMA_TEST_MAX_WIDTH;
}

static void dma_test_enable(DMATestState *s)
{
    if (!dma_test_rings_valid(s)) {
        s->error = true;
        return;
    }
    s->error = false;
    s->enabled = true;
    s->run++;
    s->sq_tail = 0;
    s->sq_head = 0;
    s->cq_tail = 0;
    dma_test_log(s, &(DMATestRecord) {
        .type = DMA_TEST_LOG_ENABLE, .addr = s->sq_base,
        .status = dma_test_is_master(s),
    });
    trace_dma_test_enable(s->sq_base, s->cq_base);
}

static void dma_test_write_control(DMATestState *s, uint32_t val)
{
    bool enable = val & DMA_TEST_CONTROL_ENABLE;

    if (enable == s->enabled) {
        return;
    }
    if (enable) {
        dma_test_enable(s);
    } else {
        dma_test_log_event(s, DMA_TEST_LOG_DISABLE, dma_test_disable(s));
    }
}

/* --- Periodic writer ---------------------------------------------------- */

static bool dma_test_periodic_valid(DMATestState *s)
{
    return s->periodic_pages >= 1 &&
           s->periodic_pages <= DMA_TEST_MAX_PERIODIC_PAGES;
}

static void dma_test_periodic_stop(DMATestState *s)
{
    s->periodic_interval = 0;
    timer_del(s->periodic_timer);
}

static void dma_test_periodic_schedule(DMATestState *s)
{
    if (!s->periodic_interval || pci_dma_quiesce_is_stopped(PCI_DEVICE(s))) {
        return;
    }
    s->periodic_at = qemu_clock_get_ns(s->clock) +
                     s->periodic_interval * 1000LL;
    timer_mod_ns(s->periodic_timer, s->periodic_at);
}

static void dma_test_periodic_start(DMATestState *s, uint32_t interval)
{
    dma_test_periodic_stop(s);
    if (!interval || !dma_test_is_master(s) || !dma_test_periodic_valid(s)) {
        return;
    }
    s->periodic_interval = interval;
    s->periodic_count = 0;
    dma_test_periodic_schedule(s);
}

static void dma_test_periodic_timer(void *opaque)
{
    DMATestState *s = opaque;
    uint64_t n = ++s->periodic_count;
    uint64_t addr = s->periodic_addr + (n % s->periodic_pages) * 4096 +
                    n / s->periodic_pages % 512 * 8;
    uint8_t buf[8];

    stq_le_p(buf, n);
    if (!dma_test_write(s, addr, buf, sizeof(buf))) {
        dma_test_fault(s, addr, sizeof(buf));
        dma_test_periodic_stop(s);
        return;
    }
    s->written++;
    dma_test_log(s, &(DMATestRecord) {
        .type = DMA_TEST_LOG_COUNTER, .kind = s->periodic_kind,
        .addr = addr, .len = sizeof(buf), .seed = n,
    });
    dma_test_periodic_schedule(s);
}

/* --- Quiesce ------------------------------------------------------------ */

static void dma_test_quiesce_flush(PCIDevice *pdev)
{
    DMATestState *s = DMA_TEST(pdev);

    dma_test_log_event(s, DMA_TEST_LOG_FLUSH, dma_test_queued(s));
    timer_del(s->periodic_timer);
    /* The clock of a stopped VM stands still: nothing would land by itself. */
    if (s->clock == QEMU_CLOCK_VIRTUAL && !runstate_is_running()) {
        dma_test_land_all(s);
    }
    dma_test_end_flush(s);
    dma_test_schedule(s);
}

static void dma_test_quiesce_resume(PCIDevice *pdev)
{
    DMATestState *s = DMA_TEST(pdev);

    dma_test_log_event(s, DMA_TEST_LOG_RESUME, dma_test_queued(s));
    dma_test_periodic_schedule(s);
    dma_test_schedule(s);
}

static const PCIDMAQuiesceOps dma_test_quiesce_ops = {
    .flush = dma_test_quiesce_flush,
    .resume = dma_test_quiesce_resume,
};

/* --- Registers ---------------------------------------------------------- */

static uint32_t dma_test_status(DMATestState *s)
{
    return (s->enabled ? DMA_TEST_STATUS_ENABLED : 0) |
           (s->nr_issued ? DMA_TEST_STATUS_BUSY : 0) |
           (s->error ? DMA_TEST_STATUS_ERROR : 0);
}

static uint64_t dma_test_mmio_read(void *opaque, hwaddr addr, unsigned size)
{
    DMATestState *s = opaque;

    switch (addr) {
    case DMA_TEST_ID:
        return DMA_TEST_ID_VALUE;
    case DMA_TEST_VERSION:
        return DMA_TEST_VERSION_VALUE;
    case DMA_TEST_CONTROL:
        return s->enabled ? DMA_TEST_CONTROL_ENABLE : 0;
    case DMA_TEST_STATUS:
        return dma_test_status(s);
    case DMA_TEST_SQ_BASE:
        return extract64(s->sq_base, 0, 32);
    case DMA_TEST_SQ_BASE + 4:
        return extract64(s->sq_base, 32, 32);
    case DMA_TEST_SQ_SIZE:
        return s->sq_size;
    case DMA_TEST_SQ_TAIL:
        return s->sq_tail;
    case DMA_TEST_SQ_HEAD:
        return s->sq_head;
    case DMA_TEST_CQ_SIZE:
        return s->cq_size;
    case DMA_TEST_CQ_BASE:
        return extract64(s->cq_base, 0, 32);
    case DMA_TEST_CQ_BASE + 4:
        return extract64(s->cq_base, 32, 32);
    case DMA_TEST_CQ_SHIFT:
        return s->cq_shift;
    case DMA_TEST_CQ_TAIL:
        return s->cq_tail;
    case DMA_TEST_WIDTH:
        return s->width;
    case DMA_TEST_ISSUED:
        return s->nr_issued;
    case DMA_TEST_PERIODIC_ADDR:
        return extract64(s->periodic_addr, 0, 32);
    case DMA_TEST_PERIODIC_ADDR + 4:
        return extract64(s->periodic_addr, 32, 32);
    case DMA_TEST_PERIODIC_INTERVAL:
        return s->periodic_interval;
    case DMA_TEST_PERIODIC_KIND:
        return s->periodic_kind;
    case DMA_TEST_PERIODIC_PAGES:
        return s->periodic_pages;
    case DMA_TEST_PERIODIC_COUNT:
        return extract64(s->periodic_count, 0, 32);
    case DMA_TEST_PERIODIC_COUNT + 4:
        return extract64(s->periodic_count, 32, 32);
    default:
        return 0;
    }
}

/* What describes the rings is fixed while the engine uses it. */
static void dma_test_write_ring(DMATestState *s, hwaddr addr, uint32_t val)
{
    if (s->enabled) {
        return;
    }

    switch (addr) {
    case DMA_TEST_SQ_BASE:
        s->sq_base = deposit64(s->sq_base, 0, 32, val);
        break;
    case DMA_TEST_SQ_BASE + 4:
        s->sq_base = deposit64(s->sq_base, 32, 32, val);
        break;
    case DMA_TEST_SQ_SIZE:
        s->sq_size = val;
        break;
    case DMA_TEST_CQ_SIZE:
        s->cq_size = val;
        break;
    case DMA_TEST_CQ_BASE:
        s->cq_base = deposit64(s->cq_base, 0, 32, val);
        break;
    case DMA_TEST_CQ_BASE + 4:
        s->cq_base = deposit64(s->cq_base, 32, 32, val);
        break;
    case DMA_TEST_CQ_SHIFT:
        s->cq_shift = val;
        break;
    case DMA_TEST_WIDTH:
        s->width = val;
        break;
    }
}

/* Likewise what the periodic writer uses. */
static void dma_test_write_periodic(DMATestState *s, hwaddr addr, uint32_t val)
{
    if (addr == DMA_TEST_PERIODIC_INTERVAL) {
        dma_test_periodic_start(s, val);
        return;
    }
    if (s->periodic_interval) {
        return;
    }

    switch (addr) {
    case DMA_TEST_PERIODIC_ADDR:
        s->periodic_addr = deposit64(s->periodic_addr, 0, 32, val);
        break;
    case DMA_TEST_PERIODIC_ADDR + 4:
        s->periodic_addr = deposit64(s->periodic_addr, 32, 32, val);
        break;
    case DMA_TEST_PERIODIC_KIND:
        s->periodic_kind = extract32(val, 0, 16);
        break;
    case DMA_TEST_PERIODIC_PAGES:
        s->periodic_pages = val;
        break;
    }
}

static void dma_test_mmio_write(void *opaque, hwaddr addr, uint64_t val,
                                unsigned size)
{
    DMATestState *s = opaque;

    if (addr == DMA_TEST_CONTROL) {
        dma_test_write_control(s, val);
    } else if (addr == DMA_TEST_SQ_TAIL) {
        /* More than the ring holds would be fetched twice: ignored. */
        if (s->enabled && (uint32_t)val - s->sq_head <= s->sq_size) {
            s->sq_tail = val;
        }
    } else if (addr == DMA_TEST_NOTE) {
        dma_test_log_event(s, DMA_TEST_LOG_NOTE, val);
    } else if (addr >= DMA_TEST_PERIODIC_ADDR) {
        dma_test_write_periodic(s, addr, val);
    } else {
        dma_test_write_ring(s, addr, val);
    }
    /* Not from here: a device that acts later finds more bugs. */
    dma_test_schedule(s);
}

static const MemoryRegionOps dma_test_mmio_ops = {
    .read = dma_test_mmio_read,
    .write = dma_test_mmio_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {
        .min_access_size = 4,
        .max_access_size = 8,
    },
    .impl = {
        .min_access_size = 4,
        .max_access_size = 4,
    },
};

/* --- Configuration space and reset -------------------------------------- */

static uint32_t dma_test_config_read(PCIDevice *pdev, uint32_t addr, int len)
{
    if (DMA_TEST(pdev)->fault == DMA_TEST_FAULT_GONE) {
        return MAKE_64BIT_MASK(0, len * 8);
    }
    return pci_default_read_config(pdev, addr, len);
}

static void dma_test_config_write(PCIDevice *pdev, uint32_t addr, uint32_t val,
                                  int len)
{
    DMATestState *s = DMA_TEST(pdev);
    bool was_master = dma_test_is_master(s);

    if (s->fault == DMA_TEST_FAULT_GONE) {
        return;
    }
    pci_default_write_config(pdev, addr, val, len);

    if (was_master && !dma_test_is_master(s)) {
        dma_test_periodic_stop(s);
        dma_test_log_event(s, DMA_TEST_LOG_MASTER_OFF, dma_test_disable(s));
    } else if (!was_master && dma_test_is_master(s)) {
        dma_test_log_event(s, DMA_TEST_LOG_MASTER_ON, 0);
    }
    pcie_cap_flr_write_config(pdev, addr, val, len);
    pci_dma_quiesce_write_config(pdev, addr, val, len);
    dma_test_schedule(s);
}

static void dma_test_reset_hold(Object *obj, ResetType type)
{
    DMATestState *s = DMA_TEST(obj);
    uint32_t died = dma_test_disable(s);

    pci_dma_quiesce_reset(PCI_DEVICE(s));
    /* Posted writes cannot be called back: they land, and nothing after. */
    dma_test_land_all(s);
    dma_test_periodic_stop(s);

    s->error = false;
    s->sq_base = 0;
    s->sq_size = DMA_TEST_DEFAULT_ENTRIES;
    s->sq_tail = 0;
    s->sq_head = 0;
    s->cq_base = 0;
    s->cq_size = DMA_TEST_DEFAULT_ENTRIES;
    s->cq_shift = DMA_TEST_DEFAULT_CQ_SHIFT;
    s->cq_tail = 0;
    s->width = DMA_TEST_MAX_WIDTH;
    s->periodic_addr = 0;
    s->periodic_kind = DMA_TEST_KIND_OTHER;
    s->periodic_pages = 1;
    s->periodic_count = 0;
    dma_test_log_event(s, DMA_TEST_LOG_RESET, died);
    dma_test_schedule(s);
}

/* --- Migration (of a device with clock=virtual) ------------------------- */

static int dma_test_post_load(void *opaque, int version_id)
{
    DMATestState *s = opaque;
    int i;

    if (!dma_test_rings_valid(s) && s->enabled) {
        error_report("dma-test: rings in the stream make no sense");
        return -EINVAL;
    }
    if (s->periodic_interval && !dma_test_periodic_valid(s)) {
        error_report("dma-test: periodic writer in the stream makes no sense");
        return -EINVAL;
    }

    s->nr_issued = 0;
    for (i = 0; i < DMA_TEST_MAX_WIDTH; i++) {
        s->nr_issued += s->issued[i].used;
    }
    dma_test_update_pending(s);
    if (s->periodic_interval && !pci_dma_quiesce_is_stopped(PCI_DEVICE(s))) {
        timer_mod_ns(s->periodic_timer, s->periodic_at);
    }
    dma_test_schedule(s);
    return 0;
}

static const VMStateDescription dma_test_vmstate_transfer = {
    .name = "dma-test/transfer",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(used, DMATestTransfer),
        VMSTATE_UINT64(addr, DMATestTransfer),
        VMSTATE_UINT64(seed, DMATestTransfer),
        VMSTATE_UINT32(len, DMATestTransfer),
        VMSTATE_UINT32(cookie, DMATestTransfer),
        VMSTATE_UINT16(op, DMATestTransfer),
        VMSTATE_UINT16(kind, DMATestTransfer),
        VMSTATE_UINT32(run, DMATestTransfer),
        VMSTATE_INT64(lands_at, DMATestTransfer),
        VMSTATE_INT64(issued_at, DMATestTransfer),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription dma_test_vmstate_quiesce = {
    .name = "dma-test/dma-quiesce",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = pci_dma_quiesce_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_PCI_DMA_QUIESCE(),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription dma_test_vmstate = {
    .name = "dma-test",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = dma_test_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_PCI_DEVICE(parent_obj, DMATestState),
        VMSTATE_STRUCT(parent_obj.exp.aer_log, DMATestState, 0,
                       vmstate_pcie_aer_log, PCIEAERLog),
        VMSTATE_MSIX(parent_obj, DMATestState),
        VMSTATE_BOOL(enabled, DMATestState),
        VMSTATE_BOOL(error, DMATestState),
        VMSTATE_UINT64(sq_base, DMATestState),
        VMSTATE_UINT32(sq_size, DMATestState),
        VMSTATE_UINT32(sq_tail, DMATestState),
        VMSTATE_UINT32(sq_head, DMATestState),
        VMSTATE_UINT64(cq_base, DMATestState),
        VMSTATE_UINT32(cq_size, DMATestState),
        VMSTATE_UINT32(cq_shift, DMATestState),
        VMSTATE_UINT32(cq_tail, DMATestState),
        VMSTATE_UINT32(width, DMATestState),
        VMSTATE_UINT64(periodic_addr, DMATestState),
        VMSTATE_UINT32(periodic_interval, DMATestState),
        VMSTATE_UINT32(periodic_kind, DMATestState),
        VMSTATE_UINT32(periodic_pages, DMATestState),
        VMSTATE_UINT64(periodic_count, DMATestState),
        VMSTATE_INT64(periodic_at, DMATestState),
        VMSTATE_UINT32(run, DMATestState),
        VMSTATE_STRUCT_ARRAY(issued, DMATestState, DMA_TEST_MAX_WIDTH, 1,
                             dma_test_vmstate_transfer, DMATestTransfer),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &dma_test_vmstate_quiesce,
        NULL
    }
};

/* --- Life --------------------------------------------------------------- */

static bool dma_test_set_clock(DMATestState *s, Error **errp)
{
    if (!g_strcmp0(s->clock_name, "virtual")) {
        s->clock = QEMU_CLOCK_VIRTUAL;
        return true;
    }
    if (s->clock_name && strcmp(s->clock_name, "realtime")) {
        error_setg(errp, "property 'clock' must be 'realtime' or 'virtual'");
        return false;
    }

    s->clock = QEMU_CLOCK_REALTIME;
    error_setg(&s->migration_blocker,
               "dma-test goes on while the VM is stopped (clock=realtime)");
    return migrate_add_blocker(&s->migration_blocker, errp) == 0;
}

static void dma_test_realize(PCIDevice *pdev, Error **errp)
{
    DMATestState *s = DMA_TEST(pdev);

    memory_region_init_io(&s->regs, OBJECT(s), &dma_test_mmio_ops, s,
                          "dma-test-regs", DMA_TEST_BAR_SIZE);
    pci_register_bar(pdev, DMA_TEST_BAR, PCI_BASE_ADDRESS_SPACE_MEMORY,
                     &s->regs);
    if (msix_init_exclusive_bar(pdev, DMA_TEST_NR_VECTORS, DMA_TEST_MSIX_BAR,
                                errp) < 0) {
        return;
    }
    msix_vector_use(pdev, DMA_TEST_VECTOR_COMPLETION);
    if (pcie_endpoint_cap_init(pdev, DMA_TEST_EXP_CAP) < 0) {
        error_setg(errp, "no PCI Express capability: plug into a PCIe bus");
        goto out_msix;
    }
    pcie_cap_flr_init(pdev);
    /* It differs between two sides of a migration, and is set when loaded. */
    pci_word_test_and_clear_mask(pdev->cmask + pdev->exp.exp_cap +
                                 PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_TRPND);
    if (pcie_aer_init(pdev, PCI_ERR_VER, PCI_CONFIG_SPACE_SIZE,
                      PCI_ERR_SIZEOF, errp) < 0) {
        goto out_cap;
    }

    if (!dma_test_set_clock(s, errp)) {
        goto out_aer;
    }
    if (!dma_test_log_open(s, errp)) {
        goto out_blocker;
    }
    s->timer = timer_new_ns(s->clock, dma_test_timer, s);
    s->periodic_timer = timer_new_ns(s->clock, dma_test_periodic_timer, s);
    if (s->dma_quiesce) {
        pci_dma_quiesce_init(pdev, DMA_TEST_QUIESCE_CAP,
                             &dma_test_quiesce_ops);
    }
    return;

out_blocker:
    migrate_del_blocker(&s->migration_blocker);
out_aer:
    pcie_aer_exit(pdev);
out_cap:
    pcie_cap_exit(pdev);
out_msix:
    msix_uninit_exclusive_bar(pdev);
}

static void dma_test_exit(PCIDevice *pdev)
{
    DMATestState *s = DMA_TEST(pdev);

    pci_dma_quiesce_exit(pdev);
    timer_free(s->periodic_timer);
    timer_free(s->timer);
    if (s->log_fd >= 0) {
        close(s->log_fd);
    }
    migrate_del_blocker(&s->migration_blocker);
    pcie_aer_exit(pdev);
    pcie_cap_exit(pdev);
    msix_uninit_exclusive_bar(pdev);
}

static int dma_test_get_fault(Object *obj, Error **errp)
{
    return DMA_TEST(obj)->fault;
}

static void dma_test_set_fault(Object *obj, int val, Error **errp)
{
    DMATestState *s = DMA_TEST(obj);

    s->fault = val;
    if (qdev_is_realized(DEVICE(s))) {
        dma_test_update_pending(s);
    }
}

static void dma_test_get_marker(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    visit_type_uint64(v, name, &DMA_TEST(obj)->marker, errp);
}

static void dma_test_set_marker(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    DMATestState *s = DMA_TEST(obj);
    uint64_t val;

    if (!visit_type_uint64(v, name, &val, errp)) {
        return;
    }
    if (!qdev_is_realized(DEVICE(s))) {
        error_setg(errp, "there is no log before the device is realized");
        return;
    }
    s->marker = val;
    dma_test_log_event(s, DMA_TEST_LOG_MARKER, val);
}

static void dma_test_instance_init(Object *obj)
{
    DMATestState *s = DMA_TEST(obj);

    s->log_fd = -1;
    object_property_add_uint64_ptr(obj, "written", &s->written,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "issued", &s->nr_issued,
                                   OBJ_PROP_FLAG_READ);
}

static const Property dma_test_properties[] = {
    DEFINE_PROP_STRING("log", DMATestState, log_path),
    DEFINE_PROP_STRING("clock", DMATestState, clock_name),
    DEFINE_PROP_BOOL("dma-quiesce", DMATestState, dma_quiesce, false),
};

static void dma_test_class_init(ObjectClass *klass, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->realize = dma_test_realize;
    pc->exit = dma_test_exit;
    pc->config_read = dma_test_config_read;
    pc->config_write = dma_test_config_write;
    pc->vendor_id = DMA_TEST_PCI_VENDOR;
    pc->device_id = DMA_TEST_PCI_DEVICE;
    pc->revision = DMA_TEST_VERSION_VALUE;
    pc->class_id = PCI_CLASS_OTHERS;

    rc->phases.hold = dma_test_reset_hold;

    dc->desc = "DMA test device";
    dc->vmsd = &dma_test_vmstate;
    device_class_set_props(dc, dma_test_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    object_class_property_add_enum(klass, "x-fault", "DMATestFault",
                                   &dma_test_fault_lookup, dma_test_get_fault,
                                   dma_test_set_fault);
    object_class_property_set_description(klass, "x-fault",
        "How the device is broken; can be changed at any time");
    object_class_property_add(klass, "marker", "uint64", dma_test_get_marker,
                              dma_test_set_marker, NULL, NULL);
    object_class_property_set_description(klass, "marker",
        "Writing it appends a record with the value to the log");
}

static const TypeInfo dma_test_info = {
    .name = TYPE_DMA_TEST,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(DMATestState),
    .instance_init = dma_test_instance_init,
    .class_init = dma_test_class_init,
    .interfaces = (const InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void dma_test_register_types(void)
{
    type_register_static(&dma_test_info);
}

type_init(dma_test_register_types)

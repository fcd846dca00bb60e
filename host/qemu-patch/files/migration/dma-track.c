/*
 * DMA tracking by the guest: functions, provider, and what migration asks of
 * them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-dma-track.h"
#include "qapi/util.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "exec/target_page.h"
#include "hw/pci/dma-quiesce.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "dma-track-internal.h"
#include "migration.h"
#include "options.h"
#include "trace.h"

/*
 * Everything is protected by the BQL, except @active and @failed_set, which
 * the migration thread also reads without it.
 */
static struct {
    QTAILQ_HEAD(, DMATrackFunction) functions;
    /* See dma_track_bystander_register(). */
    QTAILQ_HEAD(, DMATrackFunction) bystanders;
    DMATrackProvider *provider;

    /* Planes are in use: from dma_track_start() to dma_track_end(). */
    bool active;
    /* The guest is being asked to log, with the BQL dropped. */
    bool starting;
    /*
     * The guest logged, and was stopped by somebody else before it gave the
     * last sign of life: perhaps it had crashed, and another kernel had taken
     * its place that knows nothing of planes. So take all for pinned.
     */
    bool unheard;
    /*
     * The first reason of dma_track_fail() in this migration. Set once, before
     * @failed_set; cleared only while no migration runs.
     */
    Error *failed;
    bool failed_set;

    DMATrackMigrationInfo last;
    bool last_valid;

    NotifierWithReturn migration_notifier;
    VMChangeStateEntry *vm_change;
} dma_track = {
    .functions = QTAILQ_HEAD_INITIALIZER(dma_track.functions),
    .bystanders = QTAILQ_HEAD_INITIALIZER(dma_track.bystanders),
};

static const TypeInfo dma_track_provider_info = {
    .name = TYPE_DMA_TRACK_PROVIDER,
    .parent = TYPE_INTERFACE,
    .class_size = sizeof(DMATrackProviderClass),
};

static void dma_track_register_types(void)
{
    type_register_static(&dma_track_provider_info);
}
type_init(dma_track_register_types)

/* --- Functions -------------------------------------------------------- */

uint32_t dma_track_function_sbdf(const DMATrackFunction *fn)
{
    PCIBus *bus = pci_get_bus(fn->pdev);

    /* All buses of a machine are in segment 0. */
    return PCI_BUILD_BDF(PCI_BUS_GET_CLASS(bus)->bus_num(bus),
                         fn->pdev->devfn);
}

char *dma_track_function_label(const DMATrackFunction *fn)
{
    uint32_t sbdf = dma_track_function_sbdf(fn);

    return g_strdup_printf("%s (guest %02x:%02x.%x)", fn->name,
                           PCI_BUS_NUM(sbdf), PCI_SLOT(sbdf), PCI_FUNC(sbdf));
}

DMATrackProvider *dma_track_provider(void)
{
    return dma_track.provider;
}

DMATrackFunction *dma_track_bystander_first(void)
{
    return QTAILQ_FIRST(&dma_track.bystanders);
}

DMATrackFunction *dma_track_function_first(void)
{
    return QTAILQ_FIRST(&dma_track.functions);
}

DMATrackFunction *dma_track_function_next(DMATrackFunction *fn)
{
    return QTAILQ_NEXT(fn, next);
}

DMATrackFunction *dma_track_function_find(uint32_t sbdf)
{
    DMATrackFunction *fn;

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (dma_track_function_sbdf(fn) == sbdf) {
            return fn;
        }
    }
    return NULL;
}

bool dma_track_function_is_idle(DMATrackFunction *fn)
{
    if (fn->fenced) {
        return true;
    }
    if (fn->ops && fn->ops->is_idle) {
        return fn->ops->is_idle(fn);
    }
    return !(pci_get_word(fn->pdev->config + PCI_COMMAND) &
             PCI_COMMAND_MASTER);
}

static bool dma_track_function_stop(DMATrackFunction *fn, Error **errp)
{
    if (!fn->ops || !fn->ops->stop) {
        return true;
    }
    trace_dma_track_function_stop(fn->name);
    if (!fn->stopped) {
        qapi_free_DMAQuiesceStepInfoList(fn->steps);
        fn->steps = NULL;
    }
    /* First, so that whatever becomes of it, it is resumed. */
    fn->stopped = true;
    return fn->ops->stop(fn, errp);
}

static void dma_track_function_drain(DMATrackFunction *fn)
{
    if (!fn->ops || !fn->ops->drain) {
        return;
    }
    trace_dma_track_function_drain(fn->name);
    fn->ops->drain(fn);
}

static bool dma_track_function_quiesce(DMATrackFunction *fn, Error **errp)
{
    if (!fn->ops || !fn->ops->quiesce) {
        return true;
    }
    trace_dma_track_function_quiesce(fn->name);
    return fn->ops->quiesce(fn, errp);
}

static bool dma_track_function_reset(DMATrackFunction *fn, Error **errp)
{
    if (!fn->ops || !fn->ops->reset) {
        return true;
    }
    trace_dma_track_function_reset(fn->name);
    return fn->ops->reset(fn, errp);
}

static void dma_track_function_resume(DMATrackFunction *fn)
{
    if (!fn->stopped) {
        return;
    }
    trace_dma_track_function_resume(fn->name);
    fn->stopped = false;
    if (fn->ops->resume) {
        fn->ops->resume(fn);
    }
}

/*
 * Between the vCPUs' stop and the functions' own vm-change handlers. A function
 * that migrates by itself leaves its running states in those handlers, and must
 * not be written to by a neighbour from then on. It does so whoever stops the
 * VM while it migrates; if there is none, only the end of the migration counts.
 */
static void dma_track_vm_prepare(void *opaque, bool running, RunState state)
{
    DMATrackFunction *fn;

    if (running || !migration_is_running() || migrate_mode_is_cpr() ||
        (state != RUN_STATE_FINISH_MIGRATE &&
         QTAILQ_EMPTY(&dma_track.bystanders))) {
        return;
    }

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        Error *err = NULL;

        if (!dma_track_function_stop(fn, &err)) {
            /* dma_track_quiesce() tries again, and decides. */
            error_free(err);
        }
    }
    DMA_TRACK_FOREACH_FUNCTION(fn) {
        dma_track_function_drain(fn);
    }
}

static void dma_track_vm_change(void *opaque, bool running, RunState state)
{
    DMATrackProvider *p = dma_track.provider;

    if (!running) {
        return;
    }

    /* However it came that the VM runs, its functions have to work. */
    dma_track_resume();

    /* While the guest is being asked, dma_track_start() sees to it. */
    if (!qatomic_read(&dma_track.active) || !p || dma_track.starting) {
        return;
    }
    if (!DMA_TRACK_PROVIDER_GET_CLASS(p)->is_logging(p)) {
        Error *err = NULL;

        error_setg(&err, "the VM began to run during a migration that had "
                   "begun while it was paused, so that the guest does not "
                   "log what its devices write");
        dma_track_fail(err);
    }
}

static int dma_track_migration_event(NotifierWithReturn *notify,
                                     MigrationEvent *e, Error **errp)
{
    /*
     * A function that migrates by itself is told the same, perhaps later: the
     * others may write to it when it runs, which it does when the VM does.
     */
    if (e->type == MIG_EVENT_FAILED && QTAILQ_EMPTY(&dma_track.bystanders)) {
        dma_track_resume();
    }
    return 0;
}

/* Of a function that nobody has looked at yet. */
static void dma_track_function_init(DMATrackFunction *fn)
{
    fn->tracker = DMA_TRACKER_NOBODY;
    fn->since = g_get_real_time() / G_USEC_PER_SEC;
    fn->restored = DMA_TRACK_RESTORED_NONE;
    dma_track_begin_looking();
}

/* One function fewer: the last one needs no looking at. */
static void dma_track_function_gone(void)
{
    if (!QTAILQ_EMPTY(&dma_track.functions) ||
        !QTAILQ_EMPTY(&dma_track.bystanders)) {
        dma_track_changed();
        return;
    }
    dma_track_end_looking();
}

void dma_track_function_register(DMATrackFunction *fn)
{
    assert(fn->tracked_by == DMA_TRACKED_BY_GUEST ||
           fn->tracked_by == DMA_TRACKED_BY_EXTERNAL);

    if (!dma_track.vm_change) {
        dma_track.vm_change =
            qemu_add_vm_change_state_handler_prio_full(dma_track_vm_change,
                                                       dma_track_vm_prepare,
                                                       NULL, NULL, 0);
        migration_add_notifier(&dma_track.migration_notifier,
                               dma_track_migration_event);
    }

    if (fn->tracked_by == DMA_TRACKED_BY_EXTERNAL) {
        warn_report("%s: tracked by somebody else (dma-tracked-by=external): "
                    "if nobody does, a migration loses what it writes",
                    fn->name);
    }

    dma_track_function_init(fn);
    QTAILQ_INSERT_TAIL(&dma_track.functions, fn, next);
    trace_dma_track_function_register(fn->name,
                                      DMATrackedBy_str(fn->tracked_by));
}

void dma_track_function_unregister(DMATrackFunction *fn)
{
    g_autofree char *label = dma_track_function_label(fn);
    Error *err = NULL;

    trace_dma_track_function_unregister(fn->name);
    QTAILQ_REMOVE(&dma_track.functions, fn, next);
    qapi_free_DMAQuiesceStepInfoList(fn->steps);
    fn->steps = NULL;

    /* The planes say nothing of it any more, but it has written memory. */
    error_setg(&err, "%s was unplugged during migration", label);
    dma_track_fail(err);
    dma_track_function_gone();
}

void dma_track_bystander_register(DMATrackFunction *fn)
{
    assert(fn->tracked_by == DMA_TRACKED_BY_DEVICE);

    dma_track_function_init(fn);
    QTAILQ_INSERT_TAIL(&dma_track.bystanders, fn, next);
    trace_dma_track_function_register(fn->name,
                                      DMATrackedBy_str(fn->tracked_by));
}

void dma_track_bystander_unregister(DMATrackFunction *fn)
{
    trace_dma_track_function_unregister(fn->name);
    QTAILQ_REMOVE(&dma_track.bystanders, fn, next);
    dma_track_function_gone();
}

static bool dma_track_emulated_stop(DMATrackFunction *fn, Error **errp)
{
    /* A virtual function that is not enabled is not there. */
    if (fn->pdev->enabled) {
        pci_dma_quiesce_hold(fn->pdev);
    }
    return true;
}

static bool dma_track_emulated_quiesce(DMATrackFunction *fn, Error **errp)
{
    ERRP_GUARD();

    if (fn->pdev->enabled && !pci_dma_quiesce_check(fn->pdev, errp)) {
        error_prepend(errp, "%s: ", fn->name);
        return false;
    }
    return true;
}

static void dma_track_emulated_resume(DMATrackFunction *fn)
{
    pci_dma_quiesce_release(fn->pdev);
}

/*
 * Of a device that offers the ring flush. Nothing is reset: it carries its own
 * state, what it has not finished included.
 */
static const DMATrackFunctionOps dma_track_emulated_ops = {
    .stop = dma_track_emulated_stop,
    .quiesce = dma_track_emulated_quiesce,
    .resume = dma_track_emulated_resume,
};

bool dma_track_function_is_emulated(const DMATrackFunction *fn)
{
    return !fn->ops || fn->ops == &dma_track_emulated_ops;
}

bool dma_track_register_emulated(PCIDevice *pdev, Error **errp)
{
    int tracked_by = qapi_enum_parse(&DMATrackedBy_lookup, pdev->tracked_by,
                                     DMA_TRACKED_BY_AUTO, errp);
    DMATrackFunction *fn;

    if (tracked_by < 0) {
        return false;
    }
    if (tracked_by == DMA_TRACKED_BY_AUTO) {
        tracked_by = DMA_TRACKED_BY_GUEST;
    }

    fn = g_new0(DMATrackFunction, 1);
    fn->pdev = pdev;
    fn->name = g_strdup(DEVICE(pdev)->id ?: object_get_typename(OBJECT(pdev)));
    fn->tracked_by = tracked_by;
    if (tracked_by == DMA_TRACKED_BY_DEVICE) {
        dma_track_bystander_register(fn);
        return true;
    }
    if (pdev->dma_quiesce) {
        fn->ops = &dma_track_emulated_ops;
        fn->has_capability = true;
    }
    dma_track_function_register(fn);
    return true;
}

void dma_track_unregister_emulated(PCIDevice *pdev)
{
    DMATrackFunction *fn;

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (fn->pdev == pdev && dma_track_function_is_emulated(fn)) {
            dma_track_function_unregister(fn);
            g_free((char *)fn->name);
            g_free(fn);
            return;
        }
    }
    DMA_TRACK_FOREACH_BYSTANDER(fn) {
        if (fn->pdev == pdev && dma_track_function_is_emulated(fn)) {
            dma_track_bystander_unregister(fn);
            g_free((char *)fn->name);
            g_free(fn);
            return;
        }
    }
}

void dma_track_function_replaced(DMATrackFunction *fn)
{
    DMATrackProvider *p = dma_track.provider;

    fn->generation++;
    fn->restored = DMA_TRACK_RESTORED_NONE;
    trace_dma_track_function_replaced(fn->name, fn->generation);
    if (p) {
        DMA_TRACK_PROVIDER_GET_CLASS(p)->function_replaced(p, fn);
    }
}

void dma_track_function_record(DMATrackFunction *fn, DMAQuiesce method,
                               int64_t duration_us, const Error *err)
{
    DMAQuiesceStepInfo *info = g_new0(DMAQuiesceStepInfo, 1);

    info->method = method;
    info->duration_us = MAX(duration_us, 0);
    info->error = err ? g_strdup(error_get_pretty(err)) : NULL;
    QAPI_LIST_PREPEND(fn->steps, info);
    trace_dma_track_function_record(fn->name, DMAQuiesce_str(method),
                                    duration_us, info->error ?: "ok");
}

bool dma_track_step_suppressed(DMATrackStep step)
{
    DMATrackProvider *p = dma_track.provider;

    return p && (DMA_TRACK_PROVIDER_GET_CLASS(p)->suppressed_steps(p) & step);
}

/* --- Provider --------------------------------------------------------- */

bool dma_track_provider_register(DMATrackProvider *p, Error **errp)
{
    if (dma_track.provider) {
        error_setg(errp, "there can be only one %s",
                   object_get_typename(OBJECT(p)));
        return false;
    }
    dma_track.provider = p;
    dma_track_changed();
    return true;
}

void dma_track_provider_unregister(DMATrackProvider *p)
{
    Error *err = NULL;

    assert(dma_track.provider == p);
    dma_track.provider = NULL;

    if (qatomic_read(&dma_track.active)) {
        error_setg(&err, "%s was unplugged during migration",
                   object_get_typename(OBJECT(p)));
        dma_track_fail(err);
    }
    dma_track_changed();
}

void dma_track_fail(Error *err)
{
    if (!migration_is_running() || migrate_mode_is_cpr() ||
        dma_track.failed) {
        error_free(err);
        return;
    }
    trace_dma_track_fail(error_get_pretty(err));
    dma_track.failed = err;
    qatomic_store_release(&dma_track.failed_set, true);
}

bool dma_track_check_failed(Error **errp)
{
    if (!qatomic_load_acquire(&dma_track.failed_set)) {
        return true;
    }
    error_propagate(errp, error_copy(dma_track.failed));
    return false;
}

static void dma_track_forget_failed(void)
{
    qatomic_set(&dma_track.failed_set, false);
    error_free(dma_track.failed);
    dma_track.failed = NULL;
}

bool dma_track_given_up(void)
{
    MigrationStatus state = qatomic_read(&migrate_get_current()->state);

    return state == MIGRATION_STATUS_CANCELLING ||
           state == MIGRATION_STATUS_FAILING ||
           qatomic_load_acquire(&dma_track.failed_set);
}

/* --- Migration -------------------------------------------------------- */

bool dma_track_wanted(void)
{
    DMATrackFunction *fn;

    if (!dma_track.provider) {
        return false;
    }
    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (fn->tracked_by == DMA_TRACKED_BY_GUEST) {
            return true;
        }
    }
    return false;
}

bool dma_track_save_prepare(Error **errp)
{
    dma_track_forget_failed();
    return dma_track_check_refusals(errp);
}

/*
 * Keep @p while the BQL is dropped: the guest may unplug it. A virtio device is
 * embedded in its proxy. A reference to itself keeps it from being finalized
 * when the proxy loses its bus; one to the proxy keeps its memory.
 * Returns the owner, for dma_track_provider_release(). With the BQL held.
 */
static Object *dma_track_provider_hold(DMATrackProvider *p)
{
    Object *owner = OBJECT(p)->parent;

    object_ref(OBJECT(p));
    return object_ref(owner);
}

/* With the BQL held. */
static void dma_track_provider_release(DMATrackProvider *p, Object *owner)
{
    object_unref(OBJECT(p));
    object_unref(owner);
}

/* What a function's owner says names the host's device; add the guest's. */
static void dma_track_prepend_address(Error **errp, const DMATrackFunction *fn)
{
    uint32_t sbdf = dma_track_function_sbdf(fn);

    error_prepend(errp, "guest %02x:%02x.%x: ", PCI_BUS_NUM(sbdf),
                  PCI_SLOT(sbdf), PCI_FUNC(sbdf));
}

/*
 * They write to each other: all of them stop before any is waited for, and what
 * they had begun lands before any is torn down.
 */
static bool dma_track_quiesce_functions(Error **errp)
{
    ERRP_GUARD();
    DMATrackFunction *fn;

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (!dma_track_function_stop(fn, errp)) {
            dma_track_prepend_address(errp, fn);
            return false;
        }
    }
    DMA_TRACK_FOREACH_FUNCTION(fn) {
        dma_track_function_drain(fn);
    }
    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (!dma_track_function_quiesce(fn, errp)) {
            dma_track_prepend_address(errp, fn);
            return false;
        }
    }
    return true;
}

/* With the BQL held, which is dropped while waiting. */
static bool dma_track_ask_to_log(DMATrackProvider *p, Error **errp)
{
    Object *owner = dma_track_provider_hold(p);
    bool ok;

    dma_track.starting = true;
    bql_unlock();
    ok = DMA_TRACK_PROVIDER_GET_CLASS(p)->start(p, errp);
    bql_lock();
    dma_track.starting = false;
    dma_track_provider_release(p, owner);
    return ok;
}

bool dma_track_start(Error **errp)
{
    DMATrackFunction *fn;
    DMATrackProvider *p;
    bool wait;
    bool ok = true;

    BQL_LOCK_GUARD();

    dma_track.last_valid = false;
    dma_track.unheard = false;
    fn = dma_track_function_first();
    if (!fn || migrate_mode_is_cpr()) {
        return true;
    }
    if (!dma_track_wanted()) {
        return true;
    }

    p = dma_track.provider;
    qatomic_set(&dma_track.active, true);
    wait = runstate_is_running();
    if (wait) {
        ok = dma_track_ask_to_log(p, errp);
    }
    if (ok && !runstate_is_running()) {
        /*
         * No vCPU can acknowledge, nor vouch for the planes: so nothing may be
         * written from here on.
         */
        ok = dma_track_quiesce_functions(errp);
    } else if (ok && dma_track.provider != p) {
        ok = dma_track_check_failed(errp);
    } else if (ok && !dma_track_given_up() &&
               !DMA_TRACK_PROVIDER_GET_CLASS(p)->is_logging(p)) {
        error_setg(errp, "the VM was stopped and continued before the guest "
                   "could log what its devices write");
        ok = false;
    }
    trace_dma_track_start(wait, ok);
    return ok;
}

void dma_track_look(void)
{
    DMATrackProvider *p = dma_track.provider;
    DMATrackFunction *fn;
    Error *err = NULL;

    if (!qatomic_read(&dma_track.active) || !p) {
        return;
    }
    DMA_TRACK_FOREACH_FUNCTION(fn) {
        /* The provider remembers what is worth it: dma_track_fail(). */
        dma_track_function_look(fn, &err);
        error_free(err);
        err = NULL;
    }
    /*
     * Now, not when all is sent: what makes planes useless makes all memory
     * pinned, and that may never fit the downtime.
     */
    if (!DMA_TRACK_PROVIDER_GET_CLASS(p)->check(p, &err)) {
        dma_track_fail(err);
    }
}

void dma_track_end_round(void)
{
    Error *err = NULL;

    if (!qatomic_read(&dma_track.active)) {
        return;
    }

    BQL_LOCK_GUARD();

    if (!dma_track_check_max_pinned(&err)) {
        dma_track_fail(err);
    }
}

bool dma_track_active(void)
{
    return qatomic_read(&dma_track.active);
}

void dma_track_merge_pinned(RAMBlock *rb, unsigned long *bmap,
                            uint64_t *streaming, uint64_t *coherent)
{
    DMATrackProvider *p = dma_track.provider;

    if (dma_track.unheard) {
        uint64_t nr = qemu_ram_get_used_length(rb) >> qemu_target_page_bits();

        bitmap_set(bmap, 0, nr);
        *streaming += nr;
        return;
    }
    /* Without one the migration fails: dma_track_provider_unregister(). */
    if (p) {
        DMA_TRACK_PROVIDER_GET_CLASS(p)->merge_pinned(p, rb, bmap, streaming,
                                                      coherent);
    }
}

bool dma_track_echo(Error **errp)
{
    DMATrackProvider *p;
    Object *owner;
    bool ok;

    if (!qatomic_read(&dma_track.active)) {
        return true;
    }

    BQL_LOCK_GUARD();

    p = dma_track.provider;
    if (runstate_check(RUN_STATE_SUSPENDED)) {
        error_setg(errp, "the guest is suspended and cannot give a sign of "
                   "life");
        return false;
    }
    if (!p) {
        return dma_track_check_failed(errp);
    }
    if (!runstate_is_running()) {
        /* If it never logged, functions are quiet since before the start. */
        dma_track.unheard = DMA_TRACK_PROVIDER_GET_CLASS(p)->is_logging(p);
        return dma_track_check_failed(errp);
    }

    owner = dma_track_provider_hold(p);
    bql_unlock();
    ok = DMA_TRACK_PROVIDER_GET_CLASS(p)->echo(p, errp);
    bql_lock();
    dma_track_provider_release(p, owner);
    /* The wait ends also when the VM is stopped. */
    dma_track.unheard = !runstate_is_running();
    trace_dma_track_echo(ok);
    return ok;
}

/*
 * CPR: each function goes on as it is in a new QEMU, where nobody knows of a
 * reset that was begun here, or whom to answer when it ends.
 */
static void dma_track_end_unfences(void)
{
    DMATrackFunction *fn;

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (fn->ops && fn->ops->end_unfence) {
            fn->ops->end_unfence(fn);
        }
    }
}

bool dma_track_quiesce(Error **errp)
{
    ERRP_GUARD();
    DMATrackFunction *fn;

    if (migrate_mode_is_cpr()) {
        dma_track_end_unfences();
        return true;
    }
    if (!dma_track_function_first()) {
        return dma_track_check_failed(errp);
    }
    if (runstate_is_running()) {
        error_setg(errp, "the VM runs, so its functions cannot be quiesced");
        return false;
    }
    if (!dma_track_check_failed(errp)) {
        return false;
    }

    if (dma_track.provider) {
        DMATrackProvider *p = dma_track.provider;

        DMA_TRACK_PROVIDER_GET_CLASS(p)->settle(p);
    }

    if (!dma_track_quiesce_functions(errp)) {
        return false;
    }

    /* P4 again: much can have happened since the migration began. */
    if (!dma_track_check_veto(errp)) {
        return false;
    }

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        if (!dma_track_function_reset(fn, errp)) {
            dma_track_prepend_address(errp, fn);
            return false;
        }
    }
    trace_dma_track_quiesced();
    return true;
}

void dma_track_resume(void)
{
    DMATrackFunction *fn;

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        dma_track_function_resume(fn);
    }
}

void dma_track_end(void)
{
    DMATrackProvider *p = dma_track.provider;

    if (qatomic_read(&dma_track.active)) {
        trace_dma_track_end();
        qatomic_set(&dma_track.active, false);
        if (p) {
            DMA_TRACK_PROVIDER_GET_CLASS(p)->stop(p);
        }
    }
    dma_track_forget_failed();
}

void dma_track_account_final(uint64_t pinned, uint64_t coherent,
                             uint64_t deferred, uint64_t bytes)
{
    dma_track.last = (DMATrackMigrationInfo) {
        .pinned_frames = pinned,
        .coherent_frames = coherent,
        .deferred_frames = deferred,
        .final_pass_bytes = bytes,
    };
    dma_track.last_valid = true;
    trace_dma_track_account_final(pinned, coherent, deferred, bytes);
}

const DMATrackMigrationInfo *dma_track_last_migration(void)
{
    return dma_track.last_valid ? &dma_track.last : NULL;
}

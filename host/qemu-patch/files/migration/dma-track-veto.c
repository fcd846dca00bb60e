/*
 * DMA tracking by the guest: could a migration begin, and if not, why
 *
 * Asked on demand: what it depends on changes without a word, so nobody is told
 * to block a migration and then to let go. Management is told by the event
 * DMA_TRACK_CHANGED.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-dma-track.h"
#include "qapi/util.h"
#include "qemu/timer.h"
#include "hw/core/boards.h"
#include "hw/pci/pci_device.h"
#include "migration/misc.h"
#include "standard-headers/linux/virtio_dma_track.h"
#include "system/address-spaces.h"
#include "system/runstate.h"
#include "dma-track-internal.h"
#include "migration.h"
#include "options.h"
#include "trace.h"

/*
 * How often we look whether the guest can be migrated, in ms: much that it
 * depends on changes without a word, such as the lost word and parameters.
 */
#define DMA_TRACK_LOOK_MS 1000

/* Fires DMA_TRACK_LOOK_MS after the last look; NULL without functions. */
static QEMUTimer *look_timer;
/* The reasons that the last event told of, or NULL if there was none. */
static char *told;

/* Could a migration begin now, as far as @fn is concerned? */
static bool dma_track_check_function(DMATrackFunction *fn, Error **errp)
{
    DMATrackProvider *p = dma_track_provider();

    /* A virtual function that is not enabled is not there. */
    if (fn->tracked_by == DMA_TRACKED_BY_EXTERNAL || !fn->pdev->enabled) {
        return true;
    }
    if (pci_device_iommu_address_space(fn->pdev) != &address_space_memory) {
        error_setg(errp, "it is behind an IOMMU of the guest, which is not "
                   "supported; give the guest none");
        return false;
    }
    if (p) {
        return DMA_TRACK_PROVIDER_GET_CLASS(p)->check_function(p, fn, errp);
    }
    if (dma_track_function_is_emulated(fn)) {
        return true;
    }
    if (fn->untracked_error) {
        error_setg(errp, "there is no virtio-dma-track device, and %s",
                   error_get_pretty(fn->untracked_error));
    } else {
        error_setg(errp, "there is no virtio-dma-track device");
    }
    return false;
}

DMATracker dma_track_function_look(DMATrackFunction *fn, Error **errp)
{
    DMATracker tracker = DMA_TRACKER_NOBODY;
    bool ok;

    if (fn->tracked_by == DMA_TRACKED_BY_DEVICE) {
        ok = !fn->ops || !fn->ops->check || fn->ops->check(fn, errp);
    } else {
        ok = dma_track_check_function(fn, errp);
    }
    if (ok) {
        switch (fn->tracked_by) {
        case DMA_TRACKED_BY_DEVICE:
            tracker = DMA_TRACKER_DEVICE;
            break;
        case DMA_TRACKED_BY_EXTERNAL:
            tracker = DMA_TRACKER_EXTERNAL;
            break;
        default:
            /* An emulated one is let through without a provider. */
            tracker = dma_track_provider() ? DMA_TRACKER_GUEST
                                         : DMA_TRACKER_NOBODY;
            break;
        }
    }
    if (tracker != fn->tracker) {
        fn->tracker = tracker;
        fn->since = g_get_real_time() / G_USEC_PER_SEC;
    }
    return tracker;
}

/*
 * The veto, without what depends on the kind of migration. Returns one text for
 * each reason, or NULL.
 */
static strList *dma_track_veto(void)
{
    DMATrackProvider *p = dma_track_provider();
    strList *reasons = NULL;
    strList **tail = &reasons;
    bool guest_tracked = false;
    DMATrackFunction *fn;

    DMA_TRACK_FOREACH_FUNCTION(fn) {
        g_autofree char *label = NULL;
        Error *err = NULL;

        guest_tracked |= fn->tracked_by == DMA_TRACKED_BY_GUEST;
        dma_track_function_look(fn, &err);
        if (!err) {
            continue;
        }
        label = dma_track_function_label(fn);
        QAPI_LIST_APPEND(tail, g_strdup_printf("%s: %s", label,
                                               error_get_pretty(err)));
        error_free(err);
    }
    if (p && guest_tracked) {
        Error *err = NULL;

        if (!DMA_TRACK_PROVIDER_GET_CLASS(p)->check(p, &err)) {
            QAPI_LIST_APPEND(tail, g_strdup(error_get_pretty(err)));
            error_free(err);
        }
    }
    return reasons;
}

/* All of @reasons as one text, which is empty if there is none. */
static char *dma_track_join(const strList *reasons)
{
    GString *text = g_string_new(NULL);

    for (; reasons; reasons = reasons->next) {
        g_string_append_printf(text, "%s%s", text->len ? "; " : "",
                               reasons->value);
    }
    return g_string_free(text, false);
}

bool dma_track_check_veto(Error **errp)
{
    g_autoptr(strList) reasons = dma_track_veto();
    g_autofree char *text = dma_track_join(reasons);

    if (!reasons) {
        return true;
    }
    error_setg(errp, "%s", text);
    return false;
}

/* What is refused, whatever the guest does, or NULL. */
static const char *dma_track_unsupported(void)
{
    if (runstate_check(RUN_STATE_SAVE_VM)) {
        return "a VM snapshot";
    }
    if (migrate_background_snapshot()) {
        return "a background snapshot";
    }
    if (migrate_postcopy_ram()) {
        return "postcopy";
    }
    if (migrate_colo()) {
        return "COLO";
    }
    if (current_machine->cgs) {
        return "a confidential guest";
    }
    return NULL;
}

bool dma_track_check_rdma(Error **errp)
{
    DMATrackFunction *fn = dma_track_function_first();
    g_autofree char *label = NULL;

    if (!fn) {
        return true;
    }
    label = dma_track_function_label(fn);
    error_setg(errp, "%s: RDMA is not supported with functions whose DMA QEMU "
               "cannot see", label);
    return false;
}

bool dma_track_check_max_pinned(Error **errp)
{
    DMATrackProvider *p = dma_track_provider();
    uint64_t streaming, coherent, max;

    if (!dma_track_wanted() || !runstate_is_running()) {
        return true;
    }
    max = DMA_TRACK_PROVIDER_GET_CLASS(p)->max_pinned(p);
    if (!max || DMA_TRACK_PROVIDER_GET_CLASS(p)->count_pinned(p, &streaming,
                                                              &coherent) <=
                max >> VIRTIO_DMA_TRACK_FRAME_SHIFT) {
        return true;
    }
    /* Not how much: the reason is the same as long as it is too much. */
    error_setg(errp, "the guest's devices hold more memory pinned than "
               "max-pinned allows, which is %" PRIu64 " bytes", max);
    return false;
}

/* Why a migration would be refused on account of functions: one text each. */
static strList *dma_track_refusals(void)
{
    DMATrackFunction *fn = dma_track_function_first();
    const char *unsupported = dma_track_unsupported();
    g_autofree char *label = NULL;
    strList *reasons = NULL;
    strList **tail = &reasons;
    Error *err = NULL;

    if (!fn || migrate_mode_is_cpr()) {
        return NULL;
    }
    label = dma_track_function_label(fn);
    if (runstate_check(RUN_STATE_SUSPENDED)) {
        QAPI_LIST_APPEND(tail, g_strdup_printf("%s: the guest is suspended: it "
                                               "wakes up without logging what "
                                               "its devices write", label));
    }
    if (unsupported) {
        QAPI_LIST_APPEND(tail, g_strdup_printf("%s: %s is not supported with "
                                               "functions whose DMA QEMU "
                                               "cannot see", label,
                                               unsupported));
    }
    *tail = dma_track_veto();
    while (*tail) {
        tail = &(*tail)->next;
    }
    if (!dma_track_check_max_pinned(&err)) {
        QAPI_LIST_APPEND(tail, g_strdup(error_get_pretty(err)));
        error_free(err);
    }
    return reasons;
}

bool dma_track_check_refusals(Error **errp)
{
    g_autoptr(strList) reasons = dma_track_refusals();
    g_autofree char *text = dma_track_join(reasons);

    if (!reasons) {
        return true;
    }
    error_setg(errp, "%s", text);
    return false;
}

/* A text that two have is told once. */
strList *dma_track_reasons(void)
{
    strList *reasons = dma_track_refusals();
    strList **tail = &reasons;
    DMATrackFunction *fn;

    while (*tail) {
        tail = &(*tail)->next;
    }
    migration_list_refusals(tail);
    while (*tail) {
        tail = &(*tail)->next;
    }
    DMA_TRACK_FOREACH_BYSTANDER(fn) {
        const strList *reason;
        Error *err = NULL;

        dma_track_function_look(fn, &err);
        /* CPR moves no memory: blockers do not count for it. */
        if (!err || migrate_mode_is_cpr()) {
            error_free(err);
            continue;
        }
        for (reason = reasons; reason; reason = reason->next) {
            if (!strcmp(reason->value, error_get_pretty(err))) {
                break;
            }
        }
        if (!reason) {
            QAPI_LIST_APPEND(tail, g_strdup(error_get_pretty(err)));
        }
        error_free(err);
    }
    return reasons;
}

/* Tell management what has changed. A migration that runs tells by itself. */
static void dma_track_look_timer(void *opaque)
{
    g_autoptr(strList) reasons = NULL;
    g_autofree char *text = NULL;

    timer_mod(look_timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + DMA_TRACK_LOOK_MS);
    if (migration_is_running() || runstate_check(RUN_STATE_INMIGRATE)) {
        return;
    }

    reasons = dma_track_reasons();
    text = dma_track_join(reasons);
    if (told && !strcmp(text, told)) {
        return;
    }
    g_free(told);
    told = g_steal_pointer(&text);
    trace_dma_track_changed(told);
    qapi_event_send_dma_track_changed(!reasons, reasons);
}

void dma_track_begin_looking(void)
{
    if (look_timer) {
        return;
    }
    look_timer = timer_new_ms(QEMU_CLOCK_REALTIME, dma_track_look_timer, NULL);
    timer_mod(look_timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + DMA_TRACK_LOOK_MS);
}

void dma_track_end_looking(void)
{
    timer_free(look_timer);
    look_timer = NULL;
    g_free(told);
    told = NULL;
}

void dma_track_changed(void)
{
    if (look_timer) {
        timer_mod(look_timer, 0);
    }
}

/*
 * DMA tracking by the guest: what the monitor shows of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-dma-track.h"
#include "qapi/qapi-visit-dma-track.h"
#include "hw/pci/pci_device.h"
#include "migration/misc.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "standard-headers/linux/virtio_dma_track.h"
#include "dma-track-internal.h"
#include "migration.h"
#include "options.h"

static DMATrackFunctionInfo *dma_track_query_function(DMATrackFunction *fn)
{
    DMATrackFunctionInfo *info = g_new0(DMATrackFunctionInfo, 1);
    DMAQuiesceStepInfoList *step;
    Error *err = NULL;

    info->name = g_strdup(fn->name);
    info->id = g_strdup(DEVICE(fn->pdev)->id);
    info->qom_path = object_get_canonical_path(OBJECT(fn->pdev));
    info->sbdf = dma_track_function_sbdf(fn);
    info->policy = fn->tracked_by;
    info->tracked_by = dma_track_function_look(fn, &err);
    info->since = fn->since;
    info->tracked = !err;
    if (err) {
        info->reason = g_strdup(error_get_pretty(err));
        error_free(err);
    }
    info->fenced = fn->fenced;
    info->generation = fn->generation;
    info->restored = fn->restored;
    if (fn->ops && fn->ops->methods) {
        info->quiesce = fn->ops->methods(fn);
    }
    for (step = fn->steps; step; step = step->next) {
        QAPI_LIST_PREPEND(info->last_quiesce,
                          QAPI_CLONE(DMAQuiesceStepInfo, step->value));
    }
    return info;
}

static DMATrackTotals *
dma_track_query_totals(const DMATrackFunctionInfoList *functions)
{
    DMATrackTotals *totals = g_new0(DMATrackTotals, 1);
    DMATrackProvider *p = dma_track_provider();

    for (; functions; functions = functions->next) {
        switch (functions->value->tracked_by) {
        case DMA_TRACKER_GUEST:
            totals->guest++;
            break;
        case DMA_TRACKER_DEVICE:
            totals->device++;
            break;
        case DMA_TRACKER_EXTERNAL:
            totals->external++;
            break;
        default:
            totals->nobody++;
            break;
        }
    }
    if (p) {
        totals->pinned_frames = DMA_TRACK_PROVIDER_GET_CLASS(p)->count_pinned(
            p, &totals->streaming_frames, &totals->coherent_frames);
    }
    return totals;
}

static DMATrackFloor *dma_track_query_floor(const DMATrackTotals *totals)
{
    DMATrackFloor *floor = g_new0(DMATrackFloor, 1);

    floor->bytes = totals->pinned_frames << VIRTIO_DMA_TRACK_FRAME_SHIFT;
    floor->bandwidth = migrate_avail_switchover_bandwidth() ?:
                       migrate_max_bandwidth();
    floor->has_bandwidth = floor->bandwidth != 0;
    floor->has_downtime = floor->has_bandwidth;
    if (floor->has_downtime) {
        floor->downtime = floor->bytes * 1000 / floor->bandwidth;
    }
    floor->downtime_limit = migrate_downtime_limit();
    if (migration_is_running()) {
        floor->has_expected_downtime = true;
        floor->expected_downtime =
            migration_downtime_calc_expected(migrate_get_current());
    }
    return floor;
}

DMATrackInfo *qmp_query_dma_track(Error **errp)
{
    DMATrackInfo *info = g_new0(DMATrackInfo, 1);
    DMATrackFunctionInfoList **tail = &info->functions;
    const DMATrackMigrationInfo *last = dma_track_last_migration();
    DMATrackProvider *p = dma_track_provider();
    DMATrackFunction *fn;

    info->reasons = dma_track_reasons();
    info->migratable = !info->reasons;
    if (p) {
        info->provider = DMA_TRACK_PROVIDER_GET_CLASS(p)->query(p);
    }
    DMA_TRACK_FOREACH_FUNCTION(fn) {
        QAPI_LIST_APPEND(tail, dma_track_query_function(fn));
    }
    DMA_TRACK_FOREACH_BYSTANDER(fn) {
        QAPI_LIST_APPEND(tail, dma_track_query_function(fn));
    }
    info->totals = dma_track_query_totals(info->functions);
    if (p) {
        info->pinned_floor = dma_track_query_floor(info->totals);
    }
    if (last) {
        info->last_migration = g_memdup2(last, sizeof(*last));
    }
    return info;
}

static void hmp_info_dma_track_quiesce(Monitor *mon, DMATrackFunctionInfo *fn)
{
    DMAQuiesceStepInfoList *step;
    DMAQuiesceList *method;

    if (fn->quiesce) {
        monitor_printf(mon, "  made quiet by:");
        for (method = fn->quiesce; method; method = method->next) {
            monitor_printf(mon, " %s", DMAQuiesce_str(method->value));
        }
        monitor_printf(mon, "\n");
    }
    for (step = fn->last_quiesce; step; step = step->next) {
        monitor_printf(mon, "  last time: %s, %" PRIu64 " us: %s\n",
                       DMAQuiesce_str(step->value->method),
                       step->value->duration_us,
                       step->value->error ?: "ok");
    }
}

static void hmp_info_dma_track_function(Monitor *mon, DMATrackFunctionInfo *fn)
{
    g_autoptr(GDateTime) since = g_date_time_new_from_unix_utc(fn->since);
    g_autofree char *when = g_date_time_format(since, "%F %T");

    monitor_printf(mon, "%s: %02x:%02x.%x, tracked by %s since %s UTC, %s%s%s, "
                   "generation %" PRIu32 ", driver restored: %s\n", fn->name,
                   PCI_BUS_NUM(fn->sbdf), PCI_SLOT(fn->sbdf),
                   PCI_FUNC(fn->sbdf), DMATracker_str(fn->tracked_by), when,
                   fn->tracked ? "ready" : "not ready: ",
                   fn->tracked ? "" : fn->reason,
                   fn->fenced ? ", fenced" : "", fn->generation,
                   DMATrackRestored_str(fn->restored));
    hmp_info_dma_track_quiesce(mon, fn);
}

static void hmp_info_dma_track_totals(Monitor *mon, const DMATrackInfo *info)
{
    const DMATrackTotals *totals = info->totals;
    const DMATrackFloor *floor = info->pinned_floor;

    monitor_printf(mon, "functions tracked by: guest %" PRIu32 ", device %"
                   PRIu32 ", external %" PRIu32 ", nobody %" PRIu32 "\n",
                   totals->guest, totals->device, totals->external,
                   totals->nobody);
    if (!floor) {
        return;
    }
    monitor_printf(mon, "pinned now: %" PRIu64 " frames, %" PRIu64
                   " of them streaming, %" PRIu64 " coherent, %" PRIu64
                   " bytes\n", totals->pinned_frames, totals->streaming_frames,
                   totals->coherent_frames, floor->bytes);
    if (floor->has_downtime) {
        monitor_printf(mon, "  at least %" PRIu64 " ms of downtime at %" PRIu64
                       " bytes/s; the limit is %" PRIu64 " ms\n",
                       floor->downtime, floor->bandwidth,
                       floor->downtime_limit);
    }
    if (floor->has_expected_downtime) {
        monitor_printf(mon, "  expected downtime: %" PRId64 " ms\n",
                       floor->expected_downtime);
    }
}

void hmp_info_dma_track(Monitor *mon, const QDict *qdict)
{
    g_autoptr(DMATrackInfo) info = qmp_query_dma_track(NULL);
    DMATrackProviderInfo *p = info->provider;
    DMATrackMigrationInfo *last = info->last_migration;
    DMATrackFunctionInfoList *fn;
    strList *reason;

    monitor_printf(mon, "migratable: %s\n", info->migratable ? "yes" : "no");
    for (reason = info->reasons; reason; reason = reason->next) {
        monitor_printf(mon, "  %s\n", reason->value);
    }
    if (p) {
        monitor_printf(mon, "virtio-dma-track: %s, phase %s%s, %" PRIu32
                       " sections\n", p->ready ? "ready" : "no driver",
                       DMATrackPhase_str(p->phase),
                       p->acknowledged ? "" : " (not acknowledged)",
                       p->sections);
        monitor_printf(mon, "  %" PRIu64 " maps, %" PRIu64 " unmaps, %" PRIu64
                       " dirtied, %" PRIu64 " saturated, %" PRIu64
                       " unknown unmaps, %" PRIu64 " undirtied\n", p->maps,
                       p->unmaps, p->dirtied, p->saturated, p->unknown_unmaps,
                       p->undirtied);
    }
    for (fn = info->functions; fn; fn = fn->next) {
        hmp_info_dma_track_function(mon, fn->value);
    }
    hmp_info_dma_track_totals(mon, info);
    if (last) {
        monitor_printf(mon, "last pass: %" PRIu64 " frames pinned, %" PRIu64
                       " of them coherent, %" PRIu64 " deferred, %" PRIu64
                       " bytes\n", last->pinned_frames, last->coherent_frames,
                       last->deferred_frames, last->final_pass_bytes);
    }
}

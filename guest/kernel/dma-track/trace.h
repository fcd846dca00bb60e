/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints, in the group dma_track: what the counters count, one by one
 *
 * A function of PCI is given by its name in the contract, ~0 if the device
 * belongs to none.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dma_track

#if !defined(DMA_TRACK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DMA_TRACK_TRACE_H

#include <linux/tracepoint.h>
#include <linux/virtio_dma_track.h>

#include "filter.h"
#include "restore.h"
#include "table.h"

#define dma_track_show_function(sbdf) \
	(sbdf) >> 16, (sbdf) >> 8 & 0xff, (sbdf) >> 3 & 0x1f, (sbdf) & 7
#define DMA_TRACK_FUNCTION_FORMAT "%04x:%02x:%02x.%u"

DECLARE_EVENT_CLASS(dma_track_frames,
	TP_PROTO(u32 sbdf, enum dma_track_plane plane, u64 gfn, u64 nr_frames),
	TP_ARGS(sbdf, plane, gfn, nr_frames),
	TP_STRUCT__entry(
		__field(u64, gfn)
		__field(u64, nr_frames)
		__field(u32, sbdf)
		__field(u8, plane)
	),
	TP_fast_assign(
		__entry->gfn = gfn;
		__entry->nr_frames = nr_frames;
		__entry->sbdf = sbdf;
		__entry->plane = plane;
	),
	TP_printk("function=" DMA_TRACK_FUNCTION_FORMAT
		  " plane=%s gfn=0x%llx nr_frames=%llu",
		  dma_track_show_function(__entry->sbdf),
		  __entry->plane == DMA_TRACK_STREAMING ? "streaming" :
							  "coherent",
		  __entry->gfn, __entry->nr_frames)
);

/* Frames are about to be pinned. */
DEFINE_EVENT_FN(dma_track_frames, dma_track_pin,
	TP_PROTO(u32 sbdf, enum dma_track_plane plane, u64 gfn, u64 nr_frames),
	TP_ARGS(sbdf, plane, gfn, nr_frames),
	dma_track_filter_begin_tracing, dma_track_filter_end_tracing
);

/* One mapping of the frames is about to end. */
DEFINE_EVENT_FN(dma_track_frames, dma_track_unpin,
	TP_PROTO(u32 sbdf, enum dma_track_plane plane, u64 gfn, u64 nr_frames),
	TP_ARGS(sbdf, plane, gfn, nr_frames),
	dma_track_filter_begin_tracing, dma_track_filter_end_tracing
);

/* A frame was dirtied, or could not be. */
TRACE_EVENT_FN(dma_track_dirty,
	TP_PROTO(u64 gfn, bool done),
	TP_ARGS(gfn, done),
	TP_STRUCT__entry(
		__field(u64, gfn)
		__field(bool, done)
	),
	TP_fast_assign(
		__entry->gfn = gfn;
		__entry->done = done;
	),
	TP_printk("gfn=0x%llx %s", __entry->gfn,
		  __entry->done ? "done" : "failed"),
	dma_track_filter_begin_tracing, dma_track_filter_end_tracing
);

/* A phase is in force on all CPUs, and about to be acknowledged. */
TRACE_EVENT(dma_track_phase,
	TP_PROTO(u32 phase, u32 phase_seq),
	TP_ARGS(phase, phase_seq),
	TP_STRUCT__entry(
		__field(u32, phase)
		__field(u32, phase_seq)
	),
	TP_fast_assign(
		__entry->phase = phase;
		__entry->phase_seq = phase_seq;
	),
	TP_printk("phase=%s phase_seq=%u",
		  __entry->phase == VIRTIO_DMA_TRACK_PHASE_LOGGING ?
			"logging" : "idle", __entry->phase_seq)
);

TRACE_DEFINE_ENUM(DMA_TRACK_RESTORE_BEGINS);
TRACE_DEFINE_ENUM(DMA_TRACK_RESTORE_STOPPED);
TRACE_DEFINE_ENUM(DMA_TRACK_RESTORE_UNFENCED);
TRACE_DEFINE_ENUM(DMA_TRACK_RESTORE_ENDS);

/* A function's driver is being restored; see enum dma_track_restore_step. */
TRACE_EVENT(dma_track_restore,
	TP_PROTO(u32 sbdf, u32 generation, enum dma_track_restore_step step,
		 int rc),
	TP_ARGS(sbdf, generation, step, rc),
	TP_STRUCT__entry(
		__field(u32, sbdf)
		__field(u32, generation)
		__field(u32, step)
		__field(int, rc)
	),
	TP_fast_assign(
		__entry->sbdf = sbdf;
		__entry->generation = generation;
		__entry->step = step;
		__entry->rc = rc;
	),
	TP_printk("function=" DMA_TRACK_FUNCTION_FORMAT
		  " generation=%u step=%s rc=%d",
		  dma_track_show_function(__entry->sbdf),
		  __entry->generation,
		  __print_symbolic(__entry->step,
				   { DMA_TRACK_RESTORE_BEGINS, "begins" },
				   { DMA_TRACK_RESTORE_STOPPED, "stopped" },
				   { DMA_TRACK_RESTORE_UNFENCED, "unfenced" },
				   { DMA_TRACK_RESTORE_ENDS, "ends" }),
		  __entry->rc)
);

#endif /* DMA_TRACK_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

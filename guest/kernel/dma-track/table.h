/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table: which frames are pinned
 *
 * Pure data. It knows neither devices nor the host, and is built in userspace
 * as well (tests/guest/unit).
 */
#ifndef DMA_TRACK_TABLE_H
#define DMA_TRACK_TABLE_H

#include <linux/atomic.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/types.h>

/* One bit per frame fills a plane of 4 KiB, in words of 64 bits. */
#define DMA_TRACK_SECTION_FRAMES	32768
#define DMA_TRACK_SECTION_FRAME_SHIFT	15
#define DMA_TRACK_PLANE_SIZE		4096
#define DMA_TRACK_WORD_FRAMES		64
#define DMA_TRACK_PLANE_WORDS \
	(DMA_TRACK_SECTION_FRAMES / DMA_TRACK_WORD_FRAMES)

/*
 * Sections are found through two levels. 4096 sections (512 GiB) fill a leaf
 * of 32 KiB; 8192 leaves cover the 52 bits of a physical address.
 */
#define DMA_TRACK_LEAF_SHIFT	12
#define DMA_TRACK_LEAF_SECTIONS	4096
#define DMA_TRACK_NR_LEAVES	8192
#define DMA_TRACK_MAX_SECTIONS	(DMA_TRACK_NR_LEAVES << DMA_TRACK_LEAF_SHIFT)

/* ... or, quicker, by their number's lowest bits: an index of 32 KiB. */
#define DMA_TRACK_INDEX_SLOTS	4096

enum dma_track_plane {
	/* Memory mapped for a while: dma_map_*(). */
	DMA_TRACK_STREAMING,
	/* Memory that belongs to a device until it is freed: dma_alloc_*(). */
	DMA_TRACK_COHERENT,
	DMA_TRACK_NR_PLANES,
};

/**
 * struct dma_track_section - 128 MiB of guest physical memory
 * @nr: which; number of its first frame >> DMA_TRACK_SECTION_FRAME_SHIFT
 * @accepted: the host reads @planes. Written by the owner of the table.
 * @absent: its memory is offline; likewise
 * @planes: the published pages, one bit per frame
 * @lock: one per word of a plane, for both planes; see dma_track_try_lock().
 *	Holding it excludes every change of the word's bits in @planes, @counts
 *	and @sticky. Taken with interrupts off, and nothing is taken inside.
 * @sticky: frames whose bit in the coherent plane is never cleared again
 * @counts: mappings of each frame in the streaming plane, up to
 *	DMA_TRACK_MAX_COUNT, or DMA_TRACK_STICKY, which is never left again
 *
 * Private memory per section: 38.1 KiB, besides the two planes.
 */
struct dma_track_section {
	u32 nr;
	bool accepted;
	bool absent;
	__le64 *planes[DMA_TRACK_NR_PLANES];
	atomic_t lock[DMA_TRACK_PLANE_WORDS];
	u64 sticky[DMA_TRACK_PLANE_WORDS];
	u8 counts[DMA_TRACK_SECTION_FRAMES];
};

/* What is sticky, or one less than zero or sticky, is negative as signed byte. */
#define DMA_TRACK_MAX_COUNT	127
#define DMA_TRACK_STICKY	192

/**
 * struct dma_track_table_stats - what happened, for people
 * @dirtied: frames dirtied
 * @saturated: frames that became sticky because a count overflowed
 * @unknown_unmaps: frames unmapped that were not known to be mapped
 * @undirtied: frames that became sticky because they could not be dirtied
 */
struct dma_track_table_stats {
	u64 dirtied;
	u64 saturated;
	u64 unknown_unmaps;
	u64 undirtied;
};

/**
 * struct dma_track_table - all sections
 * @index: a section of each DMA_TRACK_INDEX_SLOTS, or @nowhere. Read without a
 *	lock.
 * @logging: the gate: dirty frames before they stop being pinned. Read inside
 *	the lock of the word concerned.
 * @connected: a host wants all planes: a frame in a section that it has not
 *	accepted is lost
 * @lost: zero, or the first reason of dma_track_table_give_up(); in a page that
 *	the host reads
 * @stats: per CPU, never reset
 * @mutex: serialises changes of @leaves and @index
 * @leaves: sections, see DMA_TRACK_LEAF_SHIFT. Read without a lock; entries
 *	are only added until dma_track_table_destroy().
 * @nowhere: has the number of no section, and nothing else
 */
struct dma_track_table {
	struct dma_track_section *index[DMA_TRACK_INDEX_SLOTS];
	bool logging;
	bool connected;
	__le32 *lost;
	struct dma_track_table_stats __percpu *stats;
	struct mutex mutex; /* leaves, index */
	struct dma_track_section ***leaves;
	struct dma_track_section *nowhere;
};

/* The module's only one, defined by main.c. */
extern struct dma_track_table dma_track_table;

/**
 * struct dma_track_frame - what the table knows of one frame
 * @streaming: its bit in the streaming plane
 * @coherent: its bit in the coherent plane
 * @count: how often it is mapped; DMA_TRACK_STICKY is for ever
 */
struct dma_track_frame {
	bool streaming;
	bool coherent;
	u8 count;
};

/**
 * dma_track_table_init - make an empty table
 * @table: memory for it
 * @lost: where to say that a frame was lost; outlives the table
 *
 * May sleep. Return: 0 or -ENOMEM.
 */
int dma_track_table_init(struct dma_track_table *table, __le32 *lost);

/**
 * dma_track_table_destroy - free everything
 * @table: nobody uses it any more
 */
void dma_track_table_destroy(struct dma_track_table *table);

/**
 * dma_track_table_add - make room for a section
 * @table: the table
 * @nr: number of the section
 *
 * May sleep. Return: 0, also if the section is there already, -ENOMEM, or
 * -ERANGE if no physical address lies in such a section.
 */
int dma_track_table_add(struct dma_track_table *table, u32 nr);

/**
 * dma_track_table_next - the first section whose number is not below @nr
 * @table: the table
 * @nr: where to begin
 *
 * Return: the section, which lives as long as the table, or NULL.
 */
struct dma_track_section *
dma_track_table_next(struct dma_track_table *table, u32 nr);

/**
 * dma_track_table_connect - from now on every frame must be in an accepted
 *	section
 * @table: the table; dma_track_section.accepted is up to date
 *
 * The caller serialises this with dma_track_table_disconnect().
 *
 * Return: false if frames are pinned in another section already: they are lost.
 */
bool dma_track_table_connect(struct dma_track_table *table);

/**
 * dma_track_table_disconnect - the host reads no planes any more
 * @table: the table, which goes on counting
 */
void dma_track_table_disconnect(struct dma_track_table *table);

/**
 * dma_track_table_set_logging - open or close the gate
 * @table: the table
 * @logging: whether the host logs
 *
 * When this returns, each unpin that does not see the new value has read every
 * device write to its frames before.
 */
void dma_track_table_set_logging(struct dma_track_table *table, bool logging);

/**
 * dma_track_table_pin - a device may write frames from now on
 * @table: the table
 * @plane: which kind of memory
 * @gfn: the first frame
 * @nr_frames: how many
 *
 * The bits are set when this returns. Any context; never sleeps or fails.
 *
 * Return: false if a frame lies in no section, or in none that the host reads
 * although there is a host: it is lost unless it is no RAM. The other frames
 * are pinned.
 */
bool dma_track_table_pin(struct dma_track_table *table,
			 enum dma_track_plane plane, u64 gfn, u64 nr_frames);

/**
 * dma_track_table_unpin - one mapping of the frames ends
 * @table: the table
 * @plane: which kind of memory
 * @gfn: the first frame
 * @nr_frames: how many
 *
 * While the host logs, each frame is dirtied before its bit is cleared. Called
 * before the memory is given back to anybody. Any context.
 */
void dma_track_table_unpin(struct dma_track_table *table,
			   enum dma_track_plane plane, u64 gfn, u64 nr_frames);

/**
 * dma_track_table_sync - the CPU is going to read frames that stay mapped
 * @table: the table
 * @gfn: the first frame
 * @nr_frames: how many
 *
 * Dirties them while the host logs. They stay pinned. Any context.
 */
void dma_track_table_sync(struct dma_track_table *table, u64 gfn,
			  u64 nr_frames);

/**
 * dma_track_table_give_up - a frame was lost
 * @table: the table
 * @reason: not zero; the first one counts
 *
 * Any context. The host knows when this returns.
 */
void dma_track_table_give_up(struct dma_track_table *table, u32 reason);

/**
 * dma_track_table_read_frame - look at one frame
 * @table: the table
 * @gfn: the frame
 * @frame: filled in
 *
 * Return: false if there is no section for it.
 */
bool dma_track_table_read_frame(struct dma_track_table *table, u64 gfn,
				struct dma_track_frame *frame);

/**
 * dma_track_table_nr_pinned - count set bits
 * @table: the table
 * @plane: of which plane
 *
 * Walks all sections without a lock; exact only while nothing changes.
 */
u64 dma_track_table_nr_pinned(struct dma_track_table *table,
			      enum dma_track_plane plane);

/**
 * dma_track_table_read_stats - sum up over all CPUs
 * @table: the table
 * @sum: filled in
 */
void dma_track_table_read_stats(struct dma_track_table *table,
				struct dma_track_table_stats *sum);

#endif /* DMA_TRACK_TABLE_H */

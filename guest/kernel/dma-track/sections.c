// SPDX-License-Identifier: GPL-2.0-only
/*
 * The sections: where there is RAM
 *
 * All RAM of the guest has its sections from the beginning. Memory that is
 * added later gets them before it is brought online; if that or the host fails,
 * it is not brought online. The host is told when it has gone. Memory that
 * nobody tells of (memremap_pages()) has none, and the host is told when a
 * device is given some of it.
 */
#include <linux/bits.h>
#include <linux/ioport.h>
#include <linux/math64.h>
#include <linux/memory.h>
#include <linux/notifier.h>
#include <linux/pfn.h>
#include <linux/virtio_dma_track.h>

#include "host.h"
#include "sections.h"
#include "table.h"

#define SECTION_SIZE	BIT_ULL(VIRTIO_DMA_TRACK_SECTION_SHIFT)

static struct dma_track_table *table;

/* Bytes start .. last. */
static int add_sections(u64 start, u64 last)
{
	u64 nr;
	int rc;

	for (nr = start >> VIRTIO_DMA_TRACK_SECTION_SHIFT;
	     nr <= last >> VIRTIO_DMA_TRACK_SECTION_SHIFT; nr++) {
		rc = dma_track_table_add(table, nr);
		if (rc)
			return rc;
	}
	return 0;
}

static int add_resource(struct resource *res, void *arg)
{
	return add_sections(res->start, res->end);
}

static int memory_comes(u64 start, u64 last)
{
	int rc = add_sections(start, last) ?:
		 dma_track_host_publish(start / SECTION_SIZE,
					last / SECTION_SIZE);

	if (rc) {
		pr_err("memory at 0x%llx is refused: it cannot be tracked: %d\n",
		       start, rc);
		return notifier_from_errno(rc);
	}
	return NOTIFY_OK;
}

/* Memory goes by blocks, which consist of whole sections. */
static void memory_is_gone(u64 start, u64 last)
{
	u64 first_gone = DIV_ROUND_UP_ULL(start, SECTION_SIZE);
	u64 end = (last + 1) / SECTION_SIZE;

	if (first_gone < end)
		dma_track_host_withdraw(first_gone, end - 1);
}

static int hotplug_notify(struct notifier_block *nb, unsigned long action,
			  void *data)
{
	struct memory_notify *range = data;
	u64 start = PFN_PHYS(range->start_pfn);
	u64 last = start + PFN_PHYS(range->nr_pages) - 1;

	switch (action) {
	case MEM_GOING_ONLINE:
		return memory_comes(start, last);
	case MEM_CANCEL_ONLINE:
	case MEM_OFFLINE:
		memory_is_gone(start, last);
		return NOTIFY_OK;
	}
	return NOTIFY_DONE;
}

static struct notifier_block memory_nb = { .notifier_call = hotplug_notify };

int dma_track_sections_start(struct dma_track_table *t)
{
	int rc;

	table = t;
	/* First, so that nothing comes between. */
	rc = register_memory_notifier(&memory_nb);
	if (rc)
		return rc;

	rc = walk_iomem_res_desc(IORES_DESC_NONE,
				 IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY, 0,
				 ~0ULL, NULL, add_resource);
	if (rc)
		unregister_memory_notifier(&memory_nb);
	return rc;
}

void dma_track_sections_stop(void)
{
	unregister_memory_notifier(&memory_nb);
}

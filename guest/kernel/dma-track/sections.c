// SPDX-License-Identifier: GPL-2.0-only
/*
 * The sections: where there is RAM
 *
 * All RAM of the guest has its sections from the beginning. Memory that is
 * added later gets them before it is brought online; if that or the host fails,
 * it is not brought online. The host is told when it has gone.
 *
 * Persistent memory and its like (ZONE_DEVICE) is never brought online: a driver
 * has it mapped by memremap_pages(), of which hooks.c tells us. It keeps its
 * sections when it goes. If they cannot be had, the driver is not bothered: what
 * a device is given of such memory is lost, which the host is told then.
 */
#include <linux/bits.h>
#include <linux/ioport.h>
#include <linux/math64.h>
#include <linux/memory.h>
#include <linux/memremap.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/notifier.h>
#include <linux/pfn.h>
#include <linux/virtio_dma_track.h>

#include "compat.h"
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

/* --- Memory that is not brought online -------------------------------------- */

#ifdef CONFIG_ZONE_DEVICE
/* A peer's BAR is not ours, and private memory of a device is nowhere. */
static bool is_ram(const struct dev_pagemap *pgmap)
{
	return pgmap->type == MEMORY_DEVICE_FS_DAX ||
	       pgmap->type == MEMORY_DEVICE_GENERIC;
}

void dma_track_sections_memremap(const struct dev_pagemap *pgmap)
{
	int i;

	if (!is_ram(pgmap))
		return;

	for (i = 0; i < pgmap->nr_range; i++) {
		u64 start = pgmap->ranges[i].start;
		u64 last = pgmap->ranges[i].end;
		int rc = add_sections(start, last) ?:
			 dma_track_host_publish(start / SECTION_SIZE,
						last / SECTION_SIZE);

		if (rc)
			pr_warn("memory at 0x%llx cannot be tracked, and devices should not have it: %d\n",
				start, rc);
	}
}

static bool is_ram_at(unsigned long pfn)
{
	struct dev_pagemap *pgmap;
	bool found;

	if (!pfn_valid(pfn))
		return false;
	pgmap = dma_track_get_pagemap(pfn);
	found = pgmap && is_ram(pgmap);
	put_dev_pagemap(pgmap);
	return found;
}

/* The zone spans all there is, and whatever is between. */
static int add_zone(const struct zone *zone)
{
	unsigned long pfn = READ_ONCE(zone->zone_start_pfn);
	unsigned long end = pfn + READ_ONCE(zone->spanned_pages);
	int rc;

	while (pfn < end) {
		if (!is_ram_at(pfn)) {
			pfn += PAGES_PER_SUBSECTION;
			continue;
		}
		rc = add_sections(PFN_PHYS(pfn), PFN_PHYS(pfn));
		if (rc)
			return rc;
		pfn = ALIGN(pfn + 1, SECTION_SIZE / PAGE_SIZE);
	}
	return 0;
}

int dma_track_sections_add_mapped(void)
{
	int nid, rc = 0;

	for_each_node(nid) {
		if (NODE_DATA(nid))
			rc = add_zone(&NODE_DATA(nid)->node_zones[ZONE_DEVICE]);
		if (rc)
			break;
	}
	return rc;
}
#else
int dma_track_sections_add_mapped(void)
{
	return 0;
}
#endif

/* --- All of it -------------------------------------------------------------- */

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

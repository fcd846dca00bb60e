// SPDX-License-Identifier: GPL-2.0-only
/*
 * The sections: where there is RAM
 *
 * All RAM of the guest has its sections from the beginning. Memory that is
 * added later gets them before it is brought online; if that or the host fails,
 * it is not brought online. Memory that nobody tells of (memremap_pages()) has
 * none, and the host is told when a device is given some of it.
 */
#include <linux/ioport.h>
#include <linux/memory.h>
#include <linux/notifier.h>
#include <linux/pfn.h>
#include <linux/virtio_dma_track.h>

#include "host.h"
#include "sections.h"
#include "table.h"

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

static int hotplug_notify(struct notifier_block *nb, unsigned long action,
			  void *data)
{
	struct memory_notify *range = data;
	u64 start = PFN_PHYS(range->start_pfn);
	int rc;

	if (action != MEM_GOING_ONLINE)
		return NOTIFY_DONE;

	rc = add_sections(start, start + PFN_PHYS(range->nr_pages) - 1);
	if (!rc)
		rc = dma_track_host_publish();
	if (rc) {
		pr_err("memory at 0x%llx is refused: it cannot be tracked: %d\n",
		       start, rc);
		return notifier_from_errno(rc);
	}
	return NOTIFY_OK;
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

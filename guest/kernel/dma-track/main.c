// SPDX-License-Identifier: GPL-2.0-only
/*
 * dma_track: tell the host which frames assigned devices may write
 *
 * A table of contents: what the module is made of, in the order in which it
 * comes to life, and in reverse.
 */
#include <linux/cc_platform.h>
#include <linux/gfp.h>
#include <linux/module.h>
#include <linux/virtio_dma_track.h>

#include "devices.h"
#include "hooks.h"
#include "host.h"
#include "inspect.h"
#include "restore.h"
#include "sections.h"
#include "table.h"

/**
 * struct dma_track - the module's one instance
 * @status: the page that the host reads besides the planes; it outlives
 *	everything that writes to it
 * @table: which frames are pinned; not in here, because hooks find it without
 *	a pointer
 *
 * Lock order, outermost first: host.c's connecting; a function's device lock;
 * the memory hotplug lock; devices.c's list; filter.c's mutex; host.c's
 * publishing; the table's mutex; devices.c's entries; a word's lock.
 */
struct dma_track {
	struct virtio_dma_track_status *status;
	struct dma_track_table *table;
};

struct dma_track_table dma_track_table;

static struct dma_track dma_track = { .table = &dma_track_table };

static int __init dma_track_init(void)
{
	struct dma_track *dt = &dma_track;
	int rc;

	/* The host cannot read planes in encrypted memory. */
	if (cc_platform_has(CC_ATTR_MEM_ENCRYPT)) {
		pr_err("a guest with encrypted memory cannot be tracked\n");
		return -EOPNOTSUPP;
	}

	dt->status = (void *)get_zeroed_page(GFP_KERNEL);
	if (!dt->status)
		return -ENOMEM;

	rc = dma_track_table_init(dt->table, &dt->status->lost);
	if (rc)
		goto out_free_status;

	rc = dma_track_sections_start(dt->table);
	if (rc)
		goto out_destroy_table;

	/* From here on any CPU may call us. */
	rc = dma_track_hooks_install();
	if (rc)
		goto out_stop_sections;

	rc = dma_track_sections_add_mapped();
	if (rc)
		goto out_remove_hooks;

	rc = dma_track_restore_start();
	if (rc)
		goto out_remove_hooks;

	rc = dma_track_devices_start(dt->status);
	if (rc)
		goto out_stop_restore;

	dma_track_inspect_start(dt->table, dt->status);

	rc = dma_track_host_start(dt->status);
	if (rc)
		goto out_stop_inspect;
	return 0;

out_stop_inspect:
	dma_track_inspect_stop();
	dma_track_devices_stop();
out_stop_restore:
	dma_track_restore_stop();
out_remove_hooks:
	dma_track_hooks_remove();
out_stop_sections:
	dma_track_sections_stop();
out_destroy_table:
	dma_track_table_destroy(dt->table);
out_free_status:
	free_page((unsigned long)dt->status);
	return rc;
}
module_init(dma_track_init);

static void __exit dma_track_exit(void)
{
	struct dma_track *dt = &dma_track;

	/* First: the host stops relying on us, and stops reading. */
	dma_track_host_stop();
	dma_track_inspect_stop();
	dma_track_devices_stop();
	dma_track_restore_stop();
	dma_track_hooks_remove();
	dma_track_sections_stop();
	dma_track_table_destroy(dt->table);
	free_page((unsigned long)dt->status);
}
module_exit(dma_track_exit);

MODULE_DESCRIPTION("Tracks the frames that assigned devices may write");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0");
/* Functions that the host names are known only once it can be asked. */
MODULE_SOFTDEP("pre: virtio_pci");

// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an operator can see, and what tests can
 *
 * Files in debugfs' folder dma_track:
 *
 *	status		the host's wishes, counters, the lost word
 *	functions	one line per assigned function: address, state, reason,
 *			generation, outcome of the last restore, milliseconds
 *	track		write a function's address to have its driver bound anew
 */
#include <linux/debugfs.h>
#include <linux/export.h>
#include <linux/kernel.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "devices.h"
#include "filter.h"
#include "hooks.h"
#include "host.h"
#include "inspect.h"
#include "restore.h"

static struct dma_track_table *table;
static struct virtio_dma_track_status *status;
static struct dentry *folder;

static const char * const state_names[] = {
	[VIRTIO_DMA_TRACK_FUNCTION_NONE] = "none",
	[VIRTIO_DMA_TRACK_FUNCTION_UNBOUND] = "unbound",
	[VIRTIO_DMA_TRACK_FUNCTION_TRACKED] = "tracked",
	[VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED] = "untracked",
};

static const char * const reason_names[] = {
	[VIRTIO_DMA_TRACK_REASON_NONE] = "-",
	[VIRTIO_DMA_TRACK_REASON_BOUND_BEFORE] = "bound-before",
	[VIRTIO_DMA_TRACK_REASON_NO_CAPABILITY] = "no-capability",
	[VIRTIO_DMA_TRACK_REASON_BEHIND_API] = "behind-api",
	[VIRTIO_DMA_TRACK_REASON_NO_RESOURCES] = "no-resources",
};

static const char * const restored_names[] = {
	[DMA_TRACK_RESTORED_NEVER] = "never",
	[DMA_TRACK_RESTORED_RUNNING] = "running",
	[DMA_TRACK_RESTORED_OK] = "ok",
	[DMA_TRACK_RESTORED_FAILED] = "failed",
	[DMA_TRACK_RESTORED_NO_DRIVER] = "no-driver",
};

static int status_show(struct seq_file *m, void *unused)
{
	struct dma_track_test_counts counts;
	struct dma_track_host_state host;

	dma_track_host_read_state(&host);
	dma_track_test_read_counts(&counts);

	seq_printf(m, "connected: %d\n", host.connected);
	seq_printf(m, "sync_dirty: %d\n", host.sync_dirty);
	seq_printf(m, "phase: %s\n",
		   host.phase == VIRTIO_DMA_TRACK_PHASE_LOGGING ? "logging" :
								  "idle");
	seq_printf(m, "phase_seq: %u\n", host.phase_seq);
	seq_printf(m, "lost: %u\n", counts.lost);
	seq_printf(m, "hooks_intact: %d\n", dma_track_hooks_intact());
	seq_printf(m, "pinned_streaming: %llu\n",
		   dma_track_table_nr_pinned(table, DMA_TRACK_STREAMING));
	seq_printf(m, "pinned_coherent: %llu\n",
		   dma_track_table_nr_pinned(table, DMA_TRACK_COHERENT));
	seq_printf(m, "maps: %llu\n", counts.maps);
	seq_printf(m, "unmaps: %llu\n", counts.unmaps);
	seq_printf(m, "dirtied: %llu\n", counts.table.dirtied);
	seq_printf(m, "saturated: %llu\n", counts.table.saturated);
	seq_printf(m, "unknown_unmaps: %llu\n", counts.table.unknown_unmaps);
	seq_printf(m, "undirtied: %llu\n", counts.table.undirtied);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(status);

static void function_show(struct dma_track_function *fn, void *m)
{
	seq_printf(m, "%s %s %s %u %s %u\n", pci_name(fn->pdev),
		   state_names[READ_ONCE(fn->state)],
		   reason_names[READ_ONCE(fn->reason)],
		   READ_ONCE(fn->generation),
		   restored_names[READ_ONCE(fn->restored)],
		   READ_ONCE(fn->restore_ms));
}

static int functions_show(struct seq_file *m, void *unused)
{
	dma_track_devices_for_each(function_show, m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(functions);

static ssize_t track_write(struct file *file, const char __user *from,
			   size_t size, loff_t *pos)
{
	unsigned int segment, bus, slot, function, devfn;
	char address[32];
	int rc;

	if (size >= sizeof(address))
		return -EINVAL;
	if (copy_from_user(address, from, size))
		return -EFAULT;
	address[size] = 0;

	if (sscanf(address, "%x:%x:%x.%x", &segment, &bus, &slot,
		   &function) != 4 ||
	    segment > 0xffff || bus > 0xff || slot > 0x1f || function > 7)
		return -EINVAL;

	devfn = PCI_DEVFN(slot, function);
	rc = dma_track_devices_track(VIRTIO_DMA_TRACK_SBDF(segment, bus,
							   devfn));
	return rc ? rc : size;
}

static const struct file_operations track_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = track_write,
	.llseek = noop_llseek,
};

void dma_track_inspect_start(struct dma_track_table *t,
			     struct virtio_dma_track_status *s)
{
	table = t;
	status = s;
	folder = debugfs_create_dir("dma_track", NULL);
	debugfs_create_file("status", 0400, folder, NULL, &status_fops);
	debugfs_create_file("functions", 0400, folder, NULL, &functions_fops);
	debugfs_create_file("track", 0200, folder, NULL, &track_fops);
}

void dma_track_inspect_stop(void)
{
	debugfs_remove(folder);
}

/* --- For tests --------------------------------------------------------------- */

int dma_track_test_add_device(struct device *dev)
{
	int rc = dma_track_filter_add(dev);

	if (!rc)
		dma_track_hooks_learn_addresses(dev);
	return rc;
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_add_device, DMA_TRACK_TEST_NS);

void dma_track_test_remove_device(struct device *dev)
{
	dma_track_filter_remove(dev);
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_remove_device, DMA_TRACK_TEST_NS);

bool dma_track_test_read_frame(u64 gfn, struct dma_track_frame *frame)
{
	return dma_track_table_read_frame(table, gfn, frame);
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_read_frame, DMA_TRACK_TEST_NS);

void dma_track_test_read_counts(struct dma_track_test_counts *counts)
{
	dma_track_table_read_stats(table, &counts->table);
	dma_track_hooks_read_counts(&counts->maps, &counts->unmaps);
	counts->lost = le32_to_cpu(READ_ONCE(status->lost));
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_read_counts, DMA_TRACK_TEST_NS);

int dma_track_test_set_logging(bool logging)
{
	struct dma_track_host_state host;

	dma_track_host_read_state(&host);
	if (host.connected)
		return -EBUSY;

	dma_track_hooks_set_sync_dirty(logging);
	dma_track_table_set_logging(table, logging);
	return 0;
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_set_logging, DMA_TRACK_TEST_NS);

bool dma_track_test_hooks_intact(void)
{
	return dma_track_hooks_intact();
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_hooks_intact, DMA_TRACK_TEST_NS);

int dma_track_test_replace(struct pci_dev *pdev)
{
	return dma_track_devices_replaced(pdev);
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_replace, DMA_TRACK_TEST_NS);

void dma_track_test_pretend_unfence(int rc)
{
	dma_track_restore_pretend(rc);
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_pretend_unfence, DMA_TRACK_TEST_NS);

void dma_track_test_pretend_publish(int rc)
{
	dma_track_host_pretend(rc);
}
EXPORT_SYMBOL_NS_GPL(dma_track_test_pretend_publish, DMA_TRACK_TEST_NS);

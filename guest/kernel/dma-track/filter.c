// SPDX-License-Identifier: GPL-2.0-only
/*
 * The filter: whose mappings are counted
 *
 * A hash of device pointers, and before it a table of slots that answers most
 * questions with one look. Results are not cached for devices below a PCI
 * function, because nobody tells when they go and their memory becomes another
 * device; they are few, and their PCI function is near.
 */
#include <linux/device.h>
#include <linux/hashtable.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rculist.h>
#include <linux/slab.h>

#include "filter.h"

/**
 * struct filter_entry - a device whose mappings are counted
 * @node: in the hash
 * @dev: the device, which outlives the entry's place in the hash
 * @plain: its DMA addresses are physical addresses. Under the mutex.
 * @rcu: readers may still look at it
 */
struct filter_entry {
	struct hlist_node node;
	struct device *dev;
	bool plain;
	struct rcu_head rcu;
};

/* Changed under the mutex, read under RCU. */
static DEFINE_HASHTABLE(filter, 6);
static DEFINE_MUTEX(filter_mutex);
/* Tracepoints in use that the short way does not pass. Under the mutex. */
static unsigned int nr_tracers;
/* Written under the mutex, read without. */
struct device *dma_track_filter_slots[DMA_TRACK_FILTER_SLOTS];
/* Lets guests without assigned functions, and early boot, pass quickly. */
static unsigned int nr_entries;

static notrace struct filter_entry *find_entry(struct device *dev)
{
	struct filter_entry *entry;

	hash_for_each_possible_rcu(filter, entry, node, (unsigned long)dev,
				   lockdep_is_held(&filter_mutex))
		if (entry->dev == dev)
			return entry;
	return NULL;
}

/* What a reader finds in the slot is right before, meanwhile and after. */
static void update_slot(struct device *dev)
{
	struct device **slot = dma_track_filter_slot(dev);
	struct device *found = NULL;
	struct filter_entry *entry;
	int bucket;

	hash_for_each(filter, bucket, entry, node) {
		if (dma_track_filter_slot(entry->dev) != slot)
			continue;
		if (found || !entry->plain || nr_tracers)
			found = DMA_TRACK_FILTER_ASK;
		else
			found = entry->dev;
	}
	WRITE_ONCE(*slot, found);
}

notrace bool dma_track_filter_ask(struct device *dev)
{
	bool found = false;

	if (!READ_ONCE(nr_entries))
		return false;

	rcu_read_lock();
	for (; dev && !found; dev = dev->parent) {
		found = find_entry(dev);
		if (dev_is_pci(dev))
			break;
	}
	rcu_read_unlock();
	return found;
}

int dma_track_filter_add(struct device *dev)
{
	struct filter_entry *entry;
	int rc = 0;

	mutex_lock(&filter_mutex);
	if (find_entry(dev))
		goto out;

	rc = -ENOMEM;
	entry = kzalloc(sizeof(*entry), GFP_KERNEL);
	if (!entry)
		goto out;

	entry->dev = dev;
	hash_add_rcu(filter, &entry->node, (unsigned long)dev);
	WRITE_ONCE(nr_entries, nr_entries + 1);
	update_slot(dev);
	rc = 0;
out:
	mutex_unlock(&filter_mutex);
	return rc;
}

void dma_track_filter_remove(struct device *dev)
{
	struct filter_entry *entry;

	mutex_lock(&filter_mutex);
	entry = find_entry(dev);
	if (entry) {
		hash_del_rcu(&entry->node);
		WRITE_ONCE(nr_entries, nr_entries - 1);
		update_slot(dev);
		kfree_rcu(entry, rcu);
	}
	mutex_unlock(&filter_mutex);
}

void dma_track_filter_set_plain(struct device *dev, bool plain)
{
	struct filter_entry *entry;

	mutex_lock(&filter_mutex);
	entry = find_entry(dev);
	if (entry) {
		entry->plain = plain;
		update_slot(dev);
	}
	mutex_unlock(&filter_mutex);
}

static void update_all_slots(void)
{
	struct filter_entry *entry;
	int bucket;

	lockdep_assert_held(&filter_mutex);
	hash_for_each(filter, bucket, entry, node)
		update_slot(entry->dev);
}

int dma_track_filter_begin_tracing(void)
{
	mutex_lock(&filter_mutex);
	if (!nr_tracers++)
		update_all_slots();
	mutex_unlock(&filter_mutex);
	return 0;
}

void dma_track_filter_end_tracing(void)
{
	mutex_lock(&filter_mutex);
	if (!--nr_tracers)
		update_all_slots();
	mutex_unlock(&filter_mutex);
}

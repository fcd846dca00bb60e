// SPDX-License-Identifier: GPL-2.0-only
/*
 * The devices: which PCI functions are assigned, which of them are tracked, and
 * why not
 *
 * A function is assigned if it carries the capability of pci_dma_quiesce.h, or
 * if the host names it. Its mappings are counted from a moment at which it has
 * none, that is while no driver is bound, and until it is removed: a driver's
 * managed resources are released after the driver core has told that probing
 * failed.
 *
 * What is said of a function stands in the status page before it has an effect:
 * in the notifiers, before a driver is probed and after it is gone.
 */
#include <linux/bitmap.h>
#include <linux/device.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/pci_dma_quiesce.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#include "devices.h"
#include "filter.h"
#include "hooks.h"
#include "host.h"
#include "restore.h"

static struct virtio_dma_track_status *status;

/*
 * All functions. The mutex is taken inside a function's device lock, never
 * outside; who must not sleep reads the list under RCU.
 */
static LIST_HEAD(functions);
static DEFINE_MUTEX(functions_mutex);
/*
 * What is said of the functions, in the status page and here. Taken with
 * interrupts off, inside everything else.
 */
static DEFINE_SPINLOCK(entries_lock);
/* Entries of the status page in use; under the mutex. */
static DECLARE_BITMAP(entries, VIRTIO_DMA_TRACK_MAX_FUNCTIONS);

static void function_release(struct kref *kref)
{
	struct dma_track_function *fn;

	fn = container_of(kref, struct dma_track_function, kref);
	/* It was in the list, which dma_track_devices_behind_api() reads. */
	synchronize_rcu();
	pci_dev_put(fn->pdev);
	kfree(fn);
}

void dma_track_function_put(struct dma_track_function *fn)
{
	kref_put(&fn->kref, function_release);
}

/* One store, so that the host never reads half of it. The lock is held. */
static void write_entry(struct dma_track_function *fn, u16 state, u16 reason)
{
	__le64 *entry;

	BUILD_BUG_ON(sizeof(struct virtio_dma_track_function) != sizeof(u64));

	lockdep_assert_held(&entries_lock);
	WRITE_ONCE(fn->state, state);
	WRITE_ONCE(fn->reason, reason);

	/* The entry is another one's as soon as the function is forgotten. */
	if (fn->index < 0)
		return;

	entry = (__le64 *)&status->functions[fn->index];
	WRITE_ONCE(*entry, cpu_to_le64((u64)reason << 48 | (u64)state << 32 |
				       fn->sbdf));
	/* Before the driver that is probed next does anything. */
	smp_mb();
	dma_track_host_report_function(fn->index);
}

static void say(struct dma_track_function *fn, u16 state, u16 reason)
{
	unsigned long flags;

	/*
	 * The host looks at the entry when it is told of it. A time without
	 * tracking must not pass unseen while it migrates us.
	 */
	if (READ_ONCE(fn->state) == VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED &&
	    state != VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED)
		dma_track_host_flush_reports();

	spin_lock_irqsave(&entries_lock, flags);
	switch (state) {
	case VIRTIO_DMA_TRACK_FUNCTION_UNBOUND:
		/* Whatever its driver had mapped is mapped no more. */
		fn->behind_api = false;
		break;
	case VIRTIO_DMA_TRACK_FUNCTION_TRACKED:
		/* Together with another one, perhaps, before it had a driver. */
		if (fn->behind_api) {
			state = VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED;
			reason = VIRTIO_DMA_TRACK_REASON_BEHIND_API;
		}
		break;
	}
	write_entry(fn, state, reason);
	spin_unlock_irqrestore(&entries_lock, flags);
}

static void set_state(struct dma_track_function *fn, u16 state)
{
	say(fn, state, VIRTIO_DMA_TRACK_REASON_NONE);
}

static void set_untracked(struct dma_track_function *fn, u16 reason)
{
	say(fn, VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED, reason);
}

static u32 sbdf_of(struct pci_dev *pdev)
{
	return VIRTIO_DMA_TRACK_SBDF((u32)pci_domain_nr(pdev->bus),
				     (u32)pdev->bus->number, (u32)pdev->devfn);
}

static struct pci_dev *get_pdev(u32 sbdf)
{
	return pci_get_domain_bus_and_slot(sbdf >> 16, sbdf >> 8 & 0xff,
					   sbdf & 0xff);
}

static bool read_generation(struct pci_dev *pdev, u16 dvsec, u32 *generation)
{
	if (!dvsec)
		return dma_track_host_find_function(sbdf_of(pdev), generation);

	return !pci_read_config_dword(pdev, dvsec + PCI_DMA_QUIESCE_GENERATION,
				      generation) &&
	       pci_device_is_present(pdev);
}

bool dma_track_function_read_generation(struct dma_track_function *fn,
					u32 *generation)
{
	return read_generation(fn->pdev, READ_ONCE(fn->dvsec), generation);
}

/* --- Counting -------------------------------------------------------------- */

/*
 * The function's device lock is held, and no driver is bound. Nothing is mapped
 * for it then but, perhaps, pages that a page pool had mapped before we counted
 * and that sockets still hold. Their unmaps come late and are not known, which
 * does no harm: such a mapping is of whole frames, also in a bounce buffer, so
 * that no other mapping's count is theirs too.
 */
static void start_counting(struct dma_track_function *fn)
{
	/* The filter must not keep a device that goes away. */
	mutex_lock(&functions_mutex);
	if (!fn->counted && !fn->forgotten)
		fn->counted = !dma_track_filter_add(&fn->pdev->dev);
	mutex_unlock(&functions_mutex);
}

/*
 * Drivers that let others map: vfio-pci and the like, which say so; drivers
 * that hand the function to userspace with no mapping at all, which do not; and
 * virtio, which gives its device physical addresses unless the device offers
 * VIRTIO_F_ACCESS_PLATFORM, which is known only later.
 */
static bool maps_behind_api(struct device *dev)
{
	static const char * const drivers[] = {
		"uio_pci_generic", "igb_uio", "virtio-pci",
	};

	return to_pci_driver(dev->driver)->driver_managed_dma ||
	       match_string(drivers, ARRAY_SIZE(drivers),
			    dev->driver->name) >= 0;
}

/* Has the host fenced it, or may it have? */
static bool is_fenced(struct dma_track_function *fn, u32 generation)
{
	u16 reg;

	if (fn->lifted)
		return generation != fn->lifted_for;
	/* Not by us: perhaps before we saw it. */
	if (!fn->dvsec || generation != READ_ONCE(fn->generation))
		return true;

	if (pci_read_config_word(fn->pdev, fn->dvsec + PCI_DMA_QUIESCE_STATUS,
				 &reg))
		return false;
	return (reg & PCI_DMA_QUIESCE_STATUS_STATE) ==
	       PCI_DMA_QUIESCE_STATE_QUIESCED;
}

/*
 * A function that the host fenced when no driver of ours was there to restore:
 * just now, or in a guest that has rebooted since. The driver that is probed
 * next would find it dead.
 */
static void lift_fence(struct dma_track_function *fn)
{
	u32 generation;
	int rc;

	if (!dma_track_function_read_generation(fn, &generation) ||
	    !is_fenced(fn, generation))
		return;

	rc = dma_track_restore_unfence(fn, &generation);
	if (!rc)
		return;
	pci_warn(fn->pdev, "dma_track: the fence stays: %d\n", rc);
	/* Restored as soon as the host can be asked again. */
	if (dma_track_restore_is_to_be_repeated(rc))
		WRITE_ONCE(fn->generation, generation - 1);
}

/* The driver is set, and about to be probed. The device lock is held. */
static void driver_comes(struct dma_track_function *fn)
{
	struct device *dev = &fn->pdev->dev;

	fn->detached = false;
	start_counting(fn);
	if (maps_behind_api(dev))
		set_untracked(fn, VIRTIO_DMA_TRACK_REASON_BEHIND_API);
	else if (!fn->counted)
		set_untracked(fn, VIRTIO_DMA_TRACK_REASON_NO_RESOURCES);
	else
		set_state(fn, VIRTIO_DMA_TRACK_FUNCTION_TRACKED);

	dma_track_hooks_prepare_device(dev);
	lift_fence(fn);
}

/*
 * The driver could not be probed, but its managed resources are released only
 * after this. They were counted from the beginning, or else counting cannot
 * begin before the next driver comes. The device lock is held.
 */
static void driver_has_failed(struct dma_track_function *fn)
{
	if (fn->counted)
		set_state(fn, VIRTIO_DMA_TRACK_FUNCTION_UNBOUND);
}

/* Its managed resources are released. The device lock is held. */
static void driver_is_gone(struct dma_track_function *fn)
{
	start_counting(fn);
	set_state(fn, VIRTIO_DMA_TRACK_FUNCTION_UNBOUND);
}

/* --- Which functions there are ---------------------------------------------- */

/* Returns a reference, or NULL. */
static struct dma_track_function *find_function(struct pci_dev *pdev)
{
	struct dma_track_function *fn;

	mutex_lock(&functions_mutex);
	list_for_each_entry(fn, &functions, node)
		if (fn->pdev == pdev) {
			kref_get(&fn->kref);
			goto out;
		}
	fn = NULL;
out:
	mutex_unlock(&functions_mutex);
	return fn;
}

static int take_entry(void)
{
	unsigned int index;

	index = find_first_zero_bit(entries, VIRTIO_DMA_TRACK_MAX_FUNCTIONS);
	if (index == VIRTIO_DMA_TRACK_MAX_FUNCTIONS)
		return -1;
	__set_bit(index, entries);
	return index;
}

/*
 * Is the device on its bus? If so, we have yet to be told that it is removed,
 * for that comes after it has left the bus.
 */
static bool is_on_bus(struct dma_track_function *fn)
{
	struct pci_dev *pdev = get_pdev(fn->sbdf);
	bool same = pdev == fn->pdev;

	pci_dev_put(pdev);
	return same;
}

static void forget(struct dma_track_function *fn)
{
	unsigned long flags;
	int index;

	mutex_lock(&functions_mutex);
	if (fn->forgotten) {
		mutex_unlock(&functions_mutex);
		return;
	}
	fn->forgotten = true;
	list_del_rcu(&fn->node);
	spin_lock_irqsave(&entries_lock, flags);
	index = fn->index;
	fn->index = -1;
	if (index >= 0)
		WRITE_ONCE(*(__le64 *)&status->functions[index], 0);
	spin_unlock_irqrestore(&entries_lock, flags);
	if (index >= 0) {
		clear_bit(index, entries);
		dma_track_host_report_function(index);
	}
	dma_track_filter_remove(&fn->pdev->dev);
	mutex_unlock(&functions_mutex);

	dma_track_function_put(fn);
}

/*
 * The device lock is held, so that drivers neither come nor go; but the device
 * may. Returns a reference besides the list's, or NULL.
 */
static struct dma_track_function *add_function(struct pci_dev *pdev, u16 dvsec,
					       u32 generation)
{
	struct dma_track_function *fn;
	int index;

	/* Without an entry the host does not take it for tracked. */
	fn = kzalloc(sizeof(*fn), GFP_KERNEL);
	if (!fn)
		return NULL;

	kref_init(&fn->kref);
	fn->pdev = pci_dev_get(pdev);
	fn->sbdf = sbdf_of(pdev);
	fn->dvsec = dvsec;
	fn->generation = generation;
	dma_track_restore_init(fn);

	mutex_lock(&functions_mutex);
	index = take_entry();
	fn->index = index;
	kref_get(&fn->kref);
	list_add_tail_rcu(&fn->node, &functions);
	mutex_unlock(&functions_mutex);

	if (!is_on_bus(fn)) {
		forget(fn);
		dma_track_function_put(fn);
		return NULL;
	}

	/* As it was: it may be forgotten meanwhile. */
	if (index < 0)
		pci_err(pdev, "dma_track: too many functions: not tracked\n");
	return fn;
}

static void find_out_state(struct dma_track_function *fn)
{
	struct device *dev = &fn->pdev->dev;

	if (!dev->driver) {
		start_counting(fn);
		set_state(fn, VIRTIO_DMA_TRACK_FUNCTION_UNBOUND);
	} else if (maps_behind_api(dev)) {
		set_untracked(fn, VIRTIO_DMA_TRACK_REASON_BEHIND_API);
	} else {
		set_untracked(fn, VIRTIO_DMA_TRACK_REASON_BOUND_BEFORE);
	}
}

/* Fills in where the generation is, and what. */
static bool is_assigned(struct pci_dev *pdev, u16 *dvsec, u32 *generation)
{
	*dvsec = pci_find_dvsec_capability(pdev, PCI_DMA_QUIESCE_VENDOR,
					   PCI_DMA_QUIESCE_DVSEC_ID);
	return read_generation(pdev, *dvsec, generation);
}

/* Was an operator told that the function is not assigned? */
static bool is_unassigned(struct dma_track_function *fn)
{
	return READ_ONCE(fn->reason) == VIRTIO_DMA_TRACK_REASON_NO_CAPABILITY;
}

/* It turns out to be assigned. The device lock is held. */
static void assign(struct dma_track_function *fn, u16 dvsec, u32 generation)
{
	WRITE_ONCE(fn->dvsec, dvsec);
	WRITE_ONCE(fn->generation, generation);
}

/*
 * The host may have begun to name a function that was not assigned before.
 * Returns whether it still is not. The device lock is held.
 */
static bool stays_unassigned(struct dma_track_function *fn)
{
	u32 generation;
	u16 dvsec;

	if (!is_unassigned(fn))
		return false;
	if (!is_assigned(fn->pdev, &dvsec, &generation))
		return true;
	assign(fn, dvsec, generation);
	return false;
}

/* Adds the function if it is assigned, and not known yet. */
static void discover(struct pci_dev *pdev)
{
	struct dma_track_function *fn;
	u32 generation;
	u16 dvsec;

	/*
	 * Nothing new, usually. Then the device lock is not taken: a restore
	 * may hold it for long.
	 */
	fn = find_function(pdev);
	if (fn && !is_unassigned(fn))
		goto out_put;
	if (!is_assigned(pdev, &dvsec, &generation))
		goto out_put;

	device_lock(&pdev->dev);
	if (!fn) {
		/* Its driver, or another of us, may have come meanwhile. */
		fn = find_function(pdev);
		if (!fn)
			fn = add_function(pdev, dvsec, generation);
	}
	/* The host may have begun to name one that was not assigned before. */
	if (fn && (is_unassigned(fn) ||
		   READ_ONCE(fn->state) == VIRTIO_DMA_TRACK_FUNCTION_NONE)) {
		assign(fn, dvsec, generation);
		find_out_state(fn);
	}
	device_unlock(&pdev->dev);
out_put:
	if (fn)
		dma_track_function_put(fn);
}

/*
 * A driver is about to be probed for a function that we do not know: it was
 * assigned a moment ago, or else it is not assigned. Returns a reference, or
 * NULL. The device lock is held.
 */
static struct dma_track_function *discover_late(struct pci_dev *pdev)
{
	u32 generation;
	u16 dvsec;

	if (!is_assigned(pdev, &dvsec, &generation))
		return NULL;
	return add_function(pdev, dvsec, generation);
}

static int bus_notify(struct notifier_block *nb, unsigned long action,
		      void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);
	struct dma_track_function *fn;

	if (action == BUS_NOTIFY_ADD_DEVICE) {
		discover(pdev);
		return NOTIFY_OK;
	}

	fn = find_function(pdev);
	if (!fn && action == BUS_NOTIFY_BIND_DRIVER)
		fn = discover_late(pdev);
	if (!fn)
		return NOTIFY_DONE;

	switch (action) {
	case BUS_NOTIFY_BIND_DRIVER:
		if (!stays_unassigned(fn))
			driver_comes(fn);
		break;
	case BUS_NOTIFY_DRIVER_NOT_BOUND:
		if (!is_unassigned(fn))
			driver_has_failed(fn);
		break;
	case BUS_NOTIFY_UNBOUND_DRIVER:
		if (!stays_unassigned(fn))
			driver_is_gone(fn);
		break;
	case BUS_NOTIFY_REMOVED_DEVICE:
		forget(fn);
		break;
	}
	dma_track_function_put(fn);
	return NOTIFY_OK;
}

static struct notifier_block bus_nb = { .notifier_call = bus_notify };

/* --- What others ask for ------------------------------------------------------ */

void dma_track_devices_discover(void)
{
	struct virtio_dma_track_config_function
		named[VIRTIO_DMA_TRACK_MAX_CONFIG_FUNCTIONS];
	unsigned int i, nr = dma_track_host_read_functions(named);

	for (i = 0; i < nr; i++) {
		struct pci_dev *pdev = get_pdev(le32_to_cpu(named[i].sbdf));

		/* Not yet plugged in, or the bus has no number yet. */
		if (!pdev)
			continue;
		discover(pdev);
		pci_dev_put(pdev);
	}
}

/* By itself, because it may have to wait for a driver. */
static void discover_work_fn(struct work_struct *work)
{
	dma_track_devices_discover();
}

static DECLARE_WORK(discover_work, discover_work_fn);

void dma_track_devices_look(void)
{
	struct dma_track_function *fn;

	mutex_lock(&functions_mutex);
	list_for_each_entry(fn, &functions, node)
		dma_track_restore_if_needed(fn);
	mutex_unlock(&functions_mutex);

	queue_work(system_unbound_wq, &discover_work);
}

static void report(struct dma_track_function *fn, void *arg)
{
	if (fn->index >= 0)
		dma_track_host_report_function(fn->index);
}

void dma_track_devices_report(void)
{
	dma_track_devices_for_each(report, NULL);
}

void dma_track_devices_for_each(void (*call)(struct dma_track_function *fn,
					     void *arg), void *arg)
{
	struct dma_track_function *fn;

	mutex_lock(&functions_mutex);
	list_for_each_entry(fn, &functions, node)
		call(fn, arg);
	mutex_unlock(&functions_mutex);
}

static void set_behind_api(struct dma_track_function *fn)
{
	unsigned long flags;

	spin_lock_irqsave(&entries_lock, flags);
	fn->behind_api = true;
	if (fn->state == VIRTIO_DMA_TRACK_FUNCTION_TRACKED)
		write_entry(fn, VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED,
			    VIRTIO_DMA_TRACK_REASON_BEHIND_API);
	spin_unlock_irqrestore(&entries_lock, flags);
}

void dma_track_devices_behind_api(bool (*concerns)(struct device *dev,
						   const void *what),
				  const void *what)
{
	struct dma_track_function *fn;

	rcu_read_lock();
	list_for_each_entry_rcu(fn, &functions, node)
		if (concerns(&fn->pdev->dev, what))
			set_behind_api(fn);
	rcu_read_unlock();
}

/* Says in the status page what the operator asked for in vain. */
static int track_unassigned(struct pci_dev *pdev)
{
	struct dma_track_function *fn;

	device_lock(&pdev->dev);
	fn = find_function(pdev);
	if (!fn)
		fn = add_function(pdev, 0, 0);
	if (fn && READ_ONCE(fn->state) == VIRTIO_DMA_TRACK_FUNCTION_NONE)
		set_untracked(fn, VIRTIO_DMA_TRACK_REASON_NO_CAPABILITY);
	device_unlock(&pdev->dev);
	if (fn)
		dma_track_function_put(fn);
	return -EOPNOTSUPP;
}

static int rebind(struct dma_track_function *fn)
{
	struct device *dev = &fn->pdev->dev;
	u16 state = READ_ONCE(fn->state);
	int rc;

	if (state == VIRTIO_DMA_TRACK_FUNCTION_TRACKED)
		return 0;
	if (state == VIRTIO_DMA_TRACK_FUNCTION_UNBOUND) {
		rc = device_attach(dev);
		return min(rc, 0);
	}

	switch (READ_ONCE(fn->reason)) {
	case VIRTIO_DMA_TRACK_REASON_NO_CAPABILITY:
		return -EOPNOTSUPP;
	case VIRTIO_DMA_TRACK_REASON_BEHIND_API:
		return -EBUSY;
	}
	/* Takes the device lock. The notifiers do the rest. */
	return device_reprobe(dev);
}

int dma_track_devices_track(u32 sbdf)
{
	struct dma_track_function *fn;
	struct pci_dev *pdev;
	int rc;

	pdev = get_pdev(sbdf);
	if (!pdev)
		return -ENODEV;

	discover(pdev);
	fn = find_function(pdev);
	if (fn) {
		rc = rebind(fn);
		dma_track_function_put(fn);
	} else {
		rc = track_unassigned(pdev);
	}
	pci_dev_put(pdev);
	return rc;
}

int dma_track_devices_replaced(struct pci_dev *pdev)
{
	struct dma_track_function *fn = find_function(pdev);

	if (!fn)
		return -ENODEV;

	device_lock(&pdev->dev);
	WRITE_ONCE(fn->generation, READ_ONCE(fn->generation) - 1);
	fn->lifted = false;
	device_unlock(&pdev->dev);
	dma_track_function_put(fn);
	return 0;
}

int dma_track_devices_start(struct virtio_dma_track_status *s)
{
	struct pci_dev *pdev = NULL;
	int rc;

	status = s;
	/* First, so that no function comes between. */
	rc = bus_register_notifier(&pci_bus_type, &bus_nb);
	if (rc)
		return rc;

	for_each_pci_dev(pdev)
		discover(pdev);
	return 0;
}

void dma_track_devices_stop(void)
{
	struct dma_track_function *fn, *next;

	bus_unregister_notifier(&pci_bus_type, &bus_nb);
	cancel_work_sync(&discover_work);
	list_for_each_entry_safe(fn, next, &functions, node)
		forget(fn);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Restore: bring a driver back after its function was reset or replaced
 *
 * The host has put a fresh function, fenced, under a driver that knows nothing
 * of it. In the stop half the driver stops using what it believes to have; then
 * the host resets the function once more, in case the driver touched it, and
 * lifts the fence; in the start half the driver sets it up again. To a driver
 * this looks like the recovery from a PCI error, like a function level reset,
 * or like being removed and bound again, in this order of preference.
 *
 * Each function has a work item of its own in a queue without a limit, so that
 * a driver that gets stuck blocks no other function.
 *
 * All memory may have to be written to the disk that is being restored before
 * any is free: the queue has a thread in reserve, and whatever is allocated on
 * the way waits for no disk.
 */
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/jiffies.h>
#include <linux/kobject.h>
#include <linux/ktime.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "devices.h"
#include "host.h"
#include "restore.h"
#include "trace.h"

/* How a driver is stopped and started. */
enum method {
	/* error_detected(), slot_reset(), resume(): keeps the most. */
	BY_ERROR_RECOVERY,
	/* reset_prepare(), reset_done(). */
	BY_RESET_CALLBACKS,
	/* remove() and probe(): what belongs to the device is lost. */
	BY_REBIND,
	/* There is no driver. */
	BY_NOBODY,
};

static const char * const method_names[] = {
	[BY_ERROR_RECOVERY] = "error recovery",
	[BY_RESET_CALLBACKS] = "reset callbacks",
	[BY_REBIND] = "rebinding",
	[BY_NOBODY] = "no driver",
};

/*
 * A host that migrates the guest again refuses to unfence until it is done. Ask
 * again this often, for this long: meanwhile the device lock is held, for which
 * others are reported as hung after two minutes.
 */
#define BUSY_INTERVAL_MS	200
#define BUSY_PATIENCE		(20 * HZ)
/* A function that is replaced faster than this many times is given up. */
#define STALE_TRIES		16

static struct workqueue_struct *restore_wq;
/* For tests: what the host is taken to answer to UNFENCE; 0 if it is asked. */
static int pretended_answer;

/* --- The drivers' callbacks; the device lock is held ------------------------- */

static enum method choose_method(struct pci_dev *pdev)
{
	const struct pci_error_handlers *handlers;

	if (!pdev->dev.driver)
		return BY_NOBODY;

	handlers = to_pci_driver(pdev->dev.driver)->err_handler;
	if (!handlers)
		return BY_REBIND;
	if (handlers->error_detected && handlers->slot_reset)
		return BY_ERROR_RECOVERY;
	if (handlers->reset_prepare && handlers->reset_done)
		return BY_RESET_CALLBACKS;
	return BY_REBIND;
}

static const struct pci_error_handlers *handlers_of(struct pci_dev *pdev)
{
	return to_pci_driver(pdev->dev.driver)->err_handler;
}

/*
 * The configuration space came along with the guest, so what is saved here is
 * what the driver had set up. It is saved before the driver disables the
 * function, and so does not depend on the driver's saving anything.
 */
static bool stop_by_error_recovery(struct pci_dev *pdev)
{
	pci_ers_result_t result;

	pci_save_state(pdev);
	pdev->error_state = pci_channel_io_frozen;
	result = handlers_of(pdev)->error_detected(pdev, pci_channel_io_frozen);
	if (result == PCI_ERS_RESULT_CAN_RECOVER ||
	    result == PCI_ERS_RESULT_NEED_RESET ||
	    result == PCI_ERS_RESULT_RECOVERED)
		return true;

	pdev->error_state = pci_channel_io_normal;
	return false;
}

/*
 * Restoring declares the saved state used up. It is as good as before, and
 * drivers expect to have one; saving it again takes milliseconds.
 */
static void restore_config(struct pci_dev *pdev)
{
	pci_restore_state(pdev);
	pdev->state_saved = true;
}

static bool start_by_error_recovery(struct pci_dev *pdev)
{
	const struct pci_error_handlers *handlers = handlers_of(pdev);

	restore_config(pdev);
	pdev->error_state = pci_channel_io_normal;
	if (handlers->slot_reset(pdev) != PCI_ERS_RESULT_RECOVERED)
		return false;
	if (handlers->resume)
		handlers->resume(pdev);
	return true;
}

static bool stop_driver(struct pci_dev *pdev, enum method method)
{
	switch (method) {
	case BY_ERROR_RECOVERY:
		return stop_by_error_recovery(pdev);
	case BY_RESET_CALLBACKS:
		pci_save_state(pdev);
		handlers_of(pdev)->reset_prepare(pdev);
		return true;
	case BY_REBIND:
		return false;
	case BY_NOBODY:
		return true;
	}
	return false;
}

static bool start_driver(struct pci_dev *pdev, enum method method)
{
	switch (method) {
	case BY_ERROR_RECOVERY:
		return start_by_error_recovery(pdev);
	case BY_RESET_CALLBACKS:
		restore_config(pdev);
		handlers_of(pdev)->reset_done(pdev);
		return true;
	case BY_REBIND:
		return false;
	case BY_NOBODY:
		return true;
	}
	return false;
}

/* --- Taking a driver away ------------------------------------------------------ */

/* What the halves share. */
struct restore {
	struct dma_track_function *fn;
	struct pci_dev *pdev;
	enum method method;
	u32 generation;
	/* How long the host took, the rest being the driver's. */
	unsigned int host_ms;
	/* The host could not do it now: ask again when it is heard of. */
	bool repeat;
};

/* What a driver that is taken away is to believe of its function. */
enum belief {
	/* It can be shut down. */
	FUNCTION_IS_THERE,
	/* It will not answer any more. */
	FUNCTION_IS_GONE,
};

/*
 * Takes the driver away. When it goes, it disables the function, and the kernel
 * warns if that is disabled already, as it may be since the driver was stopped.
 */
static void release_driver(struct restore *r, enum belief belief)
{
	struct pci_dev *pdev = r->pdev;
	struct device *dev = &pdev->dev;
	bool enabled;

	enabled = dev->driver && !pci_is_enabled(pdev) &&
		  !pci_enable_device_mem(pdev);
	if (belief == FUNCTION_IS_GONE)
		WRITE_ONCE(pdev->error_state, pci_channel_io_perm_failure);
	device_release_driver(dev);
	if (belief == FUNCTION_IS_GONE)
		WRITE_ONCE(pdev->error_state, pci_channel_io_normal);

	device_lock(dev);
	if (enabled && !dev->driver && pci_is_enabled(pdev))
		pci_disable_device(pdev);
	/* What the driver wrote to a function that is gone has not arrived. */
	if (belief == FUNCTION_IS_GONE && !dev->driver)
		pci_clear_master(pdev);
	device_unlock(dev);
}

/* --- The fence ---------------------------------------------------------------- */

bool dma_track_restore_is_to_be_repeated(int rc)
{
	switch (rc) {
	case -ENODEV:		/* There is no host now. */
	case -ETIMEDOUT:	/* It does not answer. */
	case -EBUSY:
	case -EPERM:
	case -ESTALE:
	case -ENOMEM:
		return true;
	}
	return false;
}

int dma_track_restore_unfence(struct dma_track_function *fn, u32 *generation)
{
	unsigned long deadline = jiffies + BUSY_PATIENCE;
	int stale = 0, rc;

	for (;;) {
		if (!dma_track_function_read_generation(fn, generation))
			return -ENODEV;

		rc = READ_ONCE(pretended_answer);
		if (!rc)
			rc = dma_track_host_unfence(fn->sbdf, *generation);
		if (!rc) {
			fn->lifted = true;
			fn->lifted_for = *generation;
			return 0;
		}
		if (rc == -ESTALE && ++stale < STALE_TRIES)
			continue;
		/* -EPERM: it is still busy with a request that we gave up. */
		if ((rc != -EBUSY && rc != -EPERM) ||
		    time_after(jiffies, deadline))
			return rc;
		msleep(BUSY_INTERVAL_MS);
	}
}

void dma_track_restore_pretend(int rc)
{
	WRITE_ONCE(pretended_answer, rc);
}

/* --- One restore -------------------------------------------------------------- */

/* The device lock is held. */
static int unfence(struct restore *r)
{
	ktime_t start = ktime_get();
	int rc;

	trace_dma_track_restore(r->fn->sbdf, r->generation,
				DMA_TRACK_RESTORE_STOPPED, 0);
	rc = dma_track_restore_unfence(r->fn, &r->generation);
	trace_dma_track_restore(r->fn->sbdf, r->generation,
				DMA_TRACK_RESTORE_UNFENCED, rc);
	r->host_ms += ktime_ms_delta(ktime_get(), start);
	r->repeat = dma_track_restore_is_to_be_repeated(rc);
	return rc;
}

/*
 * Without letting go of the device lock, so that the driver is not unbound in
 * between. Returns -EAGAIN if the driver has to be bound anew.
 */
static int restore_bound(struct restore *r)
{
	struct dma_track_function *fn = r->fn;
	int rc = -EAGAIN;

	device_lock(&r->pdev->dev);
	r->method = choose_method(r->pdev);
	if (fn->lifted && fn->lifted_for == r->generation) {
		/* For a driver that has come meanwhile, or come and gone. */
		rc = 0;
		if (r->method != BY_NOBODY)
			r->method = BY_REBIND;
		goto out;
	}
	if (r->method == BY_NOBODY && fn->detached)
		r->method = BY_REBIND;
	if (!stop_driver(r->pdev, r->method))
		goto out;

	rc = unfence(r);
	if (!rc && !start_driver(r->pdev, r->method))
		rc = -EAGAIN;
out:
	device_unlock(&r->pdev->dev);
	return rc;
}

/* A driver that could not be stopped, or not be started, the kind way. */
static int restore_by_rebinding(struct restore *r)
{
	struct dma_track_function *fn = r->fn;
	struct device *dev = &r->pdev->dev;
	int rc;

	r->method = BY_REBIND;
	release_driver(r, FUNCTION_IS_THERE);

	device_lock(dev);
	if (!dev->driver)
		rc = unfence(r);
	else if (fn->lifted && fn->lifted_for == r->generation)
		rc = 0;
	else
		/* Somebody was quicker to bind one, to a fenced function. */
		rc = -EIO;
	fn->detached = r->repeat;
	device_unlock(dev);
	if (rc)
		return rc;

	rc = device_attach(dev);
	if (rc < 0)
		return rc;
	return rc ? 0 : -ENXIO;
}

/*
 * The function stays fenced, with a driver that is half stopped: better none.
 * Told that the function is there, nvme, for one, would wait for it for ever.
 */
static void give_up(struct restore *r)
{
	struct device *dev = &r->pdev->dev;

	release_driver(r, FUNCTION_IS_GONE);
	device_lock(dev);
	r->fn->detached = r->repeat && !dev->driver;
	device_unlock(dev);
}

static int restore(struct restore *r)
{
	struct device *dev = &r->pdev->dev;
	int rc;

	/* Awake, or its configuration space cannot be saved. */
	pm_runtime_get_sync(dev);
	rc = restore_bound(r);
	if (rc == -EAGAIN)
		rc = restore_by_rebinding(r);
	else if (rc && r->method != BY_NOBODY)
		give_up(r);
	pm_runtime_put(dev);
	return rc;
}

static void announce(struct restore *r, int rc)
{
	static const char * const words[] = {
		[DMA_TRACK_RESTORED_OK] = "DMA_TRACK_RESTORED=ok",
		[DMA_TRACK_RESTORED_FAILED] = "DMA_TRACK_RESTORED=failed",
		[DMA_TRACK_RESTORED_NO_DRIVER] = "DMA_TRACK_RESTORED=no-driver",
	};
	static const u32 results[] = {
		[DMA_TRACK_RESTORED_OK] = VIRTIO_DMA_TRACK_RESTORED_OK,
		[DMA_TRACK_RESTORED_FAILED] = VIRTIO_DMA_TRACK_RESTORED_FAILED,
		[DMA_TRACK_RESTORED_NO_DRIVER] =
			VIRTIO_DMA_TRACK_RESTORED_NO_DRIVER,
	};
	struct dma_track_function *fn = r->fn;
	enum dma_track_restored restored;
	char *envp[2] = {};

	if (rc)
		restored = DMA_TRACK_RESTORED_FAILED;
	else if (r->method == BY_NOBODY)
		restored = DMA_TRACK_RESTORED_NO_DRIVER;
	else
		restored = DMA_TRACK_RESTORED_OK;
	WRITE_ONCE(fn->restored, restored);

	if (rc)
		pci_err(r->pdev,
			"dma_track: not restored for generation %u: %d\n",
			r->generation, rc);
	else
		pci_info(r->pdev,
			 "dma_track: restored for generation %u by %s in %u ms, %u of them the host's\n",
			 r->generation, method_names[r->method],
			 fn->restore_ms, r->host_ms);

	dma_track_host_restored(fn->sbdf, r->generation, results[restored]);
	envp[0] = (char *)words[restored];
	kobject_uevent_env(&r->pdev->dev.kobj, KOBJ_CHANGE, envp);
}

static void restore_work(struct work_struct *work)
{
	unsigned int noio = memalloc_noio_save();
	struct dma_track_function *fn;
	u32 generation;

	fn = container_of(work, struct dma_track_function, work);

	/* Again if it was replaced meanwhile. */
	while (dma_track_function_read_generation(fn, &generation) &&
	       generation != READ_ONCE(fn->generation)) {
		struct restore r = {
			.fn = fn,
			.pdev = fn->pdev,
			.generation = generation,
		};
		ktime_t start = ktime_get();
		int rc;

		trace_dma_track_restore(fn->sbdf, generation,
					DMA_TRACK_RESTORE_BEGINS, 0);
		WRITE_ONCE(fn->restored, DMA_TRACK_RESTORED_RUNNING);
		rc = restore(&r);
		trace_dma_track_restore(fn->sbdf, r.generation,
					DMA_TRACK_RESTORE_ENDS, rc);
		WRITE_ONCE(fn->restore_ms, ktime_ms_delta(ktime_get(), start));
		if (!r.repeat)
			WRITE_ONCE(fn->generation, r.generation);
		announce(&r, rc);
		/* The host's next notice, or a new host, comes back to it. */
		if (r.repeat)
			break;
	}
	dma_track_function_put(fn);
	memalloc_noio_restore(noio);
}

void dma_track_restore_if_needed(struct dma_track_function *fn)
{
	u32 generation;

	if (!dma_track_function_read_generation(fn, &generation) ||
	    generation == READ_ONCE(fn->generation))
		return;

	kref_get(&fn->kref);
	if (!queue_work(restore_wq, &fn->work))
		dma_track_function_put(fn);
}

void dma_track_restore_init(struct dma_track_function *fn)
{
	INIT_WORK(&fn->work, restore_work);
}

int dma_track_restore_start(void)
{
	/*
	 * Not while the system is suspended: then drivers are stopped otherwise.
	 * "Legacy" spares drivers, which wait for works of their own in other
	 * queues, the warning that those have no thread in reserve.
	 */
	restore_wq = alloc_workqueue("dma_track_restore",
				     WQ_UNBOUND | WQ_HIGHPRI | WQ_FREEZABLE |
				     WQ_MEM_RECLAIM | __WQ_LEGACY, 0);
	return restore_wq ? 0 : -ENOMEM;
}

void dma_track_restore_stop(void)
{
	destroy_workqueue(restore_wq);
}

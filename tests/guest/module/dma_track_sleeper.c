// SPDX-License-Identifier: GPL-2.0-only
/*
 * A task that is asleep in dma_alloc_coherent() for as long as is wanted
 *
 * Knows nothing of dma_track, so that this can be unloaded meanwhile. In
 * /sys/module/dma_track_sleeper/parameters:
 *
 *	state		"awake", or "asleep" in the allocation, or "back" from it
 *	sleep		write anything: a task falls asleep
 *	wake		write anything: it goes on
 *	grace		write a number: wait so often for all tasks but those that
 *			sleep, as those do who free code that was traced
 */
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/rcupdate.h>

static struct device *dev;
static struct task_struct *task;
static DECLARE_COMPLETION(woken);
static char *state = "awake";

/* Fails, so that nothing has to be freed. */
static void *sleeping_alloc(struct device *d, size_t size, dma_addr_t *addr,
			    gfp_t gfp, unsigned long attrs)
{
	WRITE_ONCE(state, "asleep");
	wait_for_completion(&woken);
	return NULL;
}

static const struct dma_map_ops ops = { .alloc = sleeping_alloc };

static int sleeper_fn(void *arg)
{
	dma_addr_t a;

	if (!dma_alloc_coherent(dev, PAGE_SIZE, &a, GFP_KERNEL))
		WRITE_ONCE(state, "back");
	/* Until somebody collects it. */
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ / 10);
	return 0;
}

static int set_sleep(const char *text, const struct kernel_param *param)
{
	struct task_struct *found;

	if (task)
		return -EBUSY;
	found = kthread_run(sleeper_fn, NULL, "dma_track_sleeper");
	if (IS_ERR(found))
		return PTR_ERR(found);
	task = found;
	return 0;
}

static int set_wake(const char *text, const struct kernel_param *param)
{
	complete_all(&woken);
	return 0;
}

static int set_grace(const char *text, const struct kernel_param *param)
{
	unsigned int nr;
	int rc;

	rc = kstrtouint(text, 0, &nr);
	while (!rc && nr--)
		synchronize_rcu_tasks();
	return rc;
}

static const struct kernel_param_ops grace_ops = { .set = set_grace };
static const struct kernel_param_ops sleep_ops = { .set = set_sleep };
static const struct kernel_param_ops wake_ops = { .set = set_wake };

module_param(state, charp, 0400);
module_param_cb(grace, &grace_ops, NULL, 0200);
module_param_cb(sleep, &sleep_ops, NULL, 0200);
module_param_cb(wake, &wake_ops, NULL, 0200);

static int __init sleeper_init(void)
{
	dev = root_device_register("dma-track-sleeper");
	if (IS_ERR(dev))
		return PTR_ERR(dev);

	dev->coherent_dma_mask = DMA_BIT_MASK(64);
	dev->dma_mask = &dev->coherent_dma_mask;
	set_dma_ops(dev, &ops);
	if (get_dma_ops(dev) == &ops)
		return 0;

	/* The kernel was built without. */
	root_device_unregister(dev);
	return -EOPNOTSUPP;
}
module_init(sleeper_init);

static void __exit sleeper_exit(void)
{
	complete_all(&woken);
	if (task)
		kthread_stop(task);
	root_device_unregister(dev);
}
module_exit(sleeper_exit);

MODULE_DESCRIPTION("A task that is asleep in the DMA API");
MODULE_LICENSE("GPL");

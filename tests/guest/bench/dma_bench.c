// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a map and an unmap cost, or a synchronisation, in instructions
 *
 * For a guest whose time advances with its instructions (icount): the time
 * stamp counter then tells how many there were, once a loop of known length has
 * told how far it advances with each. Interrupts are off meanwhile. The result
 * is in the kernel's log, a line each, and the module can be unloaded:
 *
 *	dma_bench: STATE MILLI
 *
 * STATE is the parameter's value, MILLI thousandths of an instruction a pair, or
 * with syncs=1 a call of dma_sync_single_for_cpu().
 *
 *	base		dma_track is not loaded
 *	untracked	it is, and another device is counted
 *	tracked		the device is counted
 *	logging		and the host logs, so that each unmap dirties
 *
 * With syncs=1 the host wants frames dirtied at synchronisation in the last two,
 * and not in
 *
 *	unasked		the device is counted
 */
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/string.h>

#include <asm/msr.h>

#include "compat.h"
#include "inspect.h"

#define NR_RUNS		5
#define NR_PAIRS	20000
#define NR_KNOWN	1000000

static char *state = "base";
module_param(state, charp, 0400);
static bool syncs;
module_param(syncs, bool, 0400);

static struct device *dev;
/* So that the filter is never empty. */
static struct device *other;
static struct page *page;

/* Two instructions each round. */
static u64 known_ticks(void)
{
	unsigned long rounds = NR_KNOWN / 2;
	u64 start = rdtsc_ordered();

	asm volatile("1:	decq	%[rounds]\n"
		     "	jnz	1b\n"
		     : [rounds] "+r" (rounds) : : "cc");
	return rdtsc_ordered() - start;
}

/* Half a page, as network drivers receive into. */
static int map_and_unmap(int nr)
{
	while (nr--) {
		dma_addr_t addr = dma_map_page(dev, page, 0, PAGE_SIZE / 2,
					       DMA_FROM_DEVICE);

		if (dma_mapping_error(dev, addr))
			return -EIO;
		dma_unmap_page(dev, addr, PAGE_SIZE / 2, DMA_FROM_DEVICE);
	}
	return 0;
}

static int map_and_sync(int nr)
{
	dma_addr_t addr = dma_map_page(dev, page, 0, PAGE_SIZE / 2,
				       DMA_FROM_DEVICE);

	if (dma_mapping_error(dev, addr))
		return -EIO;
	while (nr--)
		dma_sync_single_for_cpu(dev, addr, PAGE_SIZE / 2,
					DMA_FROM_DEVICE);
	dma_unmap_page(dev, addr, PAGE_SIZE / 2, DMA_FROM_DEVICE);
	return 0;
}

static int measure(void)
{
	unsigned long flags;
	u64 known, start, ticks;
	int rc;

	local_irq_save(flags);
	known = known_ticks();
	start = rdtsc_ordered();
	rc = syncs ? map_and_sync(NR_PAIRS) : map_and_unmap(NR_PAIRS);
	ticks = rdtsc_ordered() - start;
	local_irq_restore(flags);
	if (rc)
		return rc;

	pr_info("dma_bench: %s %llu\n", state,
		mul_u64_u64_div_u64(ticks, 1000ULL * NR_KNOWN / NR_PAIRS,
				    known));
	return 0;
}

/* By name: without dma_track, this module is to be loaded as well. */
#define CALL(fn, ...) ({						\
	typeof(fn) *called = symbol_get(fn);				\
	int status = called ? called(__VA_ARGS__) : -ENOENT;		\
									\
	if (called)							\
		symbol_put(fn);						\
	status;								\
})

static int enter_state(void)
{
	int rc;

	if (!strcmp(state, "base"))
		return 0;
	rc = CALL(dma_track_test_add_device, other);
	if (rc || !strcmp(state, "untracked"))
		return rc;
	if (strcmp(state, "tracked") && strcmp(state, "logging") &&
	    strcmp(state, "unasked"))
		return -EINVAL;

	/* As dma_track does it for a device that is being bound. */
	if (DMA_TRACK_UNMAPS_ARE_SKIPPED ||
	    (syncs && strcmp(state, "unasked")))
		dma_reset_need_sync(dev);
	rc = CALL(dma_track_test_add_device, dev);
	if (!rc && !strcmp(state, "logging"))
		rc = CALL(dma_track_test_set_logging, true);
	return rc;
}

static void remove_device(struct device *device)
{
	typeof(dma_track_test_remove_device) *called =
		symbol_get(dma_track_test_remove_device);

	if (called) {
		called(device);
		symbol_put(dma_track_test_remove_device);
	}
}

static void leave_state(void)
{
	if (!strcmp(state, "logging"))
		CALL(dma_track_test_set_logging, false);
	if (!strcmp(state, "base"))
		return;
	remove_device(dev);
	remove_device(other);
}

/* Bridges of the emulated chip set, which have no driver and do no DMA. */
static struct device *find_device(unsigned int slot)
{
	struct pci_dev *pdev;

	pdev = pci_get_domain_bus_and_slot(0, 0, PCI_DEVFN(slot, 0));
	return pdev ? &pdev->dev : NULL;
}

static int __init bench_init(void)
{
	int i, rc = -ENODEV;

	dev = find_device(0);
	other = find_device(0x1f);
	if (!dev || !other)
		goto out_put;

	page = alloc_page(GFP_KERNEL);
	if (!page) {
		rc = -ENOMEM;
		goto out_put;
	}
	rc = enter_state();
	if (rc)
		goto out_leave;

	map_and_unmap(100);
	for (i = 0; i < NR_RUNS && !rc; i++)
		rc = measure();
out_leave:
	leave_state();
	__free_page(page);
out_put:
	put_device(other);
	put_device(dev);
	return rc;
}
module_init(bench_init);

static void __exit bench_exit(void)
{
}
module_exit(bench_exit);

MODULE_DESCRIPTION("Counts the instructions of a map and an unmap");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(DMA_TRACK_TEST_NS);

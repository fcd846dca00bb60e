// SPDX-License-Identifier: GPL-2.0-only
/*
 * The self-test of the hooks: a device that is none calls each function once
 */
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/scatterlist.h>

#include "compat.h"
#include "filter.h"
#include "hook_list.h"
#include "selftest.h"
#include "table.h"

struct device *dma_track_selftest_dev;
unsigned int dma_track_selftest_calls[NR_HOOKS];

static struct dma_track_table *const table = &dma_track_table;
static struct page *test_page;

static bool selftest_pinned(enum dma_track_plane plane, phys_addr_t phys)
{
	struct dma_track_frame frame = {};

	dma_track_table_read_frame(table, PHYS_PFN(phys), &frame);
	return plane == DMA_TRACK_STREAMING ? frame.streaming : frame.coherent;
}

/*
 * What is pinned must be seen at map and gone at unmap, or the address was not
 * translated to the right frame.
 */
static int selftest_expect(const char *name, bool pinned, bool expected)
{
	if (pinned == expected)
		return 0;
	pr_err("self-test: frame is%s pinned after %s\n", pinned ? "" : " not",
	       name);
	return -EIO;
}

static int selftest_page(struct device *dev)
{
	dma_addr_t addr;
	bool mapped;

	addr = dma_map_page(dev, test_page, 0, PAGE_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(dev, addr))
		return -ENOMEM;
	dma_sync_single_for_cpu(dev, addr, PAGE_SIZE, DMA_FROM_DEVICE);
	mapped = selftest_pinned(DMA_TRACK_STREAMING, dma_to_phys(dev, addr));
	dma_unmap_page(dev, addr, PAGE_SIZE, DMA_FROM_DEVICE);
	return selftest_expect("dma_map_page", mapped, true) ?:
	       selftest_expect("dma_unmap_page",
			       selftest_pinned(DMA_TRACK_STREAMING,
					       dma_to_phys(dev, addr)), false);
}

static int selftest_sg(struct device *dev)
{
	struct sg_table sgt;
	phys_addr_t phys;
	bool mapped;
	int rc;

	rc = sg_alloc_table(&sgt, 1, GFP_KERNEL);
	if (rc)
		return rc;
	sg_set_page(sgt.sgl, test_page, PAGE_SIZE, 0);

	if (!dma_map_sg(dev, sgt.sgl, 1, DMA_BIDIRECTIONAL)) {
		rc = -ENOMEM;
		goto out_free;
	}
	dma_sync_sg_for_cpu(dev, sgt.sgl, 1, DMA_BIDIRECTIONAL);
	phys = dma_to_phys(dev, sg_dma_address(sgt.sgl));
	mapped = selftest_pinned(DMA_TRACK_STREAMING, phys);
	dma_unmap_sg(dev, sgt.sgl, 1, DMA_BIDIRECTIONAL);
	rc = selftest_expect("dma_map_sg", mapped, true) ?:
	     selftest_expect("dma_unmap_sg",
			     selftest_pinned(DMA_TRACK_STREAMING, phys), false);
	/* The unmap is to be counted once, by one of the two. */
	dma_track_selftest_calls[HOOK_dma_unmap_sg_attrs]--;
	if (rc)
		goto out_free;

	rc = dma_map_sgtable(dev, &sgt, DMA_FROM_DEVICE, 0);
	if (rc)
		goto out_free;
	phys = dma_to_phys(dev, sg_dma_address(sgt.sgl));
	mapped = selftest_pinned(DMA_TRACK_STREAMING, phys);
	dma_unmap_sgtable(dev, &sgt, DMA_FROM_DEVICE, 0);
	rc = selftest_expect("dma_map_sgtable", mapped, true) ?:
	     selftest_expect("dma_unmap_sgtable",
			     selftest_pinned(DMA_TRACK_STREAMING, phys), false);
out_free:
	sg_free_table(&sgt);
	return rc;
}

static int selftest_alloc(struct device *dev)
{
	dma_addr_t addr;
	void *cpu_addr;
	bool mapped;

	cpu_addr = dma_alloc_attrs(dev, PAGE_SIZE, &addr, GFP_KERNEL, 0);
	if (!cpu_addr)
		return -ENOMEM;
	mapped = selftest_pinned(DMA_TRACK_COHERENT, dma_to_phys(dev, addr));
	dma_free_attrs(dev, PAGE_SIZE, cpu_addr, addr, 0);
	return selftest_expect("dma_alloc_attrs", mapped, true) ?:
	       selftest_expect("dma_free_attrs",
			       selftest_pinned(DMA_TRACK_COHERENT,
					       dma_to_phys(dev, addr)), false);
}

static int selftest_alloc_pages(struct device *dev)
{
	struct page *page;
	dma_addr_t addr;
	bool mapped;

	page = dma_alloc_pages(dev, PAGE_SIZE, &addr, DMA_FROM_DEVICE,
			       GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	mapped = selftest_pinned(DMA_TRACK_COHERENT, dma_to_phys(dev, addr));
	dma_free_pages(dev, PAGE_SIZE, page, addr, DMA_FROM_DEVICE);
	return selftest_expect("dma_alloc_pages", mapped, true) ?:
	       selftest_expect("dma_free_pages",
			       selftest_pinned(DMA_TRACK_COHERENT,
					       dma_to_phys(dev, addr)), false);
}

static int selftest_noncontiguous(struct device *dev)
{
	struct sg_table *sgt;
	phys_addr_t phys;
	bool mapped;

	sgt = dma_alloc_noncontiguous(dev, PAGE_SIZE, DMA_FROM_DEVICE,
				      GFP_KERNEL, 0);
	if (!sgt)
		return -ENOMEM;
	phys = dma_to_phys(dev, sg_dma_address(sgt->sgl));
	mapped = selftest_pinned(DMA_TRACK_COHERENT, phys);
	dma_free_noncontiguous(dev, PAGE_SIZE, sgt, DMA_FROM_DEVICE);
	return selftest_expect("dma_alloc_noncontiguous", mapped, true) ?:
	       selftest_expect("dma_free_noncontiguous",
			       selftest_pinned(DMA_TRACK_COHERENT, phys),
			       false);
}

/* Not for a device that has no IOMMU, as the dummy, or without memory to add. */
#define NOT_CALLED(fn)							\
	[HOOK_##fn] = true,
static const bool not_called[NR_HOOKS] = {
	FOR_EACH_IOVA_HOOK(NOT_CALLED)
	FOR_EACH_BEHIND_HOOK(NOT_CALLED)
	FOR_EACH_MEMORY_HOOK(NOT_CALLED)
};

#define NAME(fn)							\
	[HOOK_##fn] = #fn,
static const char *const names[NR_HOOKS] = {
	FOR_EACH_HOOK(NAME)
};

static int selftest_calls_seen(void)
{
	int i, rc = 0;

	for (i = 0; i < NR_HOOKS; i++) {
		unsigned int expected = not_called[i] ? 0 : 1;

		if (dma_track_selftest_calls[i] == expected)
			continue;
		pr_err("self-test: one call of %s was seen %u times\n",
		       names[i], dma_track_selftest_calls[i]);
		rc = -EIO;
	}
	return rc;
}

static int selftest_run(struct device *dev)
{
	int rc;

	dev->dma_mask = &dev->coherent_dma_mask;
	rc = dma_set_mask(dev, DMA_BIT_MASK(64));
	if (rc)
		return rc;
	/* So that syncs are called. */
	dma_reset_need_sync(dev);

	return selftest_page(dev) ?:
	       selftest_sg(dev) ?:
	       selftest_alloc(dev) ?:
	       selftest_alloc_pages(dev) ?:
	       selftest_noncontiguous(dev) ?:
	       selftest_calls_seen();
}

int dma_track_selftest(void)
{
	struct device *dev;
	int rc = -ENOMEM;

	test_page = alloc_page(GFP_KERNEL);
	if (!test_page)
		return -ENOMEM;

	dev = root_device_register("dma-track-selftest");
	if (IS_ERR(dev)) {
		rc = PTR_ERR(dev);
		goto out_free;
	}

	rc = dma_track_filter_add(dev);
	if (rc)
		goto out_unregister;

	memset(dma_track_selftest_calls, 0, sizeof(dma_track_selftest_calls));
	WRITE_ONCE(dma_track_selftest_dev, dev);
	rc = selftest_run(dev);
	WRITE_ONCE(dma_track_selftest_dev, NULL);
	if (rc)
		pr_err("self-test failed: %d\n", rc);

	dma_track_filter_remove(dev);
out_unregister:
	root_device_unregister(dev);
out_free:
	__free_page(test_page);
	return rc;
}

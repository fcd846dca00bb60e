// SPDX-License-Identifier: GPL-2.0-only
/*
 * A pretend device that maps on command
 *
 * Drives every hooked function of the DMA API as drivers do, on a device that
 * does no DMA, and looks at the table of dma_track after each step. The tests
 * run when the module is loaded; their outcome is in the kernel's log as TAP,
 * each line beginning with "dma_track_test: ". The module always loads, so that
 * it can be unloaded, unless there is no memory.
 *
 * Loaded with run=0 it is a tool for tests/guest/vm instead, in
 * /sys/module/dma_track_test/parameters:
 *
 *	replace		write a function's address: the host is taken to have
 *			replaced it, and to be about to tell
 *	unfence		write an error number, negative: the host is taken to
 *			answer this to UNFENCE; 0 asks the host
 *
 * Two PCI drivers are bound by driver_override only: dma_track_failing, whose
 * probe fails after a managed allocation, and dma_track_witness, which says in
 * the log what is asked of it.
 */
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/swiotlb.h>

#include "compat.h"
#include "inspect.h"

#define pr_tap(fmt, ...) pr_info("dma_track_test: " fmt, ##__VA_ARGS__)

static struct device *dev;
static int nr_tests, nr_failed;
static bool good;

static void expect(bool ok, int line, const char *what)
{
	if (ok)
		return;
	pr_tap("# line %d: not true: %s\n", line, what);
	good = false;
}

#define EXPECT(x) expect(x, __LINE__, #x)

/* --- What the table says ------------------------------------------------- */

static struct dma_track_frame frame_at(dma_addr_t addr)
{
	struct dma_track_frame frame = { .count = 0xee };

	EXPECT(dma_track_test_read_frame(PHYS_PFN(dma_to_phys(dev, addr)),
					 &frame));
	return frame;
}

static bool streaming(dma_addr_t addr)
{
	return frame_at(addr).streaming;
}

static bool coherent(dma_addr_t addr)
{
	return frame_at(addr).coherent;
}

static u8 count(dma_addr_t addr)
{
	return frame_at(addr).count;
}

static struct dma_track_test_counts counts(void)
{
	struct dma_track_test_counts c;

	dma_track_test_read_counts(&c);
	return c;
}

static u64 dirtied(void)
{
	return counts().table.dirtied;
}

/* --- Memory -------------------------------------------------------------- */

#define NR_PAGES 8

static struct page *pages[NR_PAGES];
/* NR_PAGES of them, one after the other. */
static struct page *run;

static dma_addr_t map(struct page *page, size_t offset, size_t size,
		      enum dma_data_direction dir)
{
	dma_addr_t addr = dma_map_page(dev, page, offset, size, dir);

	EXPECT(!dma_mapping_error(dev, addr));
	return addr;
}

/* --- Tests --------------------------------------------------------------- */

static void test_page(void)
{
	struct dma_track_test_counts before = counts();
	dma_addr_t a = map(pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);

	EXPECT(streaming(a) && count(a) == 1 && !coherent(a));
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!streaming(a) && count(a) == 0);
	EXPECT(counts().maps == before.maps + 1);
	EXPECT(counts().unmaps == before.unmaps + 1);
	EXPECT(dirtied() == before.table.dirtied);
}

static void test_directions(void)
{
	dma_addr_t a;

	a = map(pages[0], 0, PAGE_SIZE, DMA_TO_DEVICE);
	EXPECT(!streaming(a) && count(a) == 0);
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_TO_DEVICE);
	EXPECT(count(a) == 0);

	a = map(pages[0], 0, PAGE_SIZE, DMA_BIDIRECTIONAL);
	EXPECT(streaming(a) && count(a) == 1);
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_BIDIRECTIONAL);
	EXPECT(!streaming(a));
}

static void test_attributes(void)
{
	unsigned long attrs = DMA_ATTR_SKIP_CPU_SYNC | DMA_ATTR_WEAK_ORDERING;
	dma_addr_t a;

	a = dma_map_page_attrs(dev, pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE,
			       attrs);
	EXPECT(streaming(a));
	dma_unmap_page_attrs(dev, a, PAGE_SIZE, DMA_FROM_DEVICE, attrs);
	EXPECT(!streaming(a));
}

static void test_parts_of_pages(void)
{
	dma_addr_t a, b, c;

	/* One byte, the last of its page. */
	a = map(run, PAGE_SIZE - 1, 1, DMA_FROM_DEVICE);
	EXPECT(streaming(a) && !streaming(a + 1));
	dma_unmap_page(dev, a, 1, DMA_FROM_DEVICE);

	/* Two bytes across a border. */
	a = map(run, PAGE_SIZE - 1, 2, DMA_FROM_DEVICE);
	EXPECT(streaming(a) && streaming(a + 1));
	dma_unmap_page(dev, a, 2, DMA_FROM_DEVICE);
	EXPECT(!streaming(a) && !streaming(a + 1));

	/* All but the outermost bytes of three pages. */
	a = map(run, 1, 3 * PAGE_SIZE - 2, DMA_FROM_DEVICE);
	EXPECT(streaming(a) && streaming(a + PAGE_SIZE));
	EXPECT(streaming(a + 2 * PAGE_SIZE) && !streaming(a + 3 * PAGE_SIZE));
	dma_unmap_page(dev, a, 3 * PAGE_SIZE - 2, DMA_FROM_DEVICE);

	/* Two buffers in a page, as network drivers have it; and a third. */
	a = map(run, 0, 2048, DMA_FROM_DEVICE);
	b = map(run, 2048, 2048, DMA_FROM_DEVICE);
	c = map(run, 64, 64, DMA_BIDIRECTIONAL);
	EXPECT(count(a) == 3);
	dma_unmap_page(dev, a, 2048, DMA_FROM_DEVICE);
	dma_unmap_page(dev, c, 64, DMA_BIDIRECTIONAL);
	EXPECT(count(b) == 1 && streaming(b));
	dma_unmap_page(dev, b, 2048, DMA_FROM_DEVICE);
	EXPECT(count(b) == 0 && !streaming(b));
}

static void test_single(void)
{
	void *buffer = kmalloc(1500, GFP_KERNEL);
	dma_addr_t a;

	if (!buffer) {
		EXPECT(!"memory");
		return;
	}
	a = dma_map_single(dev, buffer, 1500, DMA_FROM_DEVICE);
	EXPECT(!dma_mapping_error(dev, a) && streaming(a));
	EXPECT(streaming(a + 1499));
	dma_unmap_single(dev, a, 1500, DMA_FROM_DEVICE);
	EXPECT(!streaming(a));
	kfree(buffer);
}

static void test_large(void)
{
	dma_addr_t a = map(run, 0, NR_PAGES * PAGE_SIZE, DMA_FROM_DEVICE);
	int i, pinned = 0;

	for (i = 0; i < NR_PAGES; i++)
		pinned += streaming(a + i * PAGE_SIZE);
	EXPECT(pinned == NR_PAGES);
	dma_unmap_page(dev, a, NR_PAGES * PAGE_SIZE, DMA_FROM_DEVICE);
	for (i = 0; i < NR_PAGES; i++)
		pinned -= !streaming(a + i * PAGE_SIZE);
	EXPECT(pinned == 0);
}

/* More than a bounce buffer holds is refused. */
static void test_failed_map(void)
{
	struct dma_track_test_counts before = counts();
	const size_t size = SZ_512K;
	struct page *large;
	dma_addr_t a;

	large = alloc_pages(GFP_KERNEL, get_order(size));
	if (!large) {
		EXPECT(!"memory");
		return;
	}
	a = dma_map_page(dev, large, 0, size, DMA_FROM_DEVICE);
	EXPECT(dma_mapping_error(dev, a));
	EXPECT(counts().maps == before.maps && counts().lost == before.lost);
	EXPECT(!streaming(phys_to_dma(dev, page_to_phys(large))));
	__free_pages(large, get_order(size));
}

static void init_sg(struct scatterlist *sgl)
{
	int i;

	sg_init_table(sgl, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++)
		sg_set_page(&sgl[i], pages[i], 100, PAGE_SIZE - 100);
}

static int nr_streaming(struct scatterlist *sgl)
{
	struct scatterlist *sg;
	int i, nr = 0;

	for_each_sg(sgl, sg, NR_PAGES, i)
		nr += streaming(phys_to_dma(dev, sg_phys(sg)));
	return nr;
}

static void test_sg(void)
{
	struct scatterlist sgl[NR_PAGES];
	u64 before;

	init_sg(sgl);
	EXPECT(dma_map_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE) == NR_PAGES);
	EXPECT(nr_streaming(sgl) == NR_PAGES);
	dma_unmap_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE);
	EXPECT(nr_streaming(sgl) == 0);

	before = counts().maps;
	EXPECT(dma_map_sg(dev, sgl, NR_PAGES, DMA_TO_DEVICE) == NR_PAGES);
	EXPECT(nr_streaming(sgl) == 0 && counts().maps == before);
	dma_unmap_sg(dev, sgl, NR_PAGES, DMA_TO_DEVICE);

	/* Only the first half is mapped. */
	EXPECT(dma_map_sg(dev, sgl, NR_PAGES / 2, DMA_BIDIRECTIONAL) ==
	       NR_PAGES / 2);
	EXPECT(nr_streaming(sgl) == NR_PAGES / 2);
	dma_unmap_sg(dev, sgl, NR_PAGES / 2, DMA_BIDIRECTIONAL);
	EXPECT(nr_streaming(sgl) == 0);
}

static void test_sgtable(void)
{
	struct sg_table sgt;

	if (sg_alloc_table(&sgt, NR_PAGES, GFP_KERNEL)) {
		EXPECT(!"memory");
		return;
	}
	init_sg(sgt.sgl);
	EXPECT(dma_map_sgtable(dev, &sgt, DMA_BIDIRECTIONAL, 0) == 0);
	EXPECT(nr_streaming(sgt.sgl) == NR_PAGES);
	dma_unmap_sgtable(dev, &sgt, DMA_BIDIRECTIONAL, 0);
	EXPECT(nr_streaming(sgt.sgl) == 0);
	sg_free_table(&sgt);
}

static void test_alloc(void)
{
	size_t size = 3 * PAGE_SIZE - 5;
	dma_addr_t a;
	void *p;

	p = dma_alloc_coherent(dev, size, &a, GFP_KERNEL);
	EXPECT(p && coherent(a) && coherent(a + 3 * PAGE_SIZE - 1));
	EXPECT(!streaming(a));
	dma_free_coherent(dev, size, p, a);
	EXPECT(!coherent(a) && !coherent(a + 2 * PAGE_SIZE));

	p = dma_alloc_attrs(dev, size, &a, GFP_KERNEL,
			    DMA_ATTR_NO_KERNEL_MAPPING);
	EXPECT(p && coherent(a));
	dma_free_attrs(dev, size, p, a, DMA_ATTR_NO_KERNEL_MAPPING);
	EXPECT(!coherent(a));
}

/* Frees nothing, and so must not touch the owner's pin. */
static void test_free_of_nothing(void)
{
	dma_addr_t a;
	void *p = dma_alloc_coherent(dev, PAGE_SIZE, &a, GFP_KERNEL);

	EXPECT(p && coherent(a));
	dma_free_coherent(dev, PAGE_SIZE, NULL, a);
	EXPECT(coherent(a));
	dma_free_coherent(dev, PAGE_SIZE, p, a);
	EXPECT(!coherent(a));
}

static void test_pool(void)
{
	struct dma_pool *pool = dma_pool_create("test", dev, 256, 256, 0);
	dma_addr_t a, b;
	void *p, *q;

	if (!pool) {
		EXPECT(!"memory");
		return;
	}
	p = dma_pool_alloc(pool, GFP_KERNEL, &a);
	q = dma_pool_alloc(pool, GFP_KERNEL, &b);
	EXPECT(p && q && coherent(a) && coherent(b));
	dma_pool_free(pool, p, a);
	EXPECT(coherent(b));
	dma_pool_free(pool, q, b);
	dma_pool_destroy(pool);
	EXPECT(!coherent(a) && !coherent(b));
}

/* Freed by hand, and with all else that is managed. */
static void test_managed(void)
{
	dma_addr_t a, b;
	void *group, *p;

	group = devres_open_group(dev, NULL, GFP_KERNEL);
	EXPECT(group);
	p = dmam_alloc_coherent(dev, PAGE_SIZE, &a, GFP_KERNEL);
	EXPECT(p && coherent(a));
	EXPECT(dmam_alloc_attrs(dev, 2 * PAGE_SIZE, &b, GFP_KERNEL, 0) &&
	       coherent(b) && coherent(b + PAGE_SIZE));
	dmam_free_coherent(dev, PAGE_SIZE, p, a);
	EXPECT(!coherent(a) && coherent(b));
	devres_release_group(dev, group);
	EXPECT(!coherent(b) && !coherent(b + PAGE_SIZE));
}

static void test_alloc_pages(void)
{
	struct page *page;
	dma_addr_t a;

	page = dma_alloc_pages(dev, 2 * PAGE_SIZE, &a, DMA_FROM_DEVICE,
			       GFP_KERNEL);
	EXPECT(page && coherent(a) && coherent(a + PAGE_SIZE));
	dma_free_pages(dev, 2 * PAGE_SIZE, page, a, DMA_FROM_DEVICE);
	EXPECT(!coherent(a) && !coherent(a + PAGE_SIZE));

	page = dma_alloc_pages(dev, PAGE_SIZE, &a, DMA_TO_DEVICE, GFP_KERNEL);
	EXPECT(page && !coherent(a));
	dma_free_pages(dev, PAGE_SIZE, page, a, DMA_TO_DEVICE);
}

static void test_noncontiguous(void)
{
	struct sg_table *sgt;
	dma_addr_t a;

	sgt = dma_alloc_noncontiguous(dev, 2 * PAGE_SIZE, DMA_BIDIRECTIONAL,
				      GFP_KERNEL, 0);
	if (!sgt) {
		EXPECT(!"memory");
		return;
	}
	a = sg_dma_address(sgt->sgl);
	EXPECT(coherent(a) && coherent(a + PAGE_SIZE));
	dma_free_noncontiguous(dev, 2 * PAGE_SIZE, sgt, DMA_BIDIRECTIONAL);
	EXPECT(!coherent(a) && !coherent(a + PAGE_SIZE));
}

static void test_same_frame_in_both_planes(void)
{
	dma_addr_t a, b;
	struct page *page;

	page = dma_alloc_pages(dev, PAGE_SIZE, &a, DMA_FROM_DEVICE, GFP_KERNEL);
	if (!page) {
		EXPECT(!"memory");
		return;
	}
	b = map(page, 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(coherent(a) && streaming(b));
	dma_unmap_page(dev, b, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(coherent(a) && !streaming(b));
	dma_free_pages(dev, PAGE_SIZE, page, a, DMA_FROM_DEVICE);
	EXPECT(!coherent(a));
}

static void test_dirtying(void)
{
	u64 before = dirtied();
	dma_addr_t a, b;
	void *p;

	a = map(run, 0, 2 * PAGE_SIZE, DMA_FROM_DEVICE);
	b = map(run, 0, 100, DMA_FROM_DEVICE);
	p = dma_alloc_coherent(dev, PAGE_SIZE, &b, GFP_KERNEL);
	EXPECT(p);
	EXPECT(dma_track_test_set_logging(true) == 0);

	dma_unmap_page(dev, a, 2 * PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 1 && count(a) == 1);
	dma_unmap_page(dev, a, 100, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 2 && count(a) == 0);
	dma_free_coherent(dev, PAGE_SIZE, p, b);
	EXPECT(dirtied() == before + 3);

	EXPECT(dma_track_test_set_logging(false) == 0);
	a = map(run, 0, 2 * PAGE_SIZE, DMA_FROM_DEVICE);
	dma_unmap_page(dev, a, 2 * PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 3);
	EXPECT(counts().table.undirtied == 0);
}

/* Dirtying must not change a byte. */
static void test_dirtying_changes_nothing(void)
{
	u8 *bytes = page_address(pages[0]);
	dma_addr_t a;
	int i;

	for (i = 0; i < PAGE_SIZE; i++)
		bytes[i] = i * 7 + 3;
	EXPECT(dma_track_test_set_logging(true) == 0);
	a = map(pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(dma_track_test_set_logging(false) == 0);
	for (i = 0; i < PAGE_SIZE; i++)
		if (bytes[i] != (u8)(i * 7 + 3))
			break;
	EXPECT(i == PAGE_SIZE);
}

static void test_sync(void)
{
	struct scatterlist sgl[NR_PAGES];
	u64 before = dirtied();
	dma_addr_t a;

	/* As the module does it for a device that is being bound. */
	EXPECT(dma_track_test_set_logging(true) == 0);
	EXPECT(dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64)) == 0);
	EXPECT(dma_dev_need_sync(dev));

	a = map(run, 100, PAGE_SIZE, DMA_FROM_DEVICE);
	dma_sync_single_for_cpu(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 2 && streaming(a));
	dma_sync_single_range_for_cpu(dev, a, 8, 64, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 3);
	dma_sync_single_for_device(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	dma_sync_single_for_cpu(dev, a, PAGE_SIZE, DMA_TO_DEVICE);
	EXPECT(dirtied() == before + 3);

	EXPECT(dma_track_test_set_logging(false) == 0);
	dma_sync_single_for_cpu(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 3);
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);

	init_sg(sgl);
	EXPECT(dma_map_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE) == NR_PAGES);
	EXPECT(dma_track_test_set_logging(true) == 0);
	dma_sync_sg_for_cpu(dev, sgl, NR_PAGES, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 3 + NR_PAGES);
	EXPECT(dma_track_test_set_logging(false) == 0);
	dma_unmap_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE);

	/* Without a host that wants it, syncs are skipped as ever. */
	EXPECT(dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64)) == 0);
	EXPECT(dma_dev_need_sync(dev) == (DMA_TRACK_UNMAPS_ARE_SKIPPED ||
					  !DMA_TRACK_SYNCS_ARE_SKIPPED));
}

/* The device writes the bounce buffer, so that one is pinned. */
static void test_bounce(void)
{
	dma_addr_t direct = phys_to_dma(dev, page_to_phys(pages[3]));
	u64 before = dirtied();
	dma_addr_t a;

	a = map(pages[3], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(a != direct);
	EXPECT(streaming(a) && count(a) == 1);
	EXPECT(!streaming(direct) && count(direct) == 0);
	EXPECT(dma_track_test_set_logging(true) == 0);
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(dma_track_test_set_logging(false) == 0);
	EXPECT(!streaming(a) && count(a) == 0);
	EXPECT(dirtied() == before + 1);
}

static void test_bounced_sg(void)
{
	struct scatterlist sgl[NR_PAGES], *sg;
	dma_addr_t addrs[NR_PAGES];
	int i, pinned = 0;

	init_sg(sgl);
	EXPECT(dma_map_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE) == NR_PAGES);
	EXPECT(nr_streaming(sgl) == 0);
	for_each_sg(sgl, sg, NR_PAGES, i) {
		addrs[i] = sg_dma_address(sg);
		pinned += streaming(addrs[i]);
	}
	EXPECT(pinned == NR_PAGES);
	dma_unmap_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE);
	for (i = 0; i < NR_PAGES; i++)
		pinned -= !streaming(addrs[i]);
	EXPECT(pinned == 0);
}

/*
 * An unmap that is not known ends no other mapping's pin: whole pages, which is
 * what a page pool may unmap after its driver is gone, share no frame with
 * others, while parts of pages do.
 */
static void test_bounced_frames(void)
{
	dma_addr_t half[4], whole;
	int i, shared = 0;

	half[0] = map(pages[0], 0, 512, DMA_FROM_DEVICE);
	whole = map(pages[1], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	for (i = 1; i < 4; i++)
		half[i] = map(pages[0], 0, 512, DMA_FROM_DEVICE);
	EXPECT(offset_in_page(whole) == 0 && count(whole) == 1);
	for (i = 0; i < 4; i++)
		shared += count(half[i]) > 1;
	EXPECT(shared > 0);
	dma_unmap_page(dev, whole, PAGE_SIZE, DMA_FROM_DEVICE);
	for (i = 0; i < 4; i++)
		EXPECT(streaming(half[i]));
	for (i = 0; i < 4; i++)
		dma_unmap_page(dev, half[i], 512, DMA_FROM_DEVICE);
}

static void test_unknown_unmap(void)
{
	u64 before = counts().table.unknown_unmaps;
	dma_addr_t a;

	/* Mapped while nobody counted. */
	dma_track_test_remove_device(dev);
	a = map(pages[1], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!streaming(a));
	EXPECT(dma_track_test_add_device(dev) == 0);
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(counts().table.unknown_unmaps == before + 1);
	EXPECT(!streaming(a) && count(a) == 0);
}

/* 300 mappings of one frame overflow its count: pinned for ever. */
static void test_saturation(void)
{
	u64 before = counts().table.saturated;
	dma_addr_t a = 0;
	int i;

	/* The page is not given back, since it stays pinned. */
	for (i = 0; i < 300; i++)
		a = map(pages[2], 0, 64, DMA_FROM_DEVICE);
	EXPECT(counts().table.saturated == before + 1);
	for (i = 0; i < 300; i++)
		dma_unmap_page(dev, a, 64, DMA_FROM_DEVICE);
	EXPECT(streaming(a) && count(a) == DMA_TRACK_STICKY);
	pages[2] = NULL;
}

/* A device below ours counts as ours; one beside does not. */
static void test_other_devices(void)
{
	struct device *beside;
	u64 mask = DMA_BIT_MASK(64);
	dma_addr_t a;

	beside = root_device_register("dma-track-test-beside");
	if (IS_ERR(beside)) {
		EXPECT(!"memory");
		return;
	}

	beside->dma_mask = &mask;
	a = dma_map_page(beside, pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!dma_mapping_error(beside, a) && !streaming(a));
	dma_unmap_page(beside, a, PAGE_SIZE, DMA_FROM_DEVICE);

	/* Moved below ours. */
	EXPECT(device_move(beside, dev, DPM_ORDER_NONE) == 0);
	a = dma_map_page(beside, pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!dma_mapping_error(beside, a) && streaming(a));
	dma_unmap_page(beside, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!streaming(a));
	root_device_unregister(beside);
}

static void test_interrupts_off(void)
{
	unsigned long flags;
	dma_addr_t a;

	local_irq_save(flags);
	a = map(pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(streaming(a) && irqs_disabled());
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!streaming(a) && irqs_disabled());
	local_irq_restore(flags);
}

/* --- Many threads ---------------------------------------------------------- */

#define NR_THREADS	3
#define NR_ROUNDS	2000

static struct completion thread_done[NR_THREADS];
static atomic_t nr_unpinned;

static int thread_fn(void *arg)
{
	long thread = (long)arg;
	int i;

	for (i = 0; i < NR_ROUNDS; i++) {
		dma_addr_t a, b;
		void *p;

		/* All threads in one page, and across its neighbours. */
		a = dma_map_page(dev, run, thread * 1024, 1024,
				 DMA_FROM_DEVICE);
		b = dma_map_page(dev, run, (i % 4) * 1024, 2 * PAGE_SIZE,
				 DMA_BIDIRECTIONAL);
		if (!streaming(a) || !streaming(b + PAGE_SIZE))
			atomic_inc(&nr_unpinned);
		dma_unmap_page(dev, a, 1024, DMA_FROM_DEVICE);
		if (!streaming(b))
			atomic_inc(&nr_unpinned);
		dma_unmap_page(dev, b, 2 * PAGE_SIZE, DMA_BIDIRECTIONAL);

		p = dma_alloc_coherent(dev, PAGE_SIZE, &a, GFP_KERNEL);
		if (!p || !coherent(a))
			atomic_inc(&nr_unpinned);
		dma_free_coherent(dev, PAGE_SIZE, p, a);
		cond_resched();
	}
	complete(&thread_done[thread]);
	return 0;
}

static void test_threads(void)
{
	dma_addr_t a = phys_to_dma(dev, page_to_phys(run));
	u64 before = counts().maps;
	long i;

	for (i = 0; i < NR_THREADS; i++) {
		struct task_struct *task;

		init_completion(&thread_done[i]);
		task = kthread_run(thread_fn, (void *)i, "dma_track_test");
		if (IS_ERR(task)) {
			EXPECT(!"a thread");
			complete(&thread_done[i]);
		}
	}
	for (i = 0; i < NR_THREADS; i++)
		EXPECT(wait_for_completion_timeout(&thread_done[i], 300 * HZ));
	EXPECT(atomic_read(&nr_unpinned) == 0);
	EXPECT(counts().maps == before + 3 * NR_THREADS * NR_ROUNDS);
	EXPECT(count(a) == 0 && count(a + PAGE_SIZE) == 0 && !streaming(a));
}

static void test_nothing_lost(void)
{
	EXPECT(counts().lost == 0);
	EXPECT(dma_track_test_hooks_intact());
}

/* --- All of them ------------------------------------------------------------ */

/* Devices see the caller's pages. */
#define DIRECT	1
/* Devices see bounce buffers: the guest was booted with swiotlb=force. */
#define BOUNCED	2

static const struct {
	void (*run)(void);
	int when;
	const char *what;
} tests[] = {
	{ test_page, DIRECT | BOUNCED,
	  "a page is pinned while mapped, and not dirtied" },
	{ test_directions, DIRECT | BOUNCED,
	  "only what the device writes is pinned" },
	{ test_attributes, DIRECT | BOUNCED,
	  "attributes change nothing" },
	{ test_parts_of_pages, DIRECT,
	  "every page touched is pinned, and counted" },
	{ test_single, DIRECT | BOUNCED,
	  "dma_map_single" },
	{ test_large, DIRECT | BOUNCED,
	  "a mapping of many pages" },
	{ test_failed_map, BOUNCED,
	  "a failed map pins nothing" },
	{ test_sg, DIRECT,
	  "dma_map_sg" },
	{ test_sgtable, DIRECT,
	  "dma_map_sgtable" },
	{ test_alloc, DIRECT | BOUNCED,
	  "dma_alloc_attrs pins whole pages" },
	{ test_free_of_nothing, DIRECT | BOUNCED,
	  "dma_free_attrs of nothing unpins nothing" },
	{ test_pool, DIRECT | BOUNCED,
	  "dma_pool" },
	{ test_managed, DIRECT | BOUNCED,
	  "dmam_alloc_coherent, freed by hand or with its driver" },
	{ test_alloc_pages, DIRECT | BOUNCED,
	  "dma_alloc_pages" },
	{ test_noncontiguous, DIRECT | BOUNCED,
	  "dma_alloc_noncontiguous" },
	{ test_same_frame_in_both_planes, DIRECT,
	  "a frame in both planes" },
	{ test_dirtying, DIRECT,
	  "the last unmap dirties while the host logs" },
	{ test_dirtying_changes_nothing, DIRECT,
	  "dirtying changes no byte" },
	{ test_sync, DIRECT,
	  "dma_sync_*_for_cpu dirties while the host logs" },
	{ test_bounce, BOUNCED,
	  "the bounce buffer is pinned, not the caller's page" },
	{ test_bounced_sg, BOUNCED,
	  "the bounce buffers of a list are pinned" },
	{ test_bounced_frames, BOUNCED,
	  "the bounce buffer of a whole page shares no frame" },
	{ test_unknown_unmap, DIRECT | BOUNCED,
	  "an unknown unmap is counted and does no harm" },
	{ test_saturation, DIRECT,
	  "an overflowing count pins for ever" },
	{ test_other_devices, DIRECT,
	  "devices below count, others do not" },
	{ test_interrupts_off, DIRECT | BOUNCED,
	  "with interrupts off" },
	{ test_threads, DIRECT,
	  "many threads on the same frames" },
	{ test_nothing_lost, DIRECT | BOUNCED,
	  "nothing was lost, the hooks are intact" },
};

static void run_tests(void)
{
	int mode = is_swiotlb_force_bounce(dev) ? BOUNCED : DIRECT;
	int i;

	pr_tap("TAP version 13\n");
	pr_tap("# %s\n", mode == BOUNCED ? "bounced" : "direct");
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		if (!(tests[i].when & mode))
			continue;
		good = true;
		tests[i].run();
		nr_tests++;
		nr_failed += !good;
		pr_tap("%sok %d - %s\n", good ? "" : "not ", nr_tests,
		       tests[i].what);
	}
	pr_tap("1..%d\n", nr_tests);
}

/* --- A tool ---------------------------------------------------------------- */

static int set_replace(const char *text, const struct kernel_param *param)
{
	unsigned int segment, bus, slot, function;
	struct pci_dev *pdev;
	int rc;

	if (sscanf(text, "%x:%x:%x.%x", &segment, &bus, &slot, &function) != 4)
		return -EINVAL;

	pdev = pci_get_domain_bus_and_slot(segment, bus,
					   PCI_DEVFN(slot, function));
	if (!pdev)
		return -ENODEV;
	rc = dma_track_test_replace(pdev);
	pci_dev_put(pdev);
	return rc;
}

static int set_unfence(const char *text, const struct kernel_param *param)
{
	int answer, rc;

	rc = kstrtoint(text, 0, &answer);
	if (!rc)
		dma_track_test_pretend_unfence(answer);
	return rc;
}

static const struct kernel_param_ops replace_ops = { .set = set_replace };
static const struct kernel_param_ops unfence_ops = { .set = set_unfence };
static bool run_wanted = true;

module_param_cb(replace, &replace_ops, NULL, 0200);
module_param_cb(unfence, &unfence_ops, NULL, 0200);
module_param_named(run, run_wanted, bool, 0400);

static int failing_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	dma_addr_t a;

	if (!dmam_alloc_coherent(&pdev->dev, PAGE_SIZE, &a, GFP_KERNEL))
		return -ENOMEM;
	pr_tap("# managed memory is %spinned\n", coherent(a) ? "" : "not ");
	return -EIO;
}

static struct pci_driver failing_driver = {
	.name = "dma_track_failing",
	.probe = failing_probe,
};

static int witness_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	pr_tap("# witness: probed\n");
	return pci_enable_device(pdev);
}

static void witness_remove(struct pci_dev *pdev)
{
	pr_tap("# witness: removed from a function that is %s\n",
	       pci_device_is_present(pdev) ? "there" : "gone");
	pci_disable_device(pdev);
}

static pci_ers_result_t witness_error_detected(struct pci_dev *pdev,
					       pci_channel_state_t state)
{
	pr_tap("# witness: stopped\n");
	pci_disable_device(pdev);
	return PCI_ERS_RESULT_NEED_RESET;
}

static pci_ers_result_t witness_slot_reset(struct pci_dev *pdev)
{
	pr_tap("# witness: started\n");
	return pci_enable_device(pdev) ? PCI_ERS_RESULT_DISCONNECT :
					 PCI_ERS_RESULT_RECOVERED;
}

static const struct pci_error_handlers witness_handlers = {
	.error_detected = witness_error_detected,
	.slot_reset = witness_slot_reset,
};

static struct pci_driver witness_driver = {
	.name = "dma_track_witness",
	.probe = witness_probe,
	.remove = witness_remove,
	.err_handler = &witness_handlers,
};

/* --- Coming and going ------------------------------------------------------- */

static void free_memory(void)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		if (pages[i])
			__free_page(pages[i]);
	if (run)
		__free_pages(run, get_order(NR_PAGES * PAGE_SIZE));
}

static int __init test_init(void)
{
	int i, rc = -ENOMEM;

	run = alloc_pages(GFP_KERNEL, get_order(NR_PAGES * PAGE_SIZE));
	for (i = 0; i < NR_PAGES; i++)
		pages[i] = alloc_page(GFP_KERNEL);
	for (i = 0; i < NR_PAGES; i++)
		if (!run || !pages[i])
			goto out_free;

	dev = root_device_register("dma-track-test");
	if (IS_ERR(dev)) {
		rc = PTR_ERR(dev);
		goto out_free;
	}
	dev->dma_mask = &dev->coherent_dma_mask;
	rc = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (rc)
		goto out_unregister;
	rc = pci_register_driver(&failing_driver);
	if (rc)
		goto out_unregister;
	rc = pci_register_driver(&witness_driver);
	if (rc)
		goto out_unregister_failing;
	rc = dma_track_test_add_device(dev);
	if (rc)
		goto out_unregister_witness;

	if (run_wanted)
		run_tests();
	return 0;

out_unregister_witness:
	pci_unregister_driver(&witness_driver);
out_unregister_failing:
	pci_unregister_driver(&failing_driver);
out_unregister:
	root_device_unregister(dev);
out_free:
	free_memory();
	return rc;
}
module_init(test_init);

static void __exit test_exit(void)
{
	dma_track_test_pretend_unfence(0);
	dma_track_test_remove_device(dev);
	pci_unregister_driver(&witness_driver);
	pci_unregister_driver(&failing_driver);
	root_device_unregister(dev);
	free_memory();
}
module_exit(test_exit);

MODULE_DESCRIPTION("A pretend device that tests dma_track");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(DMA_TRACK_TEST_NS);

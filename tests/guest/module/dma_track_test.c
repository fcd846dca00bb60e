// SPDX-License-Identifier: GPL-2.0-only
/*
 * A pretend device that maps on command
 *
 * Drives every hooked function of the DMA API as drivers do, on a device that
 * does no DMA, and looks at the table of dma_track after each step. The device
 * is the PCI function that is bound to the driver dma_track_pretend, by
 * driver_override, or else one of the module's own, without an IOMMU. The tests
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
 *	recovery	write a function's address and what its driver is to
 *			offer for a restore: all that it has, reset (not the
 *			recovery from errors), or none
 *	publish		the same as unfence for its answer to memory that is
 *			added
 *	frame		write an address of memory: its page is mapped and unmapped,
 *			and the log says how the table took it
 *	leak		write anything: memory is lost for ever
 *	race		write a number: two threads count so far in one variable,
 *			and do not agree on how
 *
 *	pairs		write a number: map and unmap a page, a list and
 *			coherent memory so often
 *	behind		write a function's address and a way: map for it behind
 *			the DMA API, and undo it
 *
 * Three more PCI drivers are bound by driver_override only: dma_track_failing,
 * whose probe fails after a managed allocation; dma_track_witness, which says in
 * the log what is asked of it; and dma_track_lending, which manages DMA itself.
 */
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/iommu.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sizes.h>
#include <linux/swiotlb.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "inspect.h"

#define pr_tap(fmt, ...) pr_info("dma_track_test: " fmt, ##__VA_ARGS__)

static struct device *dev;
/* The same, if it is a function of PCI. */
static struct pci_dev *function;
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

/* What an address meant when it still meant something. */
static struct {
	dma_addr_t addr;
	phys_addr_t phys;
} memory[64];
static DEFINE_SPINLOCK(memory_lock);

/* Behind an IOMMU an address that is unmapped cannot be translated any more. */
static phys_addr_t remember(dma_addr_t addr, phys_addr_t phys)
{
	static unsigned int next;
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&memory_lock, flags);
	for (i = 0; i < ARRAY_SIZE(memory); i++)
		if (memory[i].addr == (addr & PAGE_MASK))
			break;
	if (!phys) {
		EXPECT(i < ARRAY_SIZE(memory));
		phys = i < ARRAY_SIZE(memory) ? memory[i].phys : 0;
	} else {
		if (i == ARRAY_SIZE(memory))
			i = next++ % ARRAY_SIZE(memory);
		memory[i].addr = addr & PAGE_MASK;
		memory[i].phys = phys;
	}
	spin_unlock_irqrestore(&memory_lock, flags);
	return phys;
}

static phys_addr_t phys_of(dma_addr_t addr)
{
	struct iommu_domain *domain;

	if (!use_dma_iommu(dev))
		return dma_to_phys(dev, addr);

	domain = iommu_get_domain_for_dev(dev);
	return remember(addr, iommu_iova_to_phys(domain, addr & PAGE_MASK));
}

static struct dma_track_frame frame_of(phys_addr_t phys)
{
	struct dma_track_frame frame = { .count = 0xee };

	EXPECT(dma_track_test_read_frame(PHYS_PFN(phys), &frame));
	return frame;
}

/* Where the device was given an address. */
static bool streaming(dma_addr_t addr)
{
	return frame_of(phys_of(addr)).streaming;
}

static bool coherent(dma_addr_t addr)
{
	return frame_of(phys_of(addr)).coherent;
}

static u8 count(dma_addr_t addr)
{
	return frame_of(phys_of(addr)).count;
}

/* Where the device sees the pages themselves. */
static bool page_streaming(struct page *page)
{
	return frame_of(page_to_phys(page)).streaming;
}

static bool page_coherent(struct page *page)
{
	return frame_of(page_to_phys(page)).coherent;
}

static u8 pins_of(struct page *page)
{
	return frame_of(page_to_phys(page)).count;
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
	EXPECT(page_streaming(run) && !page_streaming(run + 1));
	dma_unmap_page(dev, a, 1, DMA_FROM_DEVICE);

	/* Two bytes across a border. */
	a = map(run, PAGE_SIZE - 1, 2, DMA_FROM_DEVICE);
	EXPECT(page_streaming(run) && page_streaming(run + 1));
	dma_unmap_page(dev, a, 2, DMA_FROM_DEVICE);
	EXPECT(!page_streaming(run) && !page_streaming(run + 1));

	/* All but the outermost bytes of three pages. */
	a = map(run, 1, 3 * PAGE_SIZE - 2, DMA_FROM_DEVICE);
	EXPECT(page_streaming(run) && page_streaming(run + 1));
	EXPECT(page_streaming(run + 2) && !page_streaming(run + 3));
	dma_unmap_page(dev, a, 3 * PAGE_SIZE - 2, DMA_FROM_DEVICE);

	/* Two buffers in a page, as network drivers have it; and a third. */
	a = map(run, 0, 2048, DMA_FROM_DEVICE);
	b = map(run, 2048, 2048, DMA_FROM_DEVICE);
	c = map(run, 64, 64, DMA_BIDIRECTIONAL);
	EXPECT(pins_of(run) == 3);
	dma_unmap_page(dev, a, 2048, DMA_FROM_DEVICE);
	dma_unmap_page(dev, c, 64, DMA_BIDIRECTIONAL);
	EXPECT(pins_of(run) == 1 && page_streaming(run));
	dma_unmap_page(dev, b, 2048, DMA_FROM_DEVICE);
	EXPECT(pins_of(run) == 0 && !page_streaming(run));
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

/*
 * More than a bounce buffer holds, or than there are I/O addresses for, is
 * refused.
 */
static void test_failed_map(void)
{
	struct dma_track_test_counts before = counts();
	const size_t size = SZ_4M;
	struct scatterlist sgl[2];
	struct page *large;
	dma_addr_t a;

	large = alloc_pages(GFP_KERNEL, get_order(size));
	if (!large) {
		EXPECT(!"memory");
		return;
	}
	EXPECT(!dma_set_mask(dev, DMA_BIT_MASK(use_dma_iommu(dev) ? 21 : 64)));

	a = dma_map_page(dev, large, 0, size, DMA_FROM_DEVICE);
	EXPECT(dma_mapping_error(dev, a));

	/* The first entry by itself would do. */
	sg_init_table(sgl, 2);
	sg_set_page(&sgl[0], pages[0], PAGE_SIZE, 0);
	sg_set_page(&sgl[1], large, size, 0);
	EXPECT(!dma_map_sg(dev, sgl, 2, DMA_FROM_DEVICE));

	EXPECT(counts().maps == before.maps && counts().lost == before.lost);
	EXPECT(!page_streaming(large) && !page_streaming(pages[0]));
	EXPECT(!dma_set_mask(dev, DMA_BIT_MASK(64)));
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
		nr += page_streaming(sg_page(sg));
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

/* Behind an IOMMU, what is scattered becomes one range of addresses. */
static void test_merged_sg(void)
{
	struct scatterlist sgl[NR_PAGES];
	int i, mapped;

	init_sg(sgl);
	for (i = 0; i < NR_PAGES; i++)
		sg_set_page(&sgl[i], pages[NR_PAGES - 1 - i], PAGE_SIZE, 0);
	mapped = dma_map_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE);
	EXPECT(mapped == 1 && sg_dma_len(sgl) == NR_PAGES * PAGE_SIZE);
	EXPECT(nr_streaming(sgl) == NR_PAGES);
	for (i = 0; i < NR_PAGES; i++)
		EXPECT(pins_of(pages[i]) == 1);
	dma_unmap_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE);
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

#define NR_SCATTERED	32

/* So that the next pages to be had, one by one, are no neighbours. */
static void scatter_free_pages(void)
{
	struct page *taken[2 * NR_SCATTERED];
	int i;

	for (i = 0; i < ARRAY_SIZE(taken); i++)
		taken[i] = alloc_page(GFP_KERNEL);
	for (i = 0; i < ARRAY_SIZE(taken); i++)
		if (taken[i] && i % 2 == 0)
			__free_page(taken[i]);
	for (i = 1; i < ARRAY_SIZE(taken); i += 2)
		if (taken[i])
			__free_page(taken[i]);
}

static void test_scattered(void)
{
	const size_t size = NR_SCATTERED * PAGE_SIZE;
	struct page *owned[NR_SCATTERED];
	int i, jumps = 0, pinned = 0;
	dma_addr_t a;
	void *p;

	scatter_free_pages();
	p = dma_alloc_attrs(dev, size, &a, GFP_KERNEL,
			    DMA_ATTR_ALLOC_SINGLE_PAGES);
	if (!p) {
		EXPECT(!"memory");
		return;
	}
	for (i = 0; i < NR_SCATTERED; i++) {
		owned[i] = vmalloc_to_page(p + i * PAGE_SIZE);
		jumps += i && owned[i] != owned[i - 1] + 1;
		pinned += page_coherent(owned[i]);
	}
	EXPECT(jumps > 0 && pinned == NR_SCATTERED);
	dma_free_attrs(dev, size, p, a, DMA_ATTR_ALLOC_SINGLE_PAGES);
	for (i = 0; i < NR_SCATTERED; i++)
		pinned -= !page_coherent(owned[i]);
	EXPECT(pinned == 0);
}

static void test_scattered_noncontiguous(void)
{
	const size_t size = NR_SCATTERED * PAGE_SIZE;
	struct page *owned[NR_SCATTERED];
	int nr = 0, jumps = 0, pinned = 0;
	struct sg_page_iter iter;
	struct sg_table *sgt;

	scatter_free_pages();
	sgt = dma_alloc_noncontiguous(dev, size, DMA_FROM_DEVICE, GFP_KERNEL,
				      DMA_ATTR_ALLOC_SINGLE_PAGES);
	if (!sgt) {
		EXPECT(!"memory");
		return;
	}
	for_each_sgtable_page(sgt, &iter, 0) {
		owned[nr] = sg_page_iter_page(&iter);
		jumps += nr && owned[nr] != owned[nr - 1] + 1;
		pinned += page_coherent(owned[nr]);
		nr++;
	}
	EXPECT(nr == NR_SCATTERED && jumps > 0 && pinned == nr);
	dma_free_noncontiguous(dev, size, sgt, DMA_FROM_DEVICE);
	while (nr--)
		pinned -= !page_coherent(owned[nr]);
	EXPECT(pinned == 0);
}

/* A range of I/O addresses, laid out piece by piece. */
#ifdef DMA_TRACK_IOVA
static void test_iova(void)
{
	const enum dma_data_direction dir = DMA_FROM_DEVICE;
	struct dma_iova_state state = {};
	u64 before = dirtied();
	int i;

	EXPECT(dma_iova_try_alloc(dev, &state, 0, 4 * PAGE_SIZE));
	for (i = 0; i < 4; i++)
		EXPECT(!dma_iova_link(dev, &state, page_to_phys(pages[3 - i]),
				      i * PAGE_SIZE, PAGE_SIZE, dir, 0));
	EXPECT(!dma_iova_sync(dev, &state, 0, 4 * PAGE_SIZE));
	for (i = 0; i < 4; i++)
		EXPECT(pins_of(pages[i]) == 1 && page_streaming(pages[i]));
	dma_iova_unlink(dev, &state, PAGE_SIZE, 2 * PAGE_SIZE, dir, 0);
	EXPECT(page_streaming(pages[3]) && !page_streaming(pages[2]));
	EXPECT(!page_streaming(pages[1]) && page_streaming(pages[0]));
	dma_iova_unlink(dev, &state, 0, PAGE_SIZE, dir, 0);
	dma_iova_unlink(dev, &state, 3 * PAGE_SIZE, PAGE_SIZE, dir, 0);
	EXPECT(!page_streaming(pages[3]) && !page_streaming(pages[0]));
	dma_iova_free(dev, &state);

	/* All at once, while the host logs. */
	EXPECT(dma_iova_try_alloc(dev, &state, 0, 2 * PAGE_SIZE));
	for (i = 0; i < 2; i++)
		EXPECT(!dma_iova_link(dev, &state, page_to_phys(pages[i]),
				      i * PAGE_SIZE, PAGE_SIZE, dir, 0));
	EXPECT(page_streaming(pages[0]) && page_streaming(pages[1]));
	EXPECT(dma_track_test_set_logging(true) == 0);
	dma_iova_destroy(dev, &state, 2 * PAGE_SIZE, dir, 0);
	EXPECT(dma_track_test_set_logging(false) == 0);
	EXPECT(!page_streaming(pages[0]) && !page_streaming(pages[1]));
	EXPECT(dirtied() == before + 2);
}
#endif

/* --- What is no memory ----------------------------------------------------- */

/* A register of nobody's, where the function has none. */
#define NO_MEMORY	0xfed40000

static void test_mmio(void)
{
	struct dma_track_test_counts before = counts();
	phys_addr_t phys = function ? pci_resource_start(function, 0) :
				      NO_MEMORY;
	dma_addr_t a;

	a = dma_map_resource(dev, phys, PAGE_SIZE, DMA_BIDIRECTIONAL, 0);
	EXPECT(!dma_mapping_error(dev, a));
	EXPECT(counts().maps == before.maps && counts().lost == before.lost);
	dma_unmap_resource(dev, a, PAGE_SIZE, DMA_BIDIRECTIONAL, 0);
	EXPECT(counts().unmaps == before.unmaps && counts().lost == before.lost);
}

/* A peer's memory that has pages, beside memory of ours. */
#ifdef CONFIG_PCI_P2PDMA
#define P2P_BAR		2

static void test_peer(void)
{
	u64 lost = counts().lost, before = counts().table.unknown_unmaps;
	struct scatterlist sgl[2];
	void *peer;

	/* With its own memory it is on the shortest of terms. */
	EXPECT(!pci_p2pdma_add_resource(function, P2P_BAR, 0, 0));
	peer = pci_alloc_p2pmem(function, PAGE_SIZE);
	if (!peer) {
		EXPECT(!"memory of a peer");
		return;
	}
	sg_init_table(sgl, 2);
	sg_set_page(&sgl[0], virt_to_page(peer), PAGE_SIZE, 0);
	sg_set_page(&sgl[1], pages[0], PAGE_SIZE, 0);
	EXPECT(is_pci_p2pdma_page(sg_page(&sgl[0])));
	EXPECT(dma_map_sg(dev, sgl, 2, DMA_BIDIRECTIONAL) == 2);
	EXPECT(sg_dma_is_bus_address(&sgl[0]));
	EXPECT(page_streaming(pages[0]) && counts().lost == lost);
	dma_unmap_sg(dev, sgl, 2, DMA_BIDIRECTIONAL);
	EXPECT(!page_streaming(pages[0]) && counts().lost == lost);
	EXPECT(counts().table.unknown_unmaps == before);
	pci_free_p2pmem(function, peer, PAGE_SIZE);
}
#endif

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
	dma_addr_t a, b, c;
	void *p;

	a = map(run, 0, 2 * PAGE_SIZE, DMA_FROM_DEVICE);
	b = map(run, 0, 100, DMA_FROM_DEVICE);
	p = dma_alloc_coherent(dev, PAGE_SIZE, &c, GFP_KERNEL);
	EXPECT(p);
	EXPECT(dma_track_test_set_logging(true) == 0);

	dma_unmap_page(dev, a, 2 * PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 1 && pins_of(run) == 1);
	dma_unmap_page(dev, b, 100, DMA_FROM_DEVICE);
	EXPECT(dirtied() == before + 2 && pins_of(run) == 0);
	dma_free_coherent(dev, PAGE_SIZE, p, c);
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
	EXPECT(dma_dev_need_sync(dev) == (IS_ENABLED(CONFIG_DMA_API_DEBUG) ||
					  DMA_TRACK_UNMAPS_ARE_SKIPPED ||
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
	static dma_addr_t addrs[300];
	int i;

	/* The page is not given back, since it stays pinned. */
	for (i = 0; i < ARRAY_SIZE(addrs); i++)
		addrs[i] = map(pages[2], 0, 64, DMA_FROM_DEVICE);
	EXPECT(counts().table.saturated == before + 1);
	for (i = 0; i < ARRAY_SIZE(addrs); i++)
		dma_unmap_page(dev, addrs[i], 64, DMA_FROM_DEVICE);
	EXPECT(page_streaming(pages[2]));
	EXPECT(pins_of(pages[2]) == DMA_TRACK_STICKY);
	pages[2] = NULL;
}

/* A device below ours counts as ours; one beside does not, unless told to. */
static void test_other_devices(void)
{
	struct device *beside;
	u64 mask = DMA_BIT_MASK(64);
	dma_addr_t a, b;

	beside = root_device_register("dma-track-test-beside");
	if (IS_ERR(beside)) {
		EXPECT(!"memory");
		return;
	}

	beside->dma_mask = &mask;
	a = dma_map_page(beside, pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!dma_mapping_error(beside, a) && !page_streaming(pages[0]));
	dma_unmap_page(beside, a, PAGE_SIZE, DMA_FROM_DEVICE);

	/* Two devices on one page. */
	EXPECT(dma_track_test_add_device(beside) == 0);
	a = dma_map_page(beside, pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	b = map(pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!dma_mapping_error(beside, a) && pins_of(pages[0]) == 2);
	dma_unmap_page(beside, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(pins_of(pages[0]) == 1 && page_streaming(pages[0]));
	dma_unmap_page(dev, b, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(pins_of(pages[0]) == 0 && !page_streaming(pages[0]));
	dma_track_test_remove_device(beside);

	/* Moved below ours. */
	EXPECT(device_move(beside, dev, DPM_ORDER_NONE) == 0);
	a = dma_map_page(beside, pages[0], 0, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!dma_mapping_error(beside, a) && page_streaming(pages[0]));
	dma_unmap_page(beside, a, PAGE_SIZE, DMA_FROM_DEVICE);
	EXPECT(!page_streaming(pages[0]));
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
	EXPECT(pins_of(run) == 0 && pins_of(run + 1) == 0);
	EXPECT(!page_streaming(run));
}

static void test_nothing_lost(void)
{
	EXPECT(counts().lost == 0);
	EXPECT(dma_track_test_hooks_intact());
}

/* --- All of them ------------------------------------------------------------ */

/* The device sees the caller's pages. */
#define DIRECT	1
/* It sees bounce buffers: the guest was booted with swiotlb=force. */
#define BOUNCED	2
/* It sees I/O addresses: there is an IOMMU in the guest. */
#define REMAPPED 4
#define ALWAYS	(DIRECT | BOUNCED | REMAPPED)
/* Only with a function of PCI. */
#define FUNCTION 8

static const struct {
	void (*run)(void);
	int when;
	const char *what;
} tests[] = {
	{ test_page, ALWAYS,
	  "a page is pinned while mapped, and not dirtied" },
	{ test_directions, ALWAYS,
	  "only what the device writes is pinned" },
	{ test_attributes, ALWAYS,
	  "attributes change nothing" },
	{ test_parts_of_pages, DIRECT | REMAPPED,
	  "every page touched is pinned, and counted" },
	{ test_single, ALWAYS,
	  "dma_map_single" },
	{ test_large, ALWAYS,
	  "a mapping of many pages" },
	{ test_failed_map, BOUNCED | REMAPPED,
	  "a failed map pins nothing" },
	{ test_sg, DIRECT | REMAPPED,
	  "dma_map_sg" },
	{ test_merged_sg, REMAPPED,
	  "dma_map_sg that merges entries" },
	{ test_sgtable, DIRECT | REMAPPED,
	  "dma_map_sgtable" },
	{ test_alloc, ALWAYS,
	  "dma_alloc_attrs pins whole pages" },
	{ test_free_of_nothing, ALWAYS,
	  "dma_free_attrs of nothing unpins nothing" },
	{ test_pool, ALWAYS,
	  "dma_pool" },
	{ test_managed, ALWAYS,
	  "dmam_alloc_coherent, freed by hand or with its driver" },
	{ test_alloc_pages, ALWAYS,
	  "dma_alloc_pages" },
	{ test_noncontiguous, ALWAYS,
	  "dma_alloc_noncontiguous" },
	{ test_scattered, REMAPPED,
	  "dma_alloc_attrs of scattered pages" },
	{ test_scattered_noncontiguous, REMAPPED,
	  "dma_alloc_noncontiguous of scattered pages" },
#ifdef DMA_TRACK_IOVA
	{ test_iova, REMAPPED,
	  "dma_iova_link, dma_iova_unlink, dma_iova_destroy" },
#endif
	{ test_mmio, DIRECT | REMAPPED,
	  "registers are not pinned" },
#ifdef CONFIG_PCI_P2PDMA
	{ test_peer, DIRECT | REMAPPED | FUNCTION,
	  "memory of peers is not pinned" },
#endif
	{ test_same_frame_in_both_planes, DIRECT | REMAPPED,
	  "a frame in both planes" },
	{ test_dirtying, DIRECT | REMAPPED,
	  "the last unmap dirties while the host logs" },
	{ test_dirtying_changes_nothing, DIRECT | REMAPPED,
	  "dirtying changes no byte" },
	{ test_sync, DIRECT | REMAPPED,
	  "dma_sync_*_for_cpu dirties while the host logs" },
	{ test_bounce, BOUNCED,
	  "the bounce buffer is pinned, not the caller's page" },
	{ test_bounced_sg, BOUNCED,
	  "the bounce buffers of a list are pinned" },
	{ test_bounced_frames, BOUNCED,
	  "the bounce buffer of a whole page shares no frame" },
	{ test_unknown_unmap, ALWAYS,
	  "an unknown unmap is counted and does no harm" },
	{ test_saturation, DIRECT | REMAPPED,
	  "an overflowing count pins for ever" },
	{ test_other_devices, DIRECT | REMAPPED,
	  "devices below count, others do not" },
	{ test_interrupts_off, ALWAYS,
	  "with interrupts off" },
	{ test_threads, DIRECT | REMAPPED,
	  "many threads on the same frames" },
	{ test_nothing_lost, ALWAYS,
	  "nothing was lost, the hooks are intact" },
};

static int mode_of_device(void)
{
	if (use_dma_iommu(dev))
		return REMAPPED;
	return is_swiotlb_force_bounce(dev) ? BOUNCED : DIRECT;
}

static void run_tests(void)
{
	static const char * const names[] = {
		[DIRECT] = "direct",
		[BOUNCED] = "bounced",
		[REMAPPED] = "remapped",
	};
	int mode = mode_of_device();
	int i;

	pr_tap("TAP version 13\n");
	pr_tap("# %s\n", names[mode]);
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		if (!(tests[i].when & mode) ||
		    (tests[i].when & FUNCTION && !function))
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

/* Returns the function whose address @text begins with, held, or NULL. */
static struct pci_dev *get_function(const char *text)
{
	unsigned int segment, bus, slot, number;

	if (sscanf(text, "%x:%x:%x.%x", &segment, &bus, &slot, &number) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(segment, bus,
					   PCI_DEVFN(slot, number));
}

static int set_replace(const char *text, const struct kernel_param *param)
{
	struct pci_dev *pdev = get_function(text);
	int rc;

	if (!pdev)
		return -ENODEV;
	rc = dma_track_test_replace(pdev);
	pci_dev_put(pdev);
	return rc;
}

/* The driver that does not offer all that it has, and what it has. */
static struct pci_driver *limited_driver;
static const struct pci_error_handlers *all_handlers;
static struct pci_error_handlers some_handlers;

static void lift_limit(void)
{
	if (!limited_driver)
		return;
	limited_driver->err_handler = all_handlers;
	module_put(limited_driver->driver.owner);
	limited_driver = NULL;
}

/* The device lock is held. */
static int limit_driver(struct pci_driver *driver, const char *offer)
{
	lift_limit();
	if (sysfs_streq(offer, "all"))
		return 0;
	if (!driver->err_handler || !try_module_get(driver->driver.owner))
		return -ENODEV;

	limited_driver = driver;
	all_handlers = driver->err_handler;
	some_handlers = *all_handlers;
	some_handlers.slot_reset = NULL;
	if (sysfs_streq(offer, "none"))
		some_handlers.reset_done = NULL;
	driver->err_handler = &some_handlers;
	return 0;
}

static int set_recovery(const char *text, const struct kernel_param *param)
{
	struct pci_dev *pdev = get_function(text);
	const char *offer = strchr(text, ' ');
	int rc = -EINVAL;

	if (!pdev)
		return -ENODEV;
	device_lock(&pdev->dev);
	if (offer && pdev->dev.driver)
		rc = limit_driver(to_pci_driver(pdev->dev.driver), offer + 1);
	device_unlock(&pdev->dev);
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

/* --- Behind the API; the function's driver is bound and does nothing --------- */

/* Nobody allocates I/O addresses so far down. */
#define BEHIND_IOVA	0x10000

static struct iommu_domain *alloc_domain(struct device *user)
{
#ifdef DMA_TRACK_ATTACH_PASID
	struct iommu_domain *domain = iommu_paging_domain_alloc(user);

	return IS_ERR(domain) ? NULL : domain;
#else
	return iommu_domain_alloc(&pci_bus_type);
#endif
}

static int behind_device(struct device *user)
{
	struct iommu_domain *domain = alloc_domain(user);
	int rc;

	if (!domain)
		return -ENOMEM;
	rc = iommu_attach_device(domain, user);
	if (!rc)
		iommu_detach_device(domain, user);
	iommu_domain_free(domain);
	return rc;
}

static int behind_group(struct device *user)
{
	struct iommu_domain *domain = alloc_domain(user);
	struct iommu_group *group = iommu_group_get(user);
	int rc = -ENOMEM;

	if (!domain)
		goto out;
	rc = iommu_attach_group(domain, group);
	if (!rc)
		iommu_detach_group(domain, group);
	iommu_domain_free(domain);
out:
	iommu_group_put(group);
	return rc;
}

/* As far as it goes: the emulated IOMMU knows no address spaces of parts. */
static int behind_pasid(struct device *user)
{
#ifdef DMA_TRACK_ATTACH_PASID
	iommu_attach_device_pasid(iommu_get_domain_for_dev(user), user,
				  IOMMU_NO_PASID, NULL);
	return 0;
#else
	return -EOPNOTSUPP;
#endif
}

static int behind_sva(struct device *user)
{
	struct iommu_sva *handle;

#ifdef DMA_TRACK_ATTACH_PASID
	handle = iommu_sva_bind_device(user, current->mm);
#else
	handle = iommu_sva_bind_device(user, current->mm, NULL);
#endif
	if (!IS_ERR(handle))
		iommu_sva_unbind_device(handle);
	return 0;
}

static int behind_map(struct device *user)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(user);
	int rc;

#ifdef DMA_TRACK_IOMMU_MAP_ATOMIC
	rc = iommu_map(domain, BEHIND_IOVA, page_to_phys(pages[0]), PAGE_SIZE,
		       IOMMU_READ | IOMMU_WRITE);
#else
	rc = iommu_map(domain, BEHIND_IOVA, page_to_phys(pages[0]), PAGE_SIZE,
		       IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
#endif
	if (!rc)
		iommu_unmap(domain, BEHIND_IOVA, PAGE_SIZE);
	return rc;
}

/* With interrupts off, as drivers may. */
static int behind_map_atomic(struct device *user)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(user);
	unsigned long flags;
	int rc;

	local_irq_save(flags);
#ifdef DMA_TRACK_IOMMU_MAP_ATOMIC
	rc = iommu_map_atomic(domain, BEHIND_IOVA, page_to_phys(pages[0]),
			      PAGE_SIZE, IOMMU_READ | IOMMU_WRITE);
#else
	rc = iommu_map(domain, BEHIND_IOVA, page_to_phys(pages[0]), PAGE_SIZE,
		       IOMMU_READ | IOMMU_WRITE, GFP_ATOMIC);
#endif
	local_irq_restore(flags);
	if (!rc)
		iommu_unmap(domain, BEHIND_IOVA, PAGE_SIZE);
	return rc;
}

static int behind_map_sg(struct device *user)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(user);
	struct scatterlist sgl[1];
	ssize_t mapped;

	sg_init_table(sgl, 1);
	sg_set_page(sgl, pages[0], PAGE_SIZE, 0);
#ifdef DMA_TRACK_IOMMU_MAP_ATOMIC
	mapped = iommu_map_sg(domain, BEHIND_IOVA, sgl, 1,
			      IOMMU_READ | IOMMU_WRITE);
#else
	mapped = iommu_map_sg(domain, BEHIND_IOVA, sgl, 1,
			      IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
#endif
	if (mapped < 0)
		return mapped;
	iommu_unmap(domain, BEHIND_IOVA, PAGE_SIZE);
	return 0;
}

static const struct {
	const char *name;
	int (*do_it)(struct device *user);
} ways[] = {
	{ "device", behind_device },
	{ "group", behind_group },
	{ "pasid", behind_pasid },
	{ "sva", behind_sva },
	{ "map", behind_map },
	{ "map-atomic", behind_map_atomic },
	{ "map-sg", behind_map_sg },
};

static int set_behind(const char *text, const struct kernel_param *param)
{
	unsigned int segment, bus, slot, number, i;
	struct pci_dev *pdev;
	char way[16];
	int rc = -EINVAL;

	if (sscanf(text, "%x:%x:%x.%x %15s", &segment, &bus, &slot, &number,
		   way) != 5)
		return -EINVAL;

	pdev = pci_get_domain_bus_and_slot(segment, bus,
					   PCI_DEVFN(slot, number));
	if (!pdev)
		return -ENODEV;
	for (i = 0; i < ARRAY_SIZE(ways); i++)
		if (!strcmp(way, ways[i].name))
			rc = ways[i].do_it(&pdev->dev);
	pci_dev_put(pdev);
	return rc;
}

static int set_publish(const char *text, const struct kernel_param *param)
{
	int answer, rc;

	rc = kstrtoint(text, 0, &answer);
	if (!rc)
		dma_track_test_pretend_publish(answer);
	return rc;
}

static const struct kernel_param_ops publish_ops = { .set = set_publish };

static int set_pairs(const char *text, const struct kernel_param *param)
{
	struct scatterlist sgl[NR_PAGES];
	unsigned int nr;
	int rc;

	rc = kstrtouint(text, 0, &nr);
	if (rc)
		return rc;

	init_sg(sgl);
	while (nr--) {
		dma_addr_t a, b;
		void *p;

		a = dma_map_page(dev, run, 0, PAGE_SIZE, DMA_FROM_DEVICE);
		p = dma_alloc_coherent(dev, PAGE_SIZE, &b, GFP_KERNEL);
		if (dma_mapping_error(dev, a) || !p ||
		    !dma_map_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE))
			return -ENOMEM;
		dma_unmap_sg(dev, sgl, NR_PAGES, DMA_FROM_DEVICE);
		dma_free_coherent(dev, PAGE_SIZE, p, b);
		dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	}
	return 0;
}

/* Any memory, such as pmem, that somebody else owns. */
static int set_frame(const char *text, const struct kernel_param *param)
{
	struct dma_track_frame mapped, unmapped;
	u64 phys, before = dirtied();
	struct page *page;
	dma_addr_t a;
	int rc;

	rc = kstrtou64(text, 0, &phys);
	if (rc)
		return rc;
	if (!pfn_valid(PHYS_PFN(phys)))
		return -ENXIO;

	page = pfn_to_page(PHYS_PFN(phys));
	a = dma_map_page(dev, page, 0, PAGE_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(dev, a))
		return -EIO;
	mapped = frame_of(page_to_phys(page));
	dma_unmap_page(dev, a, PAGE_SIZE, DMA_FROM_DEVICE);
	unmapped = frame_of(page_to_phys(page));
	pr_tap("# frame: zone_device=%d mapped=%d,%u unmapped=%d,%u dirtied=%llu\n",
	       is_zone_device_page(page), mapped.streaming, mapped.count,
	       unmapped.streaming, unmapped.count, dirtied() - before);
	return 0;
}

/* --- Errors made on purpose, for those who look for them -------------------- */

static int set_leak(const char *text, const struct kernel_param *param)
{
	/* Nothing refers to it, least of all a variable. */
	return kmalloc(100, GFP_KERNEL) ? 0 : -ENOMEM;
}

static unsigned long raced;

static int race_fn(void *arg)
{
	unsigned int i;

	for (i = 0; i < *(unsigned int *)arg; i++) {
		raced++;
		/* Or the compiler adds it all up, and writes once. */
		barrier();
	}
	complete(&thread_done[0]);
	return 0;
}

static int set_race(const char *text, const struct kernel_param *param)
{
	struct task_struct *task;
	unsigned int nr;
	int i, rc;

	rc = kstrtouint(text, 0, &nr);
	if (rc)
		return rc;

	init_completion(&thread_done[0]);
	for (i = 0; i < 2; i++) {
		task = kthread_run(race_fn, &nr, "dma_track_race");
		if (IS_ERR(task)) {
			complete(&thread_done[0]);
			rc = PTR_ERR(task);
		}
	}
	for (i = 0; i < 2; i++)
		wait_for_completion(&thread_done[0]);
	return rc;
}

static const struct kernel_param_ops leak_ops = { .set = set_leak };
static const struct kernel_param_ops race_ops = { .set = set_race };
static const struct kernel_param_ops frame_ops = { .set = set_frame };
static const struct kernel_param_ops pairs_ops = { .set = set_pairs };
static const struct kernel_param_ops behind_ops = { .set = set_behind };
static const struct kernel_param_ops recovery_ops = { .set = set_recovery };
static const struct kernel_param_ops replace_ops = { .set = set_replace };
static const struct kernel_param_ops unfence_ops = { .set = set_unfence };
static bool run_wanted = true;

module_param_cb(frame, &frame_ops, NULL, 0200);
module_param_cb(leak, &leak_ops, NULL, 0200);
module_param_cb(race, &race_ops, NULL, 0200);
module_param_cb(pairs, &pairs_ops, NULL, 0200);
module_param_cb(behind, &behind_ops, NULL, 0200);
module_param_cb(publish, &publish_ops, NULL, 0200);
module_param_cb(recovery, &recovery_ops, NULL, 0200);
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

static int lending_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return 0;
}

static struct pci_driver lending_driver = {
	.name = "dma_track_lending",
	.probe = lending_probe,
	.driver_managed_dma = true,
};

static int pretend_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	if (function)
		return -EBUSY;
	function = pdev;
	return pci_enable_device_mem(pdev);
}

static void pretend_remove(struct pci_dev *pdev)
{
	pci_disable_device(pdev);
}

static struct pci_driver pretend_driver = {
	.name = "dma_track_pretend",
	.probe = pretend_probe,
	.remove = pretend_remove,
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

static void let_go_of_device(void)
{
	if (!function)
		root_device_unregister(dev);
	pci_unregister_driver(&pretend_driver);
}

static int find_device(void)
{
	int rc = pci_register_driver(&pretend_driver);

	if (rc)
		return rc;
	if (function) {
		dev = &function->dev;
		return 0;
	}

	dev = root_device_register("dma-track-test");
	if (IS_ERR(dev)) {
		pci_unregister_driver(&pretend_driver);
		return PTR_ERR(dev);
	}
	dev->dma_mask = &dev->coherent_dma_mask;
	return 0;
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

	rc = find_device();
	if (rc)
		goto out_free;
	rc = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (rc)
		goto out_let_go;
	rc = pci_register_driver(&failing_driver);
	if (rc)
		goto out_let_go;
	rc = pci_register_driver(&witness_driver);
	if (rc)
		goto out_unregister_failing;
	rc = pci_register_driver(&lending_driver);
	if (rc)
		goto out_unregister_witness;
	rc = dma_track_test_add_device(dev);
	if (rc)
		goto out_unregister_lending;

	if (run_wanted)
		run_tests();
	return 0;

out_unregister_lending:
	pci_unregister_driver(&lending_driver);
out_unregister_witness:
	pci_unregister_driver(&witness_driver);
out_unregister_failing:
	pci_unregister_driver(&failing_driver);
out_let_go:
	let_go_of_device();
out_free:
	free_memory();
	return rc;
}
module_init(test_init);

static void __exit test_exit(void)
{
	lift_limit();
	dma_track_test_pretend_unfence(0);
	dma_track_test_pretend_publish(0);
	dma_track_test_remove_device(dev);
	pci_unregister_driver(&lending_driver);
	pci_unregister_driver(&witness_driver);
	pci_unregister_driver(&failing_driver);
	let_go_of_device();
	free_memory();
}
module_exit(test_exit);

MODULE_DESCRIPTION("A pretend device that tests dma_track");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(DMA_TRACK_TEST_NS);

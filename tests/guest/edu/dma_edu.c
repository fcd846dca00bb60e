// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test driver for QEMU's stock edu device
 *
 * edu has what no modern device has: no extended configuration space, no
 * function level reset, a DMA mask of 28 bits, 100 ms per transfer. This driver
 * has no error handlers either, so it can only be restored by probing it again.
 *
 * /sys/kernel/debug/dma_edu/control takes one command at a time:
 *
 *	fill SEED	put a page that SEED stands for into the device
 *	prepare N	allocate N frames of zeroes
 *	write N		have N of them written by the device, unmapped
 *	keep N		the same, but they stay mapped
 *	start		begin to write one and do not wait
 *
 * /sys/kernel/debug/dma_edu/pages lists those written: KIND GPA, with KIND one
 * of done, kept, flying. No CPU touches a frame after it was prepared, also not
 * when the driver is removed and probed again: if that is before a migration,
 * only the device makes them differ during it. probes counts probes.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#define EDU_DMA_SRC	0x80
#define EDU_DMA_DST	0x88
#define EDU_DMA_COUNT	0x90
#define EDU_DMA_CMD	0x98
#define EDU_DMA_RUN	0x1
#define EDU_DMA_TO_RAM	0x2
/* Where the device's own buffer is, of one page. */
#define EDU_BUFFER	0x40000
#define EDU_TIMEOUT_US	(10 * USEC_PER_SEC)

struct edu_page {
	struct list_head list;
	const char *kind;
	void *memory;
	dma_addr_t addr;
	bool mapped;
};

/* Protects all below. */
static DEFINE_MUTEX(edu_lock);
/* The one device, or NULL. */
static struct pci_dev *edu_pdev;
static void __iomem *edu_regs;
/* They outlive the device: the test compares them after a re-probe. */
static LIST_HEAD(edu_pages);
static LIST_HEAD(edu_prepared);
static u32 edu_probes;
static struct dentry *edu_dir;

static int edu_wait(void)
{
	u64 cmd;

	return readq_poll_timeout(edu_regs + EDU_DMA_CMD, cmd,
				  !(cmd & EDU_DMA_RUN), 5000, EDU_TIMEOUT_US);
}

static void edu_start(dma_addr_t addr, u64 direction)
{
	bool to_ram = direction & EDU_DMA_TO_RAM;

	writeq(to_ram ? EDU_BUFFER : addr, edu_regs + EDU_DMA_SRC);
	writeq(to_ram ? addr : EDU_BUFFER, edu_regs + EDU_DMA_DST);
	writeq(PAGE_SIZE, edu_regs + EDU_DMA_COUNT);
	writeq(EDU_DMA_RUN | direction, edu_regs + EDU_DMA_CMD);
}

/* Word i of the page that a seed stands for; the test computes the same. */
static u64 edu_word(u64 seed, unsigned int i)
{
	return (seed + i + 1) * 0x9e3779b97f4a7c15ull;
}

static int edu_fill(u64 seed)
{
	struct page *page = alloc_page(GFP_KERNEL | GFP_DMA32);
	dma_addr_t addr;
	unsigned int i;
	int rc;

	if (!page)
		return -ENOMEM;
	for (i = 0; i < PAGE_SIZE / 8; i++)
		((u64 *)page_address(page))[i] = edu_word(seed, i);
	addr = dma_map_page(&edu_pdev->dev, page, 0, PAGE_SIZE, DMA_TO_DEVICE);
	rc = dma_mapping_error(&edu_pdev->dev, addr);
	if (rc)
		goto out_free;
	edu_start(addr, 0);
	rc = edu_wait();
	dma_unmap_page(&edu_pdev->dev, addr, PAGE_SIZE, DMA_TO_DEVICE);
out_free:
	__free_page(page);
	return rc;
}

static void edu_unmap(struct edu_page *page)
{
	if (page->mapped)
		dma_unmap_page(&edu_pdev->dev, page->addr, PAGE_SIZE,
			       DMA_FROM_DEVICE);
	page->mapped = false;
}

static int edu_prepare(unsigned int n)
{
	struct edu_page *page;

	while (n--) {
		page = kzalloc(sizeof(*page), GFP_KERNEL);
		if (!page)
			return -ENOMEM;
		page->memory = (void *)get_zeroed_page(GFP_KERNEL | GFP_DMA32);
		if (!page->memory) {
			kfree(page);
			return -ENOMEM;
		}
		list_add_tail(&page->list, &edu_prepared);
	}
	return 0;
}

static struct edu_page *edu_begin(const char *kind)
{
	struct edu_page *page;

	page = list_first_entry_or_null(&edu_prepared, struct edu_page, list);
	if (!page)
		return NULL;
	page->addr = dma_map_page(&edu_pdev->dev, virt_to_page(page->memory), 0,
				  PAGE_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(&edu_pdev->dev, page->addr))
		return NULL;
	page->mapped = true;
	page->kind = kind;
	list_move_tail(&page->list, &edu_pages);
	edu_start(page->addr, EDU_DMA_TO_RAM);
	return page;
}

static int edu_write(unsigned int n, const char *kind, bool keep)
{
	struct edu_page *page;
	int rc;

	while (n--) {
		page = edu_begin(kind);
		if (!page)
			return -ENOMEM;
		rc = edu_wait();
		if (rc)
			return rc;
		if (!keep)
			edu_unmap(page);
	}
	return 0;
}

static int edu_command(const char *text)
{
	unsigned int n;
	u64 seed;

	if (!edu_pdev)
		return -ENODEV;
	if (sscanf(text, "fill %llu", &seed) == 1)
		return edu_fill(seed);
	if (sscanf(text, "prepare %u", &n) == 1)
		return edu_prepare(n);
	if (sscanf(text, "write %u", &n) == 1)
		return edu_write(n, "done", false);
	if (sscanf(text, "keep %u", &n) == 1)
		return edu_write(n, "kept", true);
	if (sysfs_streq(text, "start"))
		return edu_begin("flying") ? 0 : -ENOMEM;
	return -EINVAL;
}

static ssize_t control_write(struct file *file, const char __user *user,
			     size_t count, loff_t *pos)
{
	char text[64];
	ssize_t n;
	int rc;

	n = simple_write_to_buffer(text, sizeof(text) - 1, pos, user, count);
	if (n < 0)
		return n;
	text[n] = 0;
	mutex_lock(&edu_lock);
	rc = edu_command(text);
	mutex_unlock(&edu_lock);
	return rc ?: count;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.write = control_write,
};

static int pages_show(struct seq_file *seq, void *unused)
{
	struct edu_page *page;

	mutex_lock(&edu_lock);
	list_for_each_entry(page, &edu_pages, list)
		seq_printf(seq, "%s 0x%llx\n", page->kind,
			   (u64)virt_to_phys(page->memory));
	mutex_unlock(&edu_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(pages);

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int rc;

	rc = pcim_enable_device(pdev);
	if (rc)
		return rc;
	rc = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(28));
	if (rc)
		return rc;
	mutex_lock(&edu_lock);
	if (edu_pdev) {
		rc = -EBUSY;
		goto out_unlock;
	}
	edu_regs = pcim_iomap(pdev, 0, 0);
	if (!edu_regs) {
		rc = -ENOMEM;
		goto out_unlock;
	}
	pci_set_master(pdev);
	edu_pdev = pdev;
	edu_probes++;
out_unlock:
	mutex_unlock(&edu_lock);
	return rc;
}

static void edu_remove(struct pci_dev *pdev)
{
	struct edu_page *page;

	mutex_lock(&edu_lock);
	pci_clear_master(pdev);
	list_for_each_entry(page, &edu_pages, list)
		edu_unmap(page);
	edu_pdev = NULL;
	mutex_unlock(&edu_lock);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "dma_edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};

static int __init edu_init(void)
{
	edu_dir = debugfs_create_dir("dma_edu", NULL);
	debugfs_create_file("control", 0200, edu_dir, NULL, &control_fops);
	debugfs_create_file("pages", 0400, edu_dir, NULL, &pages_fops);
	debugfs_create_u32("probes", 0400, edu_dir, &edu_probes);
	return pci_register_driver(&edu_driver);
}
module_init(edu_init);

static void free_pages_of(struct list_head *list)
{
	struct edu_page *page, *next;

	list_for_each_entry_safe(page, next, list, list) {
		free_page((unsigned long)page->memory);
		kfree(page);
	}
}

static void __exit edu_exit(void)
{
	debugfs_remove(edu_dir);
	pci_unregister_driver(&edu_driver);
	free_pages_of(&edu_pages);
	free_pages_of(&edu_prepared);
}
module_exit(edu_exit);

MODULE_DESCRIPTION("Test driver for QEMU's edu device");
MODULE_LICENSE("GPL");

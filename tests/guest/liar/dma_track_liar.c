// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test driver: a guest that lies to virtio-dma-track
 *
 * It binds to the device in place of dma_track and hands it whatever it is told
 * to, so that a test can say in a real guest, with a real ring, what no driver
 * says. It knows nothing of requests. In /sys/kernel/debug/dma_track_liar:
 *
 *	pages	the physical addresses of pages that are its own, one a line
 *	poke	PAGE OFFSET HEX: write bytes into one of them
 *	request	PARTS ROOM HEX: make a request of these bytes, in so many parts,
 *		with so many bytes of room for the answer, and wait for that
 *	chain	HEAD AHEAD [ADDR LEN FLAGS NEXT]...: write descriptors into the
 *		table, make HEAD available AHEAD times, and wait
 *	config	OFFSET VALUE: write 32 bits to the configuration space
 *	answer	what came of the last of these: the bytes of the answer, broken
 *		(the device wants to be reset), or silent
 *	now	the configuration space: five words
 *
 * After broken, silent or a chain, bind it anew: that resets the device.
 */
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <linux/virtio_dma_track.h>

#define LIAR_PAGES	16
/* What a request is made of: as much as 128 entries of 24 bytes, and more. */
#define LIAR_ORDER	1
#define LIAR_BYTES	(PAGE_SIZE << LIAR_ORDER)
#define LIAR_MAX_PARTS	32
/* An answer takes no longer than that, whatever else the machine does. */
#define LIAR_WAIT	(20 * HZ)
/* The answer to a chain is not recognised: it is in no list of the kernel's. */
#define LIAR_CHAIN_WAIT	HZ

/* Protects all below. */
static DEFINE_MUTEX(liar_lock);
/* The one device, or NULL. */
static struct virtio_device *liar_vdev;
static struct virtqueue *liar_vq;
static DECLARE_COMPLETION(liar_used);
static char *liar_out, *liar_in;
static unsigned long liar_pages[LIAR_PAGES];
static char liar_answer[64] = "silent";
static struct dentry *liar_dir;

static void liar_vq_used(struct virtqueue *vq)
{
	complete(&liar_used);
}

static bool liar_broken(void)
{
	return liar_vdev->config->get_status(liar_vdev) &
	       VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* What comes of what was made available last. */
static void liar_wait(unsigned long limit)
{
	unsigned long end = jiffies + limit;
	unsigned int len = 0;

	for (;;) {
		wait_for_completion_timeout(&liar_used, HZ / 50);
		if (liar_broken()) {
			strscpy(liar_answer, "broken", sizeof(liar_answer));
			return;
		}
		if (virtqueue_get_buf(liar_vq, &len))
			break;
		if (time_after(jiffies, end)) {
			strscpy(liar_answer, "silent", sizeof(liar_answer));
			return;
		}
	}
	snprintf(liar_answer, sizeof(liar_answer), "%*phN",
		 min_t(int, len, 16), liar_in);
}

/* Bytes of a line that is hexadecimal, or a negative errno. */
static int liar_parse_hex(char *to, size_t size, const char *line)
{
	size_t i, len = strlen(line) / 2;

	if (len > size)
		return -EINVAL;
	for (i = 0; i < len; i++) {
		if (sscanf(line + 2 * i, "%2hhx", (u8 *)to + i) != 1)
			return -EINVAL;
	}
	return len;
}

static int liar_request(char *line)
{
	struct scatterlist parts[LIAR_MAX_PARTS + 1], *sgs[LIAR_MAX_PARTS + 1];
	unsigned int nr, room, i, nr_out = 0, nr_in = 0;
	int used, len, rc;

	if (sscanf(line, "%u %u %n", &nr, &room, &used) < 2 || !nr ||
	    nr > LIAR_MAX_PARTS || room > PAGE_SIZE)
		return -EINVAL;
	len = liar_parse_hex(liar_out, LIAR_BYTES, line + used);
	if (len < 0)
		return len;

	for (i = 0; i < nr; i++) {
		size_t from = (size_t)len * i / nr;
		size_t to = (size_t)len * (i + 1) / nr;

		if (from == to)
			continue;
		sg_init_one(&parts[nr_out], liar_out + from, to - from);
		sgs[nr_out] = &parts[nr_out];
		nr_out++;
	}
	if (room) {
		sg_init_one(&parts[nr_out], liar_in, room);
		sgs[nr_out] = &parts[nr_out];
		nr_in = 1;
	}
	reinit_completion(&liar_used);
	rc = virtqueue_add_sgs(liar_vq, sgs, nr_out, nr_in, liar_in,
			       GFP_KERNEL);
	if (rc)
		return rc;
	virtqueue_kick(liar_vq);
	liar_wait(LIAR_WAIT);
	return 0;
}

static int liar_chain(char *line)
{
	struct vring_desc *desc =
		phys_to_virt(virtqueue_get_desc_addr(liar_vq));
	struct vring_avail *avail =
		phys_to_virt(virtqueue_get_avail_addr(liar_vq));
	unsigned int nr = virtqueue_get_vring_size(liar_vq);
	unsigned int head, ahead, i, len, flags, next;
	u64 addr;
	u16 idx;
	int used;

	if (sscanf(line, "%u %u %n", &head, &ahead, &used) < 2)
		return -EINVAL;
	for (i = 0; i < nr; i++) {
		line += used;
		if (sscanf(line, "%llx %x %x %x %n", &addr, &len, &flags,
			   &next, &used) < 4)
			break;
		desc[i] = (struct vring_desc) {
			.addr = cpu_to_virtio64(liar_vdev, addr),
			.len = cpu_to_virtio32(liar_vdev, len),
			.flags = cpu_to_virtio16(liar_vdev, flags),
			.next = cpu_to_virtio16(liar_vdev, next),
		};
	}
	idx = virtio16_to_cpu(liar_vdev, avail->idx);
	for (i = 0; i < nr; i++)
		avail->ring[i] = cpu_to_virtio16(liar_vdev, head);
	/* The device reads the index first. */
	virtio_wmb(false);
	avail->idx = cpu_to_virtio16(liar_vdev, idx + ahead);
	virtqueue_notify(liar_vq);
	liar_wait(LIAR_CHAIN_WAIT);
	return 0;
}

static int liar_poke(char *line)
{
	unsigned int page, offset;
	int used;

	if (sscanf(line, "%u %u %n", &page, &offset, &used) < 2 ||
	    page >= LIAR_PAGES || offset >= PAGE_SIZE)
		return -EINVAL;
	return liar_parse_hex((char *)liar_pages[page] + offset,
			      PAGE_SIZE - offset, line + used);
}

static int liar_config(char *line)
{
	unsigned int offset;
	u32 value;

	if (sscanf(line, "%u %x", &offset, &value) < 2)
		return -EINVAL;
	liar_vdev->config->set(liar_vdev, offset, &value, sizeof(value));
	strscpy(liar_answer, liar_broken() ? "broken" : "silent",
		sizeof(liar_answer));
	return 0;
}

static ssize_t liar_write(struct file *file, const char __user *from,
			  size_t size, int (*act)(char *line))
{
	char *line;
	int rc = -ENODEV;

	if (size > 4 * LIAR_BYTES)
		return -E2BIG;
	line = memdup_user_nul(from, size);
	if (IS_ERR(line))
		return PTR_ERR(line);
	strim(line);
	mutex_lock(&liar_lock);
	if (liar_vdev)
		rc = act(line);
	/* Nobody takes the answer to another line for one to this. */
	if (rc < 0)
		strscpy(liar_answer, "error", sizeof(liar_answer));
	mutex_unlock(&liar_lock);
	kfree(line);
	return rc < 0 ? rc : size;
}

static ssize_t request_write(struct file *file, const char __user *from,
			     size_t size, loff_t *pos)
{
	return liar_write(file, from, size, liar_request);
}

static ssize_t chain_write(struct file *file, const char __user *from,
			   size_t size, loff_t *pos)
{
	return liar_write(file, from, size, liar_chain);
}

static ssize_t poke_write(struct file *file, const char __user *from,
			  size_t size, loff_t *pos)
{
	return liar_write(file, from, size, liar_poke);
}

static ssize_t config_write(struct file *file, const char __user *from,
			    size_t size, loff_t *pos)
{
	return liar_write(file, from, size, liar_config);
}

static const struct file_operations request_fops = {
	.owner = THIS_MODULE, .open = simple_open, .write = request_write,
};

static const struct file_operations chain_fops = {
	.owner = THIS_MODULE, .open = simple_open, .write = chain_write,
};

static const struct file_operations poke_fops = {
	.owner = THIS_MODULE, .open = simple_open, .write = poke_write,
};

static const struct file_operations config_fops = {
	.owner = THIS_MODULE, .open = simple_open, .write = config_write,
};

static int pages_show(struct seq_file *m, void *unused)
{
	unsigned int i;

	for (i = 0; i < LIAR_PAGES; i++)
		seq_printf(m, "%llx\n", (u64)virt_to_phys((void *)
							  liar_pages[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(pages);

static int answer_show(struct seq_file *m, void *unused)
{
	mutex_lock(&liar_lock);
	seq_printf(m, "%s\n", liar_answer);
	mutex_unlock(&liar_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(answer);

static int now_show(struct seq_file *m, void *unused)
{
	__le32 words[5];
	int rc = 0;

	mutex_lock(&liar_lock);
	if (liar_vdev) {
		virtio_cread_bytes(liar_vdev, 0, words, sizeof(words));
		seq_printf(m, "%u %u %u %u %u\n", le32_to_cpu(words[0]),
			   le32_to_cpu(words[1]), le32_to_cpu(words[2]),
			   le32_to_cpu(words[3]), le32_to_cpu(words[4]));
	} else {
		rc = -ENODEV;
	}
	mutex_unlock(&liar_lock);
	return rc;
}
DEFINE_SHOW_ATTRIBUTE(now);

static int liar_probe(struct virtio_device *vdev)
{
	struct virtqueue *vq;
	int rc = -EBUSY;

	mutex_lock(&liar_lock);
	if (liar_vdev)
		goto out_unlock;
	vq = virtio_find_single_vq(vdev, liar_vq_used, "request");
	rc = PTR_ERR_OR_ZERO(vq);
	if (rc)
		goto out_unlock;
	liar_vq = vq;
	liar_vdev = vdev;
	virtio_device_ready(vdev);
out_unlock:
	mutex_unlock(&liar_lock);
	return rc;
}

static void liar_remove(struct virtio_device *vdev)
{
	mutex_lock(&liar_lock);
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	liar_vdev = NULL;
	mutex_unlock(&liar_lock);
}

static const struct virtio_device_id liar_ids[] = {
	{ VIRTIO_ID_DMA_TRACK, VIRTIO_DEV_ANY_ID },
	{}
};

static struct virtio_driver liar_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = liar_ids,
	.probe = liar_probe,
	.remove = liar_remove,
};

static void liar_free(void)
{
	unsigned int i;

	for (i = 0; i < LIAR_PAGES; i++)
		free_page(liar_pages[i]);
	free_page((unsigned long)liar_in);
	free_pages((unsigned long)liar_out, LIAR_ORDER);
}

static int __init liar_init(void)
{
	unsigned int i;
	int rc = -ENOMEM;

	liar_out = (char *)__get_free_pages(GFP_KERNEL, LIAR_ORDER);
	liar_in = (char *)get_zeroed_page(GFP_KERNEL);
	if (!liar_out || !liar_in)
		goto out_free;
	for (i = 0; i < LIAR_PAGES; i++) {
		liar_pages[i] = get_zeroed_page(GFP_KERNEL);
		if (!liar_pages[i])
			goto out_free;
	}
	rc = register_virtio_driver(&liar_driver);
	if (rc)
		goto out_free;

	liar_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("pages", 0400, liar_dir, NULL, &pages_fops);
	debugfs_create_file("poke", 0200, liar_dir, NULL, &poke_fops);
	debugfs_create_file("request", 0200, liar_dir, NULL, &request_fops);
	debugfs_create_file("chain", 0200, liar_dir, NULL, &chain_fops);
	debugfs_create_file("config", 0200, liar_dir, NULL, &config_fops);
	debugfs_create_file("answer", 0400, liar_dir, NULL, &answer_fops);
	debugfs_create_file("now", 0400, liar_dir, NULL, &now_fops);
	return 0;

out_free:
	liar_free();
	return rc;
}
module_init(liar_init);

static void __exit liar_exit(void)
{
	debugfs_remove_recursive(liar_dir);
	unregister_virtio_driver(&liar_driver);
	liar_free();
}
module_exit(liar_exit);

MODULE_DESCRIPTION("Test driver that lies to virtio-dma-track");
MODULE_LICENSE("GPL");

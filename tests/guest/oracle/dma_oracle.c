// SPDX-License-Identifier: GPL-2.0-only
/*
 * dma_oracle: driver of the DMA test device
 *
 * Has the device write frames that no CPU touches, so that a test can tell
 * whether a migration lost one. Commands and files are told in README.md.
 *
 * The frames are of four kinds. "unmapped" ones are mapped, stamped and
 * unmapped again while the migration runs; "mapped" ones stay mapped; "ring" is
 * coherent memory into which the device completes; "inflight" ones always have
 * a transfer on its way.
 *
 * After a restore the driver works with fresh memory only. The frames stay as
 * the move has left them until the next command.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/irq.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/random.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "dma_test_abi.h"

static uint unmapped = 1024;
module_param(unmapped, uint, 0444);
MODULE_PARM_DESC(unmapped, "Frames that are unmapped after their stamp");

static uint mapped = 512;
module_param(mapped, uint, 0644);
MODULE_PARM_DESC(mapped, "Frames that stay mapped, from the next prepare on");

static uint ring = 64;
module_param(ring, uint, 0444);
MODULE_PARM_DESC(ring, "Frames of the completion ring, a power of two <= 64");

static uint inflight = 128;
module_param(inflight, uint, 0444);
MODULE_PARM_DESC(inflight, "Frames with a transfer on its way");

static uint periodic_us = 1000;
module_param(periodic_us, uint, 0644);
MODULE_PARM_DESC(periodic_us, "Interval of the periodic writer");

static uint deaf_ms = 5000;
module_param(deaf_ms, uint, 0644);
MODULE_PARM_DESC(deaf_ms, "How long `deaf` keeps interrupts off");

/* Sixteen completions a frame: 64 frames are as many entries as the sq has. */
#define ORACLE_CQ_SHIFT		8
#define ORACLE_SQ_SIZE		1024
/* Frames of the periodic writer. */
#define ORACLE_PERIODIC_FRAMES	8
/* Frames mapped, stamped and unmapped at a time. */
#define ORACLE_BATCH		256
#define ORACLE_TIMEOUT		(30 * HZ)
/*
 * A transfer of the stream takes 30 to 50 ms, different ones differently long,
 * so that at any instant some are about to land and some have just begun.
 */
#define ORACLE_STREAM_MIN_US	30000
#define ORACLE_STREAM_STEPS	21
#define ORACLE_STREAM_STEP_US	1000
/* Requests that wait for their answers: all of them fit into the device. */
#define ORACLE_ASKS		32
/* In the cookie of a request. Seeds, of which others are made, begin with 0. */
#define ORACLE_ASK		BIT(31)
/*
 * Every second one takes longer. So there are two bunches, which drift apart:
 * at any instant one of them is in the device, and seldom has an interrupt of
 * an earlier answer not been taken yet.
 */
#define ORACLE_ASK_US(n)	((n) % 2 ? 60000 : 90000)
/* An answer that has not come by then never will. */
#define ORACLE_ASK_TIMEOUT	(15 * HZ)

struct oracle_desc {
	__le64 addr;
	__le32 len;
	__le16 op;
	__le16 kind;
	__le64 seed;
	__le32 delay_us;
	__le32 cookie;
};

static_assert(sizeof(struct oracle_desc) == DMA_TEST_DESC_SIZE);
static_assert(offsetof(struct oracle_desc, op) == DMA_TEST_DESC_OP);
static_assert(offsetof(struct oracle_desc, kind) == DMA_TEST_DESC_KIND);
static_assert(offsetof(struct oracle_desc, seed) == DMA_TEST_DESC_SEED);
static_assert(offsetof(struct oracle_desc, delay_us) ==
	      DMA_TEST_DESC_DELAY_US);
static_assert(offsetof(struct oracle_desc, cookie) == DMA_TEST_DESC_COOKIE);

enum oracle_state {
	/* The device works; there are no frames. */
	ORACLE_IDLE,
	/* There are frames; the device does nothing on its own. */
	ORACLE_READY,
	/* The stream and the periodic writer are going. */
	ORACLE_STREAMING,
	/* Requests are made, each as soon as the one before was answered. */
	ORACLE_ASKING,
	/* The device was reset under us; only a restore leads out of this. */
	ORACLE_STOPPED,
	/* It could not be brought back. */
	ORACLE_DEAD,
};

static const char * const oracle_state_names[] = {
	[ORACLE_IDLE] = "idle",
	[ORACLE_READY] = "ready",
	[ORACLE_STREAMING] = "streaming",
	[ORACLE_ASKING] = "asking",
	[ORACLE_STOPPED] = "stopped",
	[ORACLE_DEAD] = "dead",
};

/**
 * struct oracle_frame - a frame that only the device writes
 * @page: the frame
 * @dma: its address for the device; valid if it was ever mapped
 * @is_mapped: it is mapped now
 */
struct oracle_frame {
	struct page *page;
	dma_addr_t dma;
	bool is_mapped;
};

/**
 * struct oracle_set - frames of one kind
 * @frames: @nr of them, or NULL
 * @nr: how many
 * @kind: DMA_TEST_KIND_*
 */
struct oracle_set {
	struct oracle_frame *frames;
	unsigned int nr;
	u16 kind;
};

/**
 * struct oracle_queue - a submission and a completion ring
 * @sq: descriptors, ORACLE_SQ_SIZE of them
 * @sq_dma: their address for the device
 * @cq: completions; written by the device only
 * @cq_dma: their address for the device
 * @cq_bytes: size of @cq
 * @nr_cq: entries of @cq
 * @tail: next descriptor to fill in; free running
 * @head: next completion to reap; free running
 */
struct oracle_queue {
	struct oracle_desc *sq;
	dma_addr_t sq_dma;
	void *cq;
	dma_addr_t cq_dma;
	size_t cq_bytes;
	u32 nr_cq;
	u32 tail;
	u32 head;
};

/**
 * struct oracle_asks - requests of which each waits for exactly one answer
 * @cookies: of those that wait; 0 for a place that is free
 * @asked: requests made
 * @answered: of these, how many were answered
 * @repeated: requests made again, because a reset had ended them
 * @unexpected: answers that nobody waited for
 * @silent: answers that were there without an interrupt that told of them
 */
struct oracle_asks {
	u32 cookies[ORACLE_ASKS];
	unsigned long asked;
	unsigned long answered;
	unsigned long repeated;
	unsigned long unexpected;
	unsigned long silent;
};

/**
 * struct oracle - one device
 * @pdev: the device
 * @regs: BAR 0
 * @dir: our files
 * @lock: one command or restore at a time; guards everything up to @seed
 * @state: what is going on
 * @queue: the rings the device uses now
 * @witness: the rings it used when the frames were prepared, or NULL. Not freed
 *	at a restore, because the test wants to see them
 * @sets: the streaming frames
 * @periodic: frames of the periodic writer, or NULL
 * @periodic_dma: their address for the device
 * @mailbox: address for the device of the register NOTE of another test device,
 *	or 0. Written while there is no @stream
 * @seed: of the next stamp; no two stamps have the same. Written under @lock,
 *	or by @stream while it runs
 * @stream: the thread that keeps transfers going. The queue is its own while it
 *	runs
 * @stopping: a restore has begun; commands are to give up. Written by the
 *	restore, read without a lock
 * @is_poke_armed: see README.md. Under @lock
 * @is_bus_reset_armed: the bus is reset before that. Under @lock
 * @asks: written as the queue is
 * @is_asking: more requests are to be made when one was answered; also after a
 *	restore. Written under @lock
 * @is_masked: the vector is masked. Under @lock
 * @wait: woken by the interrupt and by @stopping
 * @irqs: interrupts seen
 * @resets: times the device was reset under us. This and what follows is for
 *	people and tests: written under @lock, @completions by @stream too
 * @restores: times it came back and did what it should
 * @selftests: self-tests passed
 * @selftest_errors: self-tests failed
 * @stamps: frames stamped by commands
 * @completions: completions seen
 * @poked: times the device was poked
 * @kept: interrupts that came when the vector was unmasked
 * @error: what went wrong last, never NULL
 */
struct oracle {
	struct pci_dev *pdev;
	void __iomem *regs;
	struct dentry *dir;

	/* One command or restore at a time. */
	struct mutex lock;
	enum oracle_state state;
	struct oracle_queue *queue;
	struct oracle_queue *witness;
	struct oracle_set sets[3];
	void *periodic;
	dma_addr_t periodic_dma;
	dma_addr_t mailbox;
	u64 seed;

	struct task_struct *stream;
	bool stopping;
	bool is_poke_armed;
	bool is_bus_reset_armed;
	struct oracle_asks asks;
	bool is_asking;
	bool is_masked;
	wait_queue_head_t wait;
	atomic_t irqs;

	unsigned long resets;
	unsigned long restores;
	unsigned long selftests;
	unsigned long selftest_errors;
	unsigned long stamps;
	unsigned long completions;
	unsigned long poked;
	unsigned long kept;
	const char *error;
};

static struct dentry *oracle_root;

static struct oracle_set *oracle_set(struct oracle *o, u16 kind)
{
	switch (kind) {
	case DMA_TEST_KIND_UNMAPPED:
		return &o->sets[0];
	case DMA_TEST_KIND_MAPPED:
		return &o->sets[1];
	default:
		return &o->sets[2];
	}
}

/* --- Rings ------------------------------------------------------------ */

static void oracle_queue_free(struct oracle *o, struct oracle_queue *q)
{
	struct device *dev = &o->pdev->dev;

	if (!q)
		return;
	if (q->sq)
		dma_free_coherent(dev, ORACLE_SQ_SIZE * sizeof(*q->sq), q->sq,
				  q->sq_dma);
	if (q->cq)
		dma_free_coherent(dev, q->cq_bytes, q->cq, q->cq_dma);
	kfree(q);
}

static struct oracle_queue *oracle_queue_alloc(struct oracle *o)
{
	struct device *dev = &o->pdev->dev;
	struct oracle_queue *q;

	q = kzalloc(sizeof(*q), GFP_KERNEL);
	if (!q)
		return NULL;

	q->cq_bytes = ring * PAGE_SIZE;
	q->nr_cq = q->cq_bytes >> ORACLE_CQ_SHIFT;
	q->sq = dma_alloc_coherent(dev, ORACLE_SQ_SIZE * sizeof(*q->sq),
				   &q->sq_dma, GFP_KERNEL);
	q->cq = dma_alloc_coherent(dev, q->cq_bytes, &q->cq_dma, GFP_KERNEL);
	if (!q->sq || !q->cq) {
		oracle_queue_free(o, q);
		return NULL;
	}
	return q;
}

/* Tell the device where its rings are, and start it. */
static int oracle_queue_start(struct oracle *o)
{
	struct oracle_queue *q = o->queue;

	if (readl(o->regs + DMA_TEST_ID) != DMA_TEST_ID_VALUE)
		return -ENODEV;

	q->tail = 0;
	q->head = 0;
	writel(0, o->regs + DMA_TEST_CONTROL);
	writeq(q->sq_dma, o->regs + DMA_TEST_SQ_BASE);
	writel(ORACLE_SQ_SIZE, o->regs + DMA_TEST_SQ_SIZE);
	writeq(q->cq_dma, o->regs + DMA_TEST_CQ_BASE);
	writel(q->nr_cq, o->regs + DMA_TEST_CQ_SIZE);
	writel(ORACLE_CQ_SHIFT, o->regs + DMA_TEST_CQ_SHIFT);
	writel(DMA_TEST_CONTROL_ENABLE, o->regs + DMA_TEST_CONTROL);
	if (!(readl(o->regs + DMA_TEST_STATUS) & DMA_TEST_STATUS_ENABLED))
		return -EIO;

	return 0;
}

static u32 oracle_queue_room(const struct oracle_queue *q)
{
	return min_t(u32, ORACLE_SQ_SIZE, q->nr_cq) - (q->tail - q->head);
}

/* Fill in a descriptor. The caller has seen to it that there is room. */
static struct oracle_desc *oracle_submit(struct oracle *o, u16 op, u16 kind,
					 u32 delay_us)
{
	struct oracle_queue *q = o->queue;
	struct oracle_desc *desc = &q->sq[q->tail % ORACLE_SQ_SIZE];

	*desc = (struct oracle_desc) {
		.op = cpu_to_le16(op),
		.kind = cpu_to_le16(kind),
		.seed = cpu_to_le64(o->seed),
		.delay_us = cpu_to_le32(delay_us),
		.cookie = cpu_to_le32(lower_32_bits(o->seed)),
	};
	o->seed++;
	q->tail++;
	return desc;
}

static void oracle_submit_stamp(struct oracle *o, dma_addr_t dma, u16 kind,
				u16 flags, u32 delay_us)
{
	struct oracle_desc *desc;

	desc = oracle_submit(o, DMA_TEST_OP_STAMP | flags, kind, delay_us);
	desc->addr = cpu_to_le64(dma);
	desc->len = cpu_to_le32(PAGE_SIZE);
}

static void oracle_submit_mail(struct oracle *o, u32 delay_us)
{
	struct oracle_desc *desc;

	desc = oracle_submit(o, DMA_TEST_OP_STAMP, DMA_TEST_KIND_OTHER,
			     delay_us);
	desc->addr = cpu_to_le64(o->mailbox);
	desc->len = cpu_to_le32(sizeof(u32));
}

static void oracle_submit_ask(struct oracle *o, unsigned int n)
{
	struct oracle_desc *desc;

	desc = oracle_submit(o, DMA_TEST_OP_NOP | DMA_TEST_OP_IRQ,
			     DMA_TEST_KIND_OTHER, ORACLE_ASK_US(n));
	desc->cookie |= cpu_to_le32(ORACLE_ASK);
	o->asks.cookies[n] = le32_to_cpu(desc->cookie);
}

static void oracle_ring_doorbell(struct oracle *o)
{
	/* writel() orders the descriptors before the doorbell. */
	writel(o->queue->tail, o->regs + DMA_TEST_SQ_TAIL);
}

/* Also of a request that is answered twice. */
static void oracle_answer(struct oracle *o, u32 cookie)
{
	unsigned int i;

	for (i = 0; i < ORACLE_ASKS; i++) {
		if (o->asks.cookies[i] == cookie) {
			WRITE_ONCE(o->asks.cookies[i], 0);
			o->asks.answered++;
			return;
		}
	}
	o->asks.unexpected++;
}

/* Take what has completed. Returns how many transfers are on their way. */
static u32 oracle_reap(struct oracle *o)
{
	struct oracle_queue *q = o->queue;

	while (q->head != q->tail) {
		const u32 *entry = q->cq + ((q->head % q->nr_cq) <<
					    ORACLE_CQ_SHIFT);
		u64 first = le64_to_cpu(READ_ONCE(*(const __le64 *)entry));
		u32 cookie;

		if (lower_32_bits(first) != q->head + 1)
			break;
		/* The index was written last. */
		dma_rmb();
		if (upper_32_bits(first) != DMA_TEST_COMP_OK)
			o->error = "the device could not do a transfer";
		cookie = le32_to_cpu(READ_ONCE(*(const __le32 *)(entry + 2)));
		if (cookie & ORACLE_ASK)
			oracle_answer(o, cookie);
		q->head++;
		o->completions++;
	}
	return q->tail - q->head;
}

static bool oracle_is_stopping(struct oracle *o)
{
	return READ_ONCE(o->stopping);
}

/* Wait for everything that was submitted. Called under the lock. */
static int oracle_drain(struct oracle *o)
{
	unsigned long deadline = jiffies + ORACLE_TIMEOUT;

	while (oracle_reap(o)) {
		if (oracle_is_stopping(o))
			return -EIO;
		if (time_after(jiffies, deadline)) {
			o->error = "the device does not complete";
			return -ETIMEDOUT;
		}
		/* Not only on the interrupt: a poll finds lost ones. */
		wait_event_timeout(o->wait,
				   !oracle_reap(o) || oracle_is_stopping(o),
				   HZ / 50);
	}
	return 0;
}

static irqreturn_t oracle_irq(int irq, void *data)
{
	struct oracle *o = data;

	atomic_inc(&o->irqs);
	wake_up(&o->wait);
	return IRQ_HANDLED;
}

/* --- Frames ----------------------------------------------------------- */

static int oracle_map(struct oracle *o, struct oracle_frame *f)
{
	struct device *dev = &o->pdev->dev;

	if (f->is_mapped)
		return 0;

	f->dma = dma_map_page(dev, f->page, 0, PAGE_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(dev, f->dma))
		return -ENOMEM;

	f->is_mapped = true;
	return 0;
}

static void oracle_unmap(struct oracle *o, struct oracle_frame *f)
{
	if (!f->is_mapped)
		return;

	dma_unmap_page(&o->pdev->dev, f->dma, PAGE_SIZE, DMA_FROM_DEVICE);
	f->is_mapped = false;
}

static void oracle_set_free(struct oracle *o, struct oracle_set *set)
{
	unsigned int i;

	for (i = 0; set->frames && i < set->nr; i++) {
		if (!set->frames[i].page)
			break;
		oracle_unmap(o, &set->frames[i]);
		__free_page(set->frames[i].page);
	}
	kvfree(set->frames);
	set->frames = NULL;
}

static int oracle_set_alloc(struct oracle *o, u16 kind, unsigned int nr)
{
	struct oracle_set *set = oracle_set(o, kind);
	unsigned int i;

	set->kind = kind;
	set->nr = nr;
	set->frames = kvcalloc(nr, sizeof(*set->frames), GFP_KERNEL);
	if (!set->frames)
		return -ENOMEM;

	for (i = 0; i < nr; i++) {
		set->frames[i].page = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!set->frames[i].page)
			return -ENOMEM;
		/*
		 * Every other frame that will be unmapped is mapped only
		 * when the host logs already: both lives are to be seen.
		 */
		if (kind == DMA_TEST_KIND_UNMAPPED && i % 2)
			continue;
		if (oracle_map(o, &set->frames[i]))
			return -ENOMEM;
	}
	return 0;
}

static void oracle_frames_free(struct oracle *o)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(o->sets); i++)
		oracle_set_free(o, &o->sets[i]);
	if (o->periodic)
		dma_free_coherent(&o->pdev->dev,
				  ORACLE_PERIODIC_FRAMES * PAGE_SIZE,
				  o->periodic, o->periodic_dma);
	o->periodic = NULL;
	if (o->witness != o->queue)
		oracle_queue_free(o, o->witness);
	o->witness = NULL;
}

/* Have frames first .. last - 1 of the set stamped, and wait for it. */
static int oracle_stamp_range(struct oracle *o, struct oracle_set *set,
			      unsigned int first, unsigned int last)
{
	unsigned int i;
	int rc;

	for (i = first; i < last; i++) {
		rc = oracle_map(o, &set->frames[i]);
		if (rc)
			return rc;
	}
	for (i = first; i < last; i++)
		oracle_submit_stamp(o, set->frames[i].dma, set->kind,
				    i == last - 1 ? DMA_TEST_OP_IRQ : 0, 0);
	oracle_ring_doorbell(o);

	rc = oracle_drain(o);
	if (rc)
		return rc;

	o->stamps += last - first;
	return 0;
}

static int oracle_stamp_set(struct oracle *o, u16 kind)
{
	struct oracle_set *set = oracle_set(o, kind);
	unsigned int i, batch, first, last;
	int rc;

	batch = min_t(unsigned int, ORACLE_BATCH, oracle_queue_room(o->queue));
	for (first = 0; first < set->nr; first = last) {
		last = min(first + batch, set->nr);
		rc = oracle_stamp_range(o, set, first, last);
		if (rc)
			return rc;
		if (kind != DMA_TEST_KIND_UNMAPPED)
			continue;
		for (i = first; i < last; i++)
			oracle_unmap(o, &set->frames[i]);
	}
	return 0;
}

/* --- Self-test -------------------------------------------------------- */

/* Word i of a stamp; the device computes the same. */
static u64 oracle_stamp_word(u64 seed, unsigned int i)
{
	u64 z = seed + (u64)(i + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static bool oracle_is_stamped(struct page *page, u64 seed)
{
	const __le64 *words = page_address(page);
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*words); i++) {
		if (le64_to_cpu(words[i]) != oracle_stamp_word(seed, i))
			return false;
	}
	return true;
}

static int oracle_selftest_frame(struct oracle *o, struct oracle_frame *f)
{
	int irqs = atomic_read(&o->irqs);
	u64 seed = o->seed;
	int rc;

	rc = oracle_map(o, f);
	if (rc)
		return rc;
	oracle_submit_stamp(o, f->dma, DMA_TEST_KIND_OTHER, DMA_TEST_OP_IRQ, 0);
	oracle_ring_doorbell(o);
	rc = oracle_drain(o);
	oracle_unmap(o, f);
	if (rc)
		return rc;

	if (!wait_event_timeout(o->wait, atomic_read(&o->irqs) != irqs,
				5 * HZ)) {
		o->error = "self-test: no interrupt";
		return -ETIMEDOUT;
	}
	if (!oracle_is_stamped(f->page, seed)) {
		o->error = "self-test: wrong data";
		return -EBADMSG;
	}
	return 0;
}

/* Does the device do what it should? Uses fresh memory. Under the lock. */
static int oracle_selftest(struct oracle *o)
{
	struct oracle_frame f = {};
	int rc;

	f.page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!f.page)
		return -ENOMEM;

	rc = oracle_selftest_frame(o, &f);
	if (rc)
		o->selftest_errors++;
	else
		o->selftests++;
	/* A device that never answered may still write to it: leave it. */
	if (rc != -ETIMEDOUT && rc != -EIO)
		__free_page(f.page);
	return rc;
}

/* --- Stream ----------------------------------------------------------- */

static u32 oracle_stream_delay(unsigned int n)
{
	return ORACLE_STREAM_MIN_US +
	       n % ORACLE_STREAM_STEPS * ORACLE_STREAM_STEP_US;
}

static int oracle_stream_thread(void *data)
{
	struct oracle *o = data;
	struct oracle_set *set = oracle_set(o, DMA_TEST_KIND_INFLIGHT);
	unsigned int n = 0;

	while (!kthread_should_stop()) {
		u32 tail = o->queue->tail;

		oracle_reap(o);
		while (oracle_queue_room(o->queue)) {
			oracle_submit_stamp(o, set->frames[n % set->nr].dma,
					    set->kind, 0,
					    oracle_stream_delay(n));
			n++;
			if (o->mailbox && oracle_queue_room(o->queue))
				oracle_submit_mail(o, oracle_stream_delay(n));
		}
		if (tail != o->queue->tail)
			oracle_ring_doorbell(o);
		usleep_range(4000, 6000);
	}
	return 0;
}

static void oracle_stream_stop(struct oracle *o)
{
	if (!o->stream)
		return;

	kthread_stop(o->stream);
	o->stream = NULL;
}

/* --- Requests and answers --------------------------------------------- */

static bool oracle_is_waiting(struct oracle *o)
{
	unsigned int i;

	for (i = 0; i < ORACLE_ASKS; i++) {
		if (READ_ONCE(o->asks.cookies[i]))
			return true;
	}
	return false;
}

/* What a reset has ended is asked for again. */
static void oracle_ask_again(struct oracle *o)
{
	unsigned int i;

	for (i = 0; i < ORACLE_ASKS; i++) {
		if (!o->asks.cookies[i])
			continue;
		oracle_submit_ask(o, i);
		o->asks.repeated++;
	}
	oracle_ring_doorbell(o);
}

static void oracle_ask_more(struct oracle *o)
{
	unsigned int i;

	for (i = 0; i < ORACLE_ASKS && READ_ONCE(o->is_asking); i++) {
		if (o->asks.cookies[i])
			continue;
		oracle_submit_ask(o, i);
		o->asks.asked++;
	}
	oracle_ring_doorbell(o);
}

/* Nothing but an interrupt makes it look: one that is lost is not made up. */
static int oracle_ask_thread(void *data)
{
	struct oracle *o = data;

	oracle_ask_again(o);
	while (!kthread_should_stop()) {
		int irqs = atomic_read(&o->irqs);

		oracle_reap(o);
		oracle_ask_more(o);
		wake_up_all(&o->wait);
		wait_event_idle(o->wait, atomic_read(&o->irqs) != irqs ||
				kthread_should_stop());
	}
	return 0;
}

static int oracle_ask_start(struct oracle *o)
{
	struct task_struct *thread;

	thread = kthread_run(oracle_ask_thread, o, "dma_oracle/%s",
			     pci_name(o->pdev));
	if (IS_ERR(thread))
		return PTR_ERR(thread);

	o->stream = thread;
	o->state = ORACLE_ASKING;
	return 0;
}

/* --- The vector ------------------------------------------------------- */

static struct irq_data *oracle_irq_data(struct oracle *o)
{
	return irq_get_irq_data(pci_irq_vector(o->pdev,
					       DMA_TEST_VECTOR_COMPLETION));
}

/* The interrupt that was held back has to come. */
static int oracle_unmask(struct oracle *o)
{
	int irqs = atomic_read(&o->irqs);

	o->is_masked = false;
	pci_msi_unmask_irq(oracle_irq_data(o));
	if (!wait_event_timeout(o->wait, atomic_read(&o->irqs) != irqs,
				5 * HZ)) {
		o->error = "the interrupt that was pending is lost";
		return -ETIMEDOUT;
	}
	o->kept++;
	return 0;
}

/* --- Commands, all under the lock ------------------------------------- */

/*
 * From here on the log tells what is in the frames: all of them, the completion
 * ring included, were allocated just now and are zero.
 */
static int oracle_use_fresh_queue(struct oracle *o, struct oracle_queue *q)
{
	int rc;

	/* The old ring must not be written any more when it is freed. */
	rc = oracle_drain(o);
	if (rc)
		return rc;
	writel(0, o->regs + DMA_TEST_CONTROL);
	readl(o->regs + DMA_TEST_STATUS);
	oracle_queue_free(o, o->queue);
	o->queue = q;
	o->witness = q;
	writel(DMA_TEST_NOTE_FRESH, o->regs + DMA_TEST_NOTE);
	return oracle_queue_start(o);
}

static int oracle_cmd_prepare(struct oracle *o)
{
	struct oracle_queue *q;
	int rc;

	if (o->state != ORACLE_IDLE)
		return -EBUSY;

	q = oracle_queue_alloc(o);
	if (!q)
		return -ENOMEM;
	o->periodic = dma_alloc_coherent(&o->pdev->dev,
					 ORACLE_PERIODIC_FRAMES * PAGE_SIZE,
					 &o->periodic_dma, GFP_KERNEL);
	rc = o->periodic ? 0 : -ENOMEM;
	if (!rc)
		rc = oracle_set_alloc(o, DMA_TEST_KIND_UNMAPPED, unmapped);
	if (!rc)
		rc = oracle_set_alloc(o, DMA_TEST_KIND_MAPPED, mapped);
	if (!rc)
		rc = oracle_set_alloc(o, DMA_TEST_KIND_INFLIGHT, inflight);
	if (!rc)
		rc = oracle_use_fresh_queue(o, q);
	if (rc)
		goto out_free;

	o->state = ORACLE_READY;
	return 0;

out_free:
	if (o->queue != q)
		oracle_queue_free(o, q);
	oracle_frames_free(o);
	return rc;
}

static int oracle_cmd_stamp(struct oracle *o)
{
	int rc;

	if (o->state != ORACLE_READY)
		return -EBUSY;

	rc = oracle_stamp_set(o, DMA_TEST_KIND_UNMAPPED);
	if (rc)
		return rc;
	return oracle_stamp_set(o, DMA_TEST_KIND_MAPPED);
}

static int oracle_cmd_stream(struct oracle *o)
{
	struct task_struct *stream;

	if (o->state != ORACLE_READY)
		return -EBUSY;

	writeq(o->periodic_dma, o->regs + DMA_TEST_PERIODIC_ADDR);
	writel(ORACLE_PERIODIC_FRAMES, o->regs + DMA_TEST_PERIODIC_PAGES);
	writel(DMA_TEST_KIND_RING, o->regs + DMA_TEST_PERIODIC_KIND);
	writel(periodic_us, o->regs + DMA_TEST_PERIODIC_INTERVAL);

	stream = kthread_run(oracle_stream_thread, o, "dma_oracle/%s",
			     pci_name(o->pdev));
	if (IS_ERR(stream)) {
		writel(0, o->regs + DMA_TEST_PERIODIC_INTERVAL);
		return PTR_ERR(stream);
	}
	o->stream = stream;
	o->state = ORACLE_STREAMING;
	return 0;
}

/* The other test device of this machine. The caller puts it. */
static struct pci_dev *oracle_find_peer(struct oracle *o)
{
	struct pci_dev *pdev = NULL;

	do {
		pdev = pci_get_device(DMA_TEST_PCI_VENDOR, DMA_TEST_PCI_DEVICE,
				      pdev);
	} while (pdev == o->pdev);
	return pdev;
}

static void oracle_mailbox_unmap(struct oracle *o)
{
	if (o->mailbox)
		dma_unmap_resource(&o->pdev->dev, o->mailbox, sizeof(u32),
				   DMA_FROM_DEVICE, 0);
	o->mailbox = 0;
}

static int oracle_cmd_mail(struct oracle *o)
{
	struct pci_dev *peer;
	dma_addr_t dma;

	if (o->mailbox || o->state != ORACLE_READY)
		return -EBUSY;

	peer = oracle_find_peer(o);
	if (!peer)
		return -ENODEV;
	dma = dma_map_resource(&o->pdev->dev,
			       pci_resource_start(peer, DMA_TEST_BAR) +
			       DMA_TEST_NOTE, sizeof(u32), DMA_FROM_DEVICE, 0);
	pci_dev_put(peer);
	if (dma_mapping_error(&o->pdev->dev, dma))
		return -ENOMEM;

	o->mailbox = dma;
	return 0;
}

static int oracle_cmd_unstream(struct oracle *o)
{
	if (o->state != ORACLE_STREAMING)
		return -EBUSY;

	oracle_stream_stop(o);
	writel(0, o->regs + DMA_TEST_PERIODIC_INTERVAL);
	o->state = ORACLE_READY;
	return oracle_drain(o);
}

/* What the driver does when it does nothing on its own. */
static enum oracle_state oracle_calm(struct oracle *o)
{
	return o->periodic ? ORACLE_READY : ORACLE_IDLE;
}

static int oracle_cmd_ask(struct oracle *o)
{
	int rc;

	if (o->state != oracle_calm(o))
		return -EBUSY;

	o->asks = (struct oracle_asks) {};
	WRITE_ONCE(o->is_asking, true);
	rc = oracle_ask_start(o);
	if (rc)
		WRITE_ONCE(o->is_asking, false);
	return rc;
}

static int oracle_cmd_unask(struct oracle *o)
{
	unsigned long answered;

	if (o->state != ORACLE_ASKING)
		return -EBUSY;

	WRITE_ONCE(o->is_asking, false);
	wait_event_timeout(o->wait, !oracle_is_waiting(o) ||
			   oracle_is_stopping(o), ORACLE_ASK_TIMEOUT);
	if (oracle_is_stopping(o))
		return -EIO;

	oracle_stream_stop(o);
	o->state = oracle_calm(o);
	answered = o->asks.answered;
	oracle_reap(o);
	o->asks.silent = o->asks.answered - answered;
	if (o->asks.silent || oracle_is_waiting(o))
		return -ETIMEDOUT;
	return 0;
}

/* Have an interrupt pending. */
static int oracle_cmd_mask(struct oracle *o)
{
	if (o->state != oracle_calm(o) || o->is_masked)
		return -EBUSY;

	o->is_masked = true;
	pci_msi_mask_irq(oracle_irq_data(o));
	oracle_submit(o, DMA_TEST_OP_NOP | DMA_TEST_OP_IRQ,
		      DMA_TEST_KIND_OTHER, 0);
	oracle_ring_doorbell(o);
	return oracle_drain(o);
}

static int oracle_cmd_unmask(struct oracle *o)
{
	if (!o->is_masked)
		return -EBUSY;

	return oracle_unmask(o);
}

static int oracle_cmd_selftest(struct oracle *o)
{
	if (o->state != oracle_calm(o) || o->is_masked)
		return -EBUSY;

	return oracle_selftest(o);
}

static int oracle_cmd_poke_arm(struct oracle *o)
{
	o->is_poke_armed = true;
	return 0;
}

static int oracle_cmd_poke_arm_reset(struct oracle *o)
{
	o->is_bus_reset_armed = true;
	return oracle_cmd_poke_arm(o);
}

/* What a guest with one processor does that is in deep trouble: nothing. */
static int oracle_cmd_deaf(struct oracle *o)
{
	unsigned long flags;
	ktime_t end;

	writel(DMA_TEST_NOTE_DEAF, o->regs + DMA_TEST_NOTE);
	local_irq_save(flags);
	end = ktime_add_ms(ktime_get(), deaf_ms);
	while (ktime_before(ktime_get(), end))
		cpu_relax();
	local_irq_restore(flags);
	return 0;
}

static int oracle_cmd_release(struct oracle *o)
{
	if (o->state == ORACLE_STREAMING || o->state == ORACLE_ASKING ||
	    o->state == ORACLE_STOPPED)
		return -EBUSY;

	oracle_frames_free(o);
	oracle_mailbox_unmap(o);
	if (o->state == ORACLE_READY)
		o->state = ORACLE_IDLE;
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct oracle *o);
} oracle_commands[] = {
	{ "prepare", oracle_cmd_prepare },
	{ "stamp", oracle_cmd_stamp },
	{ "stream", oracle_cmd_stream },
	{ "unstream", oracle_cmd_unstream },
	{ "mail", oracle_cmd_mail },
	{ "ask", oracle_cmd_ask },
	{ "unask", oracle_cmd_unask },
	{ "mask", oracle_cmd_mask },
	{ "unmask", oracle_cmd_unmask },
	{ "selftest", oracle_cmd_selftest },
	{ "poke arm", oracle_cmd_poke_arm },
	{ "poke arm reset", oracle_cmd_poke_arm_reset },
	{ "deaf", oracle_cmd_deaf },
	{ "release", oracle_cmd_release },
};

static int oracle_run_command(struct oracle *o, const char *name)
{
	unsigned int i;
	int rc;

	for (i = 0; i < ARRAY_SIZE(oracle_commands); i++) {
		if (strcmp(name, oracle_commands[i].name))
			continue;
		mutex_lock(&o->lock);
		rc = oracle_commands[i].run(o);
		mutex_unlock(&o->lock);
		return rc;
	}
	return -EINVAL;
}

/* --- Files ------------------------------------------------------------ */

static ssize_t oracle_control_write(struct file *file, const char __user *ubuf,
				    size_t count, loff_t *ppos)
{
	char buf[32] = {};
	int rc;

	if (count >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, count))
		return -EFAULT;

	rc = oracle_run_command(file->private_data, strim(buf));
	return rc ? rc : count;
}

static const struct file_operations oracle_control_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = oracle_control_write,
};

static int oracle_status_show(struct seq_file *m, void *unused)
{
	struct oracle *o = m->private;

	/* Without the lock: a command that takes long is to be seen, too. */
	seq_printf(m, "state=%s\n", oracle_state_names[READ_ONCE(o->state)]);
	seq_printf(m, "resets=%lu\n", READ_ONCE(o->resets));
	seq_printf(m, "restores=%lu\n", READ_ONCE(o->restores));
	seq_printf(m, "selftests=%lu\n", READ_ONCE(o->selftests));
	seq_printf(m, "selftest_errors=%lu\n", READ_ONCE(o->selftest_errors));
	seq_printf(m, "stamps=%lu\n", READ_ONCE(o->stamps));
	seq_printf(m, "completions=%lu\n", READ_ONCE(o->completions));
	seq_printf(m, "irqs=%d\n", atomic_read(&o->irqs));
	seq_printf(m, "poked=%lu\n", READ_ONCE(o->poked));
	seq_printf(m, "asked=%lu\n", READ_ONCE(o->asks.asked));
	seq_printf(m, "answered=%lu\n", READ_ONCE(o->asks.answered));
	seq_printf(m, "repeated=%lu\n", READ_ONCE(o->asks.repeated));
	seq_printf(m, "unexpected=%lu\n", READ_ONCE(o->asks.unexpected));
	seq_printf(m, "silent=%lu\n", READ_ONCE(o->asks.silent));
	seq_printf(m, "kept=%lu\n", READ_ONCE(o->kept));
	seq_printf(m, "mailbox=0x%llx\n", (u64)READ_ONCE(o->mailbox));
	seq_printf(m, "error=%s\n", READ_ONCE(o->error));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(oracle_status);

static void oracle_show_frame(struct seq_file *m, const char *kind,
			      phys_addr_t phys, dma_addr_t dma)
{
	seq_printf(m, "%s 0x%llx 0x%llx\n", kind, (u64)phys, (u64)dma);
}

static void oracle_show_set(struct seq_file *m, const char *kind,
			    struct oracle_set *set)
{
	unsigned int i;

	for (i = 0; set->frames && i < set->nr; i++)
		oracle_show_frame(m, kind, page_to_phys(set->frames[i].page),
				  set->frames[i].dma);
}

/* Coherent memory has a linear address in a guest without an IOMMU. */
static void oracle_show_coherent(struct seq_file *m, void *cpu, dma_addr_t dma,
				 size_t bytes)
{
	size_t i;

	for (i = 0; cpu && i < bytes; i += PAGE_SIZE)
		oracle_show_frame(m, "ring",
				  is_vmalloc_addr(cpu) ?
				  page_to_phys(vmalloc_to_page(cpu + i)) :
				  virt_to_phys(cpu + i), dma + i);
}

static int oracle_pages_show(struct seq_file *m, void *unused)
{
	struct oracle *o = m->private;
	int rc;

	rc = mutex_lock_interruptible(&o->lock);
	if (rc)
		return rc;
	oracle_show_set(m, "unmapped", oracle_set(o, DMA_TEST_KIND_UNMAPPED));
	oracle_show_set(m, "mapped", oracle_set(o, DMA_TEST_KIND_MAPPED));
	oracle_show_set(m, "inflight", oracle_set(o, DMA_TEST_KIND_INFLIGHT));
	if (o->witness)
		oracle_show_coherent(m, o->witness->cq, o->witness->cq_dma,
				     o->witness->cq_bytes);
	oracle_show_coherent(m, o->periodic, o->periodic_dma,
			     ORACLE_PERIODIC_FRAMES * PAGE_SIZE);
	mutex_unlock(&o->lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(oracle_pages);

/* --- Reset and restore ------------------------------------------------ */

/*
 * What a driver with a bug, or a hurry, would do: use a device that has been
 * reset, with its ring bases 0. Harmless as long as the host fences the device.
 */
/* What a guest can do to its own bus, and a driver to be right after it. */
static void oracle_reset_bus(struct oracle *o)
{
	u32 bars[PCI_STD_NUM_BARS];
	int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		pci_read_config_dword(o->pdev, PCI_BASE_ADDRESS_0 + 4 * i,
				      &bars[i]);
	if (pci_bridge_secondary_bus_reset(o->pdev->bus->self))
		o->error = "the bus cannot be reset";
	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		pci_write_config_dword(o->pdev, PCI_BASE_ADDRESS_0 + 4 * i,
				       bars[i]);
	pci_write_config_word(o->pdev, PCI_COMMAND,
			      PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void oracle_poke(struct oracle *o)
{
	if (o->is_bus_reset_armed)
		oracle_reset_bus(o);
	o->is_bus_reset_armed = false;
	writel(DMA_TEST_CONTROL_ENABLE, o->regs + DMA_TEST_CONTROL);
	writel(DMA_TEST_DEFAULT_ENTRIES / 2, o->regs + DMA_TEST_SQ_TAIL);
	/* Wait until the device has the writes. */
	readl(o->regs + DMA_TEST_STATUS);
	/* The device acts a moment later: give it the chance to do harm. */
	msleep(200);
	o->poked++;
	o->is_poke_armed = false;
}

static void oracle_stop(struct oracle *o)
{
	WRITE_ONCE(o->stopping, true);
	wake_up_all(&o->wait);

	mutex_lock(&o->lock);
	oracle_stream_stop(o);
	/* What was answered before the reset is not asked for again. */
	oracle_reap(o);
	if (o->is_poke_armed)
		oracle_poke(o);
	o->state = ORACLE_STOPPED;
	o->resets++;
	mutex_unlock(&o->lock);
}

/* The device is reset: give it fresh rings, the old ones are evidence. */
static int oracle_start(struct oracle *o)
{
	struct oracle_queue *q;
	int rc;

	q = oracle_queue_alloc(o);
	if (!q)
		return -ENOMEM;

	mutex_lock(&o->lock);
	if (o->queue != o->witness)
		oracle_queue_free(o, o->queue);
	o->queue = q;
	WRITE_ONCE(o->stopping, false);
	rc = oracle_queue_start(o);
	if (rc) {
		o->error = "the device does not start";
		o->state = ORACLE_DEAD;
	}
	mutex_unlock(&o->lock);
	return rc;
}

static void oracle_restored(struct oracle *o)
{
	mutex_lock(&o->lock);
	if (o->state == ORACLE_STOPPED) {
		o->state = oracle_calm(o);
		if (o->is_masked)
			oracle_unmask(o);
		if (oracle_selftest(o) ||
		    ((o->is_asking || oracle_is_waiting(o)) &&
		     oracle_ask_start(o)))
			o->state = ORACLE_DEAD;
		else
			o->restores++;
	}
	mutex_unlock(&o->lock);
}

static pci_ers_result_t oracle_error_detected(struct pci_dev *pdev,
					      pci_channel_state_t state)
{
	if (state == pci_channel_io_perm_failure)
		return PCI_ERS_RESULT_DISCONNECT;

	oracle_stop(pci_get_drvdata(pdev));
	pci_disable_device(pdev);
	return PCI_ERS_RESULT_NEED_RESET;
}

static pci_ers_result_t oracle_slot_reset(struct pci_dev *pdev)
{
	if (pci_enable_device_mem(pdev))
		return PCI_ERS_RESULT_DISCONNECT;

	pci_set_master(pdev);
	/* Restoring uses up what was saved. */
	pci_save_state(pdev);
	if (oracle_start(pci_get_drvdata(pdev)))
		return PCI_ERS_RESULT_DISCONNECT;
	return PCI_ERS_RESULT_RECOVERED;
}

static void oracle_resume(struct pci_dev *pdev)
{
	oracle_restored(pci_get_drvdata(pdev));
}

static void oracle_reset_prepare(struct pci_dev *pdev)
{
	oracle_stop(pci_get_drvdata(pdev));
}

static void oracle_reset_done(struct pci_dev *pdev)
{
	struct oracle *o = pci_get_drvdata(pdev);

	pci_set_master(pdev);
	if (!oracle_start(o))
		oracle_restored(o);
}

static const struct pci_error_handlers oracle_err_handler = {
	.error_detected = oracle_error_detected,
	.slot_reset = oracle_slot_reset,
	.resume = oracle_resume,
	.reset_prepare = oracle_reset_prepare,
	.reset_done = oracle_reset_done,
};

/* --- Life ------------------------------------------------------------- */

static int oracle_request_irq(struct oracle *o)
{
	int rc;

	rc = pci_alloc_irq_vectors(o->pdev, 1, 1, PCI_IRQ_MSIX);
	if (rc < 0)
		return rc;

	rc = request_irq(pci_irq_vector(o->pdev, DMA_TEST_VECTOR_COMPLETION),
			 oracle_irq, 0, KBUILD_MODNAME, o);
	if (rc)
		pci_free_irq_vectors(o->pdev);
	return rc;
}

static void oracle_free_irq(struct oracle *o)
{
	free_irq(pci_irq_vector(o->pdev, DMA_TEST_VECTOR_COMPLETION), o);
	pci_free_irq_vectors(o->pdev);
}

static void oracle_create_files(struct oracle *o)
{
	o->dir = debugfs_create_dir(pci_name(o->pdev), oracle_root);
	debugfs_create_file("control", 0200, o->dir, o, &oracle_control_fops);
	debugfs_create_file("status", 0400, o->dir, o, &oracle_status_fops);
	debugfs_create_file("pages", 0400, o->dir, o, &oracle_pages_fops);
}

static int oracle_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct oracle *o;
	int rc;

	o = kzalloc(sizeof(*o), GFP_KERNEL);
	if (!o)
		return -ENOMEM;

	o->pdev = pdev;
	o->error = "none";
	/* Stamps of different lives of the driver differ. */
	o->seed = get_random_u64() & ~(u64)U32_MAX;
	mutex_init(&o->lock);
	init_waitqueue_head(&o->wait);

	rc = pci_enable_device_mem(pdev);
	if (rc)
		goto out_free;
	rc = pci_request_mem_regions(pdev, KBUILD_MODNAME);
	if (rc)
		goto out_disable;
	o->regs = pci_ioremap_bar(pdev, DMA_TEST_BAR);
	if (!o->regs) {
		rc = -ENOMEM;
		goto out_release;
	}
	rc = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (rc)
		goto out_iounmap;
	rc = oracle_request_irq(o);
	if (rc)
		goto out_iounmap;
	o->queue = oracle_queue_alloc(o);
	if (!o->queue) {
		rc = -ENOMEM;
		goto out_irq;
	}
	pci_set_master(pdev);
	rc = oracle_queue_start(o);
	if (rc)
		goto out_clear_master;

	pci_set_drvdata(pdev, o);
	pci_save_state(pdev);
	oracle_create_files(o);
	return 0;

out_clear_master:
	pci_clear_master(pdev);
	oracle_queue_free(o, o->queue);
out_irq:
	oracle_free_irq(o);
out_iounmap:
	iounmap(o->regs);
out_release:
	pci_release_mem_regions(pdev);
out_disable:
	pci_disable_device(pdev);
out_free:
	kfree(o);
	return rc;
}

static void oracle_remove(struct pci_dev *pdev)
{
	struct oracle *o = pci_get_drvdata(pdev);

	debugfs_remove_recursive(o->dir);
	WRITE_ONCE(o->stopping, true);
	oracle_stream_stop(o);
	writel(0, o->regs + DMA_TEST_PERIODIC_INTERVAL);
	writel(0, o->regs + DMA_TEST_CONTROL);
	/* What was issued lands although bus mastering is off: wait for it. */
	pci_wait_for_pending_transaction(pdev);
	pci_clear_master(pdev);
	oracle_frames_free(o);
	oracle_mailbox_unmap(o);
	oracle_queue_free(o, o->queue);
	oracle_free_irq(o);
	iounmap(o->regs);
	pci_release_mem_regions(pdev);
	pci_disable_device(pdev);
	kfree(o);
}

static const struct pci_device_id oracle_ids[] = {
	{ PCI_DEVICE(DMA_TEST_PCI_VENDOR, DMA_TEST_PCI_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, oracle_ids);

static struct pci_driver oracle_driver = {
	.name = KBUILD_MODNAME,
	.id_table = oracle_ids,
	.probe = oracle_probe,
	.remove = oracle_remove,
	.err_handler = &oracle_err_handler,
};

static int __init oracle_init(void)
{
	int rc;

	if (!is_power_of_2(ring) || ring > ORACLE_SQ_SIZE >>
	    (PAGE_SHIFT - ORACLE_CQ_SHIFT)) {
		pr_err("ring must be a power of two, at most 64\n");
		return -EINVAL;
	}
	if (!unmapped || !mapped || !inflight) {
		pr_err("there must be frames of each kind\n");
		return -EINVAL;
	}

	oracle_root = debugfs_create_dir(KBUILD_MODNAME, NULL);
	rc = pci_register_driver(&oracle_driver);
	if (rc)
		debugfs_remove_recursive(oracle_root);
	return rc;
}

static void __exit oracle_exit(void)
{
	pci_unregister_driver(&oracle_driver);
	debugfs_remove_recursive(oracle_root);
}

module_init(oracle_init);
module_exit(oracle_exit);

MODULE_DESCRIPTION("Driver of the DMA test device");
MODULE_LICENSE("GPL");

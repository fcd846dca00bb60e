// SPDX-License-Identifier: GPL-2.0-only
/*
 * The conversation with the host
 *
 * Requests go to the host in a virtqueue, any number at a time: an UNFENCE may
 * take as long as the reset of a function, and a sign of life must not wait for
 * it. A request that is given up stays allocated until the device returns it.
 *
 * The host speaks through the configuration space, see config_work().
 */
#include <linux/bitmap.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "devices.h"
#include "hooks.h"
#include "host.h"
#include "table.h"
#include "trace.h"

/*
 * How long the host may take to answer. Requests are answered by the host's
 * main loop, which can be busy for seconds at the end of a migration; UNFENCE
 * includes a reset, for which PCIe allows a function a minute.
 */
#define ANSWER_TIMEOUT	(30 * HZ)
#define UNFENCE_TIMEOUT	(90 * HZ)
/* How often to look whether the device broke: that wakes up nobody. */
#define BROKEN_POLL	HZ

/**
 * struct host - one virtio device
 * @vdev: the device
 * @vq: the request queue, or NULL while not connected
 * @vq_lock: guards @vq and request.done
 * @answered: woken for each answer, and when @closing is set
 * @closing: the device goes away: do not wait for it
 * @publish_unanswered: a PUBLISH or WITHDRAW was given up, and may have been, or
 *	be, executed nevertheless; under sections_mutex
 * @work: follows the configuration space; one at a time
 * @reports: entries of the status page that the host is to look at
 * @phase: VIRTIO_DMA_TRACK_PHASE_* in force; written by @work
 * @phase_seq: acknowledged last; written by @work
 * @held: the module is kept loaded; written by @work
 */
struct host {
	struct virtio_device *vdev;
	struct virtqueue *vq;
	spinlock_t vq_lock; /* vq, request.done */
	wait_queue_head_t answered;
	bool closing;
	bool publish_unanswered;
	struct work_struct work;
	DECLARE_BITMAP(reports, VIRTIO_DMA_TRACK_MAX_FUNCTIONS);
	u32 phase;
	u32 phase_seq;
	bool held;
};

/**
 * struct request - a request and its answer, as the device sees them
 * @resp: written by the device
 * @done: the device has returned it
 * @abandoned: nobody waits any more: whoever gets it back frees it
 * @size: bytes of @req
 * @req: read by the device
 */
struct request {
	struct virtio_dma_track_resp resp;
	bool done;
	bool abandoned;
	size_t size;
	struct virtio_dma_track_req req;
};

/* Memory may come, and ask for it to be published, before anything started. */
static struct dma_track_table *const table = &dma_track_table;
static struct virtio_dma_track_status *status;

/*
 * The one host, or NULL. Set when it is connected. Whoever uses it holds
 * host_srcu, which ends soon after closing is set.
 */
static struct host __rcu *the_host;
DEFINE_STATIC_SRCU(host_srcu);
/* Serialises connecting and disconnecting. Taken before sections_mutex. */
static DEFINE_MUTEX(connect_mutex);
/*
 * Serialises publishing, also with the_host's being set: a section that is
 * added before it is taken is published, by its taker or by who connects next.
 */
static DEFINE_MUTEX(sections_mutex);
/* For tests: what the host is taken to answer to PUBLISH; 0 if it is asked. */
static int pretended_answer;
/*
 * Follows the configuration space. A disk may be waiting for it, so it has a
 * thread in reserve.
 */
static struct workqueue_struct *config_wq;

/* --- Requests ------------------------------------------------------------- */

static int status_to_errno(u16 answer)
{
	static const int errnos[] = {
		[VIRTIO_DMA_TRACK_OK] = 0,
		[VIRTIO_DMA_TRACK_E_TYPE] = -EOPNOTSUPP,
		[VIRTIO_DMA_TRACK_E_FIELD] = -EINVAL,
		[VIRTIO_DMA_TRACK_E_STATE] = -EPERM,
		[VIRTIO_DMA_TRACK_E_NOT_RAM] = -EFAULT,
		[VIRTIO_DMA_TRACK_E_EXISTS] = -EEXIST,
		[VIRTIO_DMA_TRACK_E_NO_SECTION] = -ENOENT,
		[VIRTIO_DMA_TRACK_E_EMPTY] = -ENODATA,
		[VIRTIO_DMA_TRACK_E_NO_FUNCTION] = -ENXIO,
		[VIRTIO_DMA_TRACK_E_STALE] = -ESTALE,
		[VIRTIO_DMA_TRACK_E_BUSY] = -EBUSY,
		[VIRTIO_DMA_TRACK_E_RESET] = -EIO,
	};

	return answer < ARRAY_SIZE(errnos) ? errnos[answer] : -EPROTO;
}

/* A request with a payload of that many bytes, zeroed. */
static struct request *request_alloc(u16 type, u32 nr_entries, size_t payload)
{
	size_t size = offsetof(struct virtio_dma_track_req, setup) + payload;
	struct request *request;

	request = kzalloc(offsetof(struct request, req) +
			  max(size, sizeof(struct virtio_dma_track_req)),
			  GFP_KERNEL);
	if (!request)
		return NULL;

	request->size = size;
	request->req.type = cpu_to_le16(type);
	request->req.nr_entries = cpu_to_le32(nr_entries);
	/* What a device that answers with nothing is taken to say. */
	request->resp.status = cpu_to_le16(U16_MAX);
	return request;
}

static void request_queue_answered(struct virtqueue *vq)
{
	struct host *host = vq->vdev->priv;
	struct request *request;
	unsigned long flags;
	unsigned int len;

	spin_lock_irqsave(&host->vq_lock, flags);
	while ((request = virtqueue_get_buf(vq, &len))) {
		WRITE_ONCE(request->done, true);
		if (request->abandoned)
			kfree(request);
	}
	spin_unlock_irqrestore(&host->vq_lock, flags);
	wake_up_all(&host->answered);
}

/* -ENOSPC: the queue is full; try again when something is answered. */
static int request_submit(struct host *host, struct request *request)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };
	unsigned long flags;
	int rc;

	sg_init_one(&out, &request->req, request->size);
	sg_init_one(&in, &request->resp, sizeof(request->resp));

	spin_lock_irqsave(&host->vq_lock, flags);
	rc = host->closing ? -ENODEV :
	     virtqueue_add_sgs(host->vq, sgs, 1, 1, request, GFP_ATOMIC);
	if (!rc)
		virtqueue_kick(host->vq);
	spin_unlock_irqrestore(&host->vq_lock, flags);
	return rc;
}

static bool host_is_gone(struct host *host)
{
	return READ_ONCE(host->closing) || virtqueue_is_broken(host->vq);
}

static bool host_has_room(struct host *host)
{
	/* A hint: who finds no room after all waits again. */
	return data_race(host->vq->num_free) >= 2;
}

static int request_submit_when_room(struct host *host, struct request *request,
				    unsigned long deadline)
{
	int rc;

	for (;;) {
		rc = request_submit(host, request);
		if (rc != -ENOSPC)
			return rc == -EIO ? -ENODEV : rc;
		if (host_is_gone(host))
			return -ENODEV;
		if (time_after(jiffies, deadline))
			return -ETIMEDOUT;
		wait_event_timeout(host->answered,
				   host_has_room(host) || host_is_gone(host),
				   BROKEN_POLL);
	}
}

static void request_wait(struct host *host, struct request *request,
			 unsigned long deadline)
{
	while (!READ_ONCE(request->done) && !host_is_gone(host) &&
	       time_before(jiffies, deadline))
		wait_event_timeout(host->answered,
				   READ_ONCE(request->done) ||
				   host_is_gone(host), BROKEN_POLL);
}

/* Takes the request. */
static int request_finish(struct host *host, struct request *request)
{
	unsigned long flags;
	bool done;
	int rc;

	spin_lock_irqsave(&host->vq_lock, flags);
	done = request->done;
	request->abandoned = !done;
	spin_unlock_irqrestore(&host->vq_lock, flags);

	if (!done)
		return host_is_gone(host) ? -ENODEV : -ETIMEDOUT;

	rc = status_to_errno(le16_to_cpu(request->resp.status));
	kfree(request);
	return rc;
}

static void refresh_counters(void)
{
	struct dma_track_table_stats stats;
	u64 maps, unmaps;

	dma_track_hooks_read_counts(&maps, &unmaps);
	dma_track_table_read_stats(table, &stats);
	WRITE_ONCE(status->maps, cpu_to_le64(maps));
	WRITE_ONCE(status->unmaps, cpu_to_le64(unmaps));
	WRITE_ONCE(status->dirtied, cpu_to_le64(stats.dirtied));
	WRITE_ONCE(status->saturated, cpu_to_le64(stats.saturated));
	WRITE_ONCE(status->unknown_unmaps, cpu_to_le64(stats.unknown_unmaps));
	WRITE_ONCE(status->undirtied, cpu_to_le64(stats.undirtied));
}

/* Takes the request; see host.h for what it returns. */
static int request_send(struct host *host, struct request *request,
			unsigned long timeout)
{
	unsigned long deadline = jiffies + timeout;
	int rc;

	refresh_counters();
	rc = request_submit_when_room(host, request, deadline);
	if (rc) {
		kfree(request);
		return rc;
	}

	request_wait(host, request, deadline);
	return request_finish(host, request);
}

/* --- Sections ------------------------------------------------------------- */

static int publish(struct host *host, struct dma_track_section **sections,
		   unsigned int nr)
{
	struct virtio_dma_track_req_publish *entry;
	struct request *request;
	unsigned int i;
	int rc;

	request = request_alloc(VIRTIO_DMA_TRACK_REQ_PUBLISH, nr,
				nr * sizeof(*entry));
	if (!request)
		return -ENOMEM;

	/* As many as were allocated; the array's declaration is of one. */
	entry = request->req.publish;
	for (i = 0; i < nr; i++, entry++) {
		__le64 **planes = sections[i]->planes;
		phys_addr_t phys[DMA_TRACK_NR_PLANES] = {
			virt_to_phys(planes[DMA_TRACK_STREAMING]),
			virt_to_phys(planes[DMA_TRACK_COHERENT]),
		};

		entry->section = cpu_to_le32(sections[i]->nr);
		entry->streaming = cpu_to_le64(phys[DMA_TRACK_STREAMING]);
		entry->coherent = cpu_to_le64(phys[DMA_TRACK_COHERENT]);
	}

	rc = request_send(host, request, ANSWER_TIMEOUT);
	if (rc == -ETIMEDOUT)
		host->publish_unanswered = true;
	/*
	 * Published by a request that we gave up, or not withdrawn by one, for
	 * nobody else can: its planes are this section's.
	 */
	if (rc == -EEXIST && nr == 1 && host->publish_unanswered)
		rc = 0;
	if (rc)
		return rc;

	for (i = 0; i < nr; i++)
		WRITE_ONCE(sections[i]->accepted, true);
	return 0;
}

/*
 * A section in which the host knows no RAM is left out: what the guest takes
 * for RAM there is none that moves. The request says nothing of which one it
 * is, so ask for each; likewise if some are published already.
 */
static int publish_known(struct host *host, struct dma_track_section **sections,
			 unsigned int nr)
{
	unsigned int i;
	int rc;

	rc = publish(host, sections, nr);
	if (rc != -ENODATA && (rc != -EEXIST || nr == 1))
		return rc;

	for (i = 0; i < nr; i++) {
		rc = publish(host, &sections[i], 1);
		if (rc == -ENODATA)
			dev_warn(&host->vdev->dev,
				 "the host knows no memory in section 0x%x\n",
				 sections[i]->nr);
		else if (rc)
			return rc;
	}
	return 0;
}

static int publish_sections(struct host *host)
{
	struct dma_track_section **batch, *section;
	unsigned int nr = 0;
	u32 from = 0;
	int rc = 0;

	lockdep_assert_held(&sections_mutex);

	batch = kcalloc(VIRTIO_DMA_TRACK_MAX_ENTRIES, sizeof(*batch),
			GFP_KERNEL);
	if (!batch)
		return -ENOMEM;

	while ((section = dma_track_table_next(table, from))) {
		from = section->nr + 1;
		if (!section->accepted && !section->absent)
			batch[nr++] = section;
		if (nr < VIRTIO_DMA_TRACK_MAX_ENTRIES)
			continue;
		rc = publish_known(host, batch, nr);
		if (rc)
			goto out;
		nr = 0;
	}
	if (nr)
		rc = publish_known(host, batch, nr);
out:
	kfree(batch);
	return rc;
}

int dma_track_host_publish(u32 first, u32 last)
{
	struct dma_track_section *section;
	struct host *host;
	int idx, rc = READ_ONCE(pretended_answer);

	idx = srcu_read_lock(&host_srcu);
	mutex_lock(&sections_mutex);
	while ((section = dma_track_table_next(table, first)) &&
	       section->nr <= last) {
		section->absent = false;
		first = section->nr + 1;
	}
	host = srcu_dereference(the_host, &host_srcu);
	if (host && !rc)
		rc = publish_sections(host);
	mutex_unlock(&sections_mutex);
	srcu_read_unlock(&host_srcu, idx);
	return rc;
}

void dma_track_host_pretend(int rc)
{
	WRITE_ONCE(pretended_answer, rc);
}

/*
 * There is no memory in it, so nobody pins anything; should somebody do so
 * nevertheless, the frame is lost from the moment at which it is not accepted.
 */
static void withdraw(struct host *host, struct dma_track_section *section)
{
	struct request *request;
	int rc;

	request = request_alloc(VIRTIO_DMA_TRACK_REQ_WITHDRAW, 1,
				sizeof(request->req.withdraw));
	if (!request)
		return;
	request->req.withdraw[0].section = cpu_to_le32(section->nr);

	WRITE_ONCE(section->accepted, false);
	rc = request_send(host, request, ANSWER_TIMEOUT);
	if (!rc)
		return;
	/*
	 * Perhaps it is withdrawn, perhaps it will be. If it was not when its
	 * memory comes back, it is found to exist.
	 */
	if (rc == -ETIMEDOUT)
		host->publish_unanswered = true;
	else
		WRITE_ONCE(section->accepted, true);
}

static bool is_empty(struct dma_track_section *section)
{
	int i;

	for (i = 0; i < DMA_TRACK_NR_PLANES; i++)
		if (memchr_inv(section->planes[i], 0, DMA_TRACK_PLANE_SIZE))
			return false;
	return true;
}

void dma_track_host_withdraw(u32 first, u32 last)
{
	struct dma_track_section *section;
	struct host *host;
	int idx;

	idx = srcu_read_lock(&host_srcu);
	mutex_lock(&sections_mutex);
	host = srcu_dereference(the_host, &host_srcu);
	while ((section = dma_track_table_next(table, first)) &&
	       section->nr <= last) {
		first = section->nr + 1;
		if (!is_empty(section))
			continue;
		section->absent = true;
		if (host && section->accepted)
			withdraw(host, section);
	}
	mutex_unlock(&sections_mutex);
	srcu_read_unlock(&host_srcu, idx);
}

/* --- The configuration space ------------------------------------------------ */

static void read_config(struct host *host, void *to, size_t size)
{
	/* Again until no change came between. Four bytes at a time. */
	__virtio_cread_many(host->vdev, 0, to, size / 4, 4);
}

/*
 * What config_work() acts on: all but the functions.
 *
 * To acknowledge a phase that is not in force is to lose pages, so this does
 * not rely on the host's counting generations of its configuration space:
 * between two equal sequence numbers there is one phase.
 */
static void read_notices(struct host *host,
			 struct virtio_dma_track_config *config)
{
	u32 before;

	do {
		virtio_cread_le(host->vdev, struct virtio_dma_track_config,
				phase_seq, &before);
		read_config(host, config,
			    offsetof(struct virtio_dma_track_config,
				     functions));
	} while (le32_to_cpu(config->phase_seq) != before);
}

static void send_ack(struct host *host, u32 phase_seq)
{
	struct request *request;
	int rc = -ENOMEM;

	request = request_alloc(VIRTIO_DMA_TRACK_REQ_ACK, 1,
				sizeof(request->req.ack));
	if (request) {
		request->req.ack.phase_seq = cpu_to_le32(phase_seq);
		rc = request_send(host, request, ANSWER_TIMEOUT);
	}
	/* Stale: the next phase is in the configuration space already. */
	if (rc && rc != -ESTALE && !host_is_gone(host))
		dev_warn(&host->vdev->dev, "no answer to ACK: %d\n", rc);
}

static void send_alive(struct host *host,
		       const struct virtio_dma_track_config *config)
{
	struct request *request;
	int rc = -ENOMEM;

	request = request_alloc(VIRTIO_DMA_TRACK_REQ_ALIVE, 1,
				sizeof(request->req.alive));
	if (request) {
		request->req.alive.alive_seq = config->alive_seq;
		request->req.alive.reset_seq = config->reset_seq;
		rc = request_send(host, request, ANSWER_TIMEOUT);
	}
	if (rc && rc != -ESTALE && !host_is_gone(host))
		dev_warn(&host->vdev->dev, "no answer to ALIVE: %d\n", rc);
}

/*
 * While the host logs, the hooks must stay. Returns false if the module is being
 * unloaded already.
 */
static bool hold_module(struct host *host)
{
	if (!host->held)
		host->held = try_module_get(THIS_MODULE);
	return host->held;
}

static void let_go_of_module(struct host *host)
{
	if (host->held)
		module_put(THIS_MODULE);
	host->held = false;
}

static void follow_phase(struct host *host,
			 const struct virtio_dma_track_config *config)
{
	u32 phase = le32_to_cpu(config->phase);
	bool logging = phase == VIRTIO_DMA_TRACK_PHASE_LOGGING;

	/* Not acknowledged, the phase does not begin. */
	if (logging && !hold_module(host))
		return;
	/*
	 * Mappings may have been missed since the last look. Also when the
	 * phase is not new: ALIVE is asked for just before the vCPUs stop.
	 */
	if (logging && !dma_track_hooks_intact())
		dma_track_table_give_up(table, VIRTIO_DMA_TRACK_LOST_HOOK);
	dma_track_table_set_logging(table, logging);
	trace_dma_track_phase(phase, le32_to_cpu(config->phase_seq));
	WRITE_ONCE(host->phase, phase);
	send_ack(host, le32_to_cpu(config->phase_seq));
	WRITE_ONCE(host->phase_seq, le32_to_cpu(config->phase_seq));
	if (!logging)
		let_go_of_module(host);
}

static void send_reports(struct host *host)
{
	unsigned int index;

	for (index = 0; index < VIRTIO_DMA_TRACK_MAX_FUNCTIONS; index++) {
		struct request *request;
		int rc = -ENOMEM;

		/* First: it may change again. */
		if (!test_and_clear_bit(index, host->reports))
			continue;
		request = request_alloc(VIRTIO_DMA_TRACK_REQ_FUNCTION, 1,
					sizeof(request->req.function));
		if (request) {
			request->req.function.index = cpu_to_le32(index);
			rc = request_send(host, request, ANSWER_TIMEOUT);
		}
		/* The host reads the page itself when it matters. */
		if (rc && !host_is_gone(host))
			dev_warn(&host->vdev->dev,
				 "no answer to FUNCTION: %d\n", rc);
	}
}

/*
 * Acts on what the configuration space says now, and answers even if nothing is
 * new: an interrupt means that the host wants to hear, and it repeats it until
 * it does.
 */
static void config_work(struct work_struct *work)
{
	struct host *host = container_of(work, struct host, work);
	struct virtio_dma_track_config config;
	unsigned int noio;

	/* Too early; comes again when connected. */
	if (rcu_access_pointer(the_host) != host)
		return;

	/* It must not wait for a disk that waits for this. */
	noio = memalloc_noio_save();
	read_notices(host, &config);
	/*
	 * Begins to restore what was reset, and does not wait for it. First,
	 * because until then the guest is without the function.
	 */
	dma_track_devices_look();
	follow_phase(host, &config);
	send_alive(host, &config);
	send_reports(host);
	memalloc_noio_restore(noio);
}

static void host_config_changed(struct virtio_device *vdev)
{
	struct host *host = vdev->priv;

	queue_work(config_wq, &host->work);
}

void dma_track_host_report_function(unsigned int index)
{
	struct host *host;
	int idx;

	idx = srcu_read_lock(&host_srcu);
	host = srcu_dereference(the_host, &host_srcu);
	/* Connecting reports all entries. */
	if (host) {
		set_bit(index, host->reports);
		queue_work(config_wq, &host->work);
	}
	srcu_read_unlock(&host_srcu, idx);
}

void dma_track_host_flush_reports(void)
{
	struct host *host;
	int idx;

	idx = srcu_read_lock(&host_srcu);
	host = srcu_dereference(the_host, &host_srcu);
	/* Every wait in it is bounded, and ends when the host has gone. */
	if (host)
		flush_work(&host->work);
	srcu_read_unlock(&host_srcu, idx);
}

/*
 * Only as many as there are: an access can take long. The number is read again
 * with the functions, so that the two fit.
 */
static unsigned int read_functions(struct host *host,
				   struct virtio_dma_track_config *config)
{
	unsigned int nr, size;

	virtio_cread_le(host->vdev, struct virtio_dma_track_config,
			nr_functions, &nr);
	nr = min_t(u32, nr, ARRAY_SIZE(config->functions));
	size = offsetof(struct virtio_dma_track_config, functions[nr]);
	read_config(host, config, size);
	return min(nr, le32_to_cpu(config->nr_functions));
}

unsigned int
dma_track_host_read_functions(struct virtio_dma_track_config_function *functions)
{
	struct virtio_dma_track_config config;
	unsigned int nr = 0;
	struct host *host;
	int idx;

	idx = srcu_read_lock(&host_srcu);
	host = srcu_dereference(the_host, &host_srcu);
	if (host && !host_is_gone(host))
		nr = read_functions(host, &config);
	srcu_read_unlock(&host_srcu, idx);

	memcpy(functions, config.functions, nr * sizeof(*functions));
	return nr;
}

bool dma_track_host_find_function(u32 sbdf, u32 *generation)
{
	struct virtio_dma_track_config_function
		functions[VIRTIO_DMA_TRACK_MAX_CONFIG_FUNCTIONS];
	unsigned int i, nr = dma_track_host_read_functions(functions);

	for (i = 0; i < nr; i++)
		if (le32_to_cpu(functions[i].sbdf) == sbdf) {
			*generation = le32_to_cpu(functions[i].generation);
			return true;
		}
	return false;
}

/* --- Restore --------------------------------------------------------------- */

/* Takes the request, which may be NULL. */
static int send_to_host(struct request *request, unsigned long timeout)
{
	struct host *host;
	int idx, rc = -ENODEV;

	if (!request)
		return -ENOMEM;

	idx = srcu_read_lock(&host_srcu);
	host = srcu_dereference(the_host, &host_srcu);
	if (host)
		rc = request_send(host, request, timeout);
	else
		kfree(request);
	srcu_read_unlock(&host_srcu, idx);
	return rc;
}

int dma_track_host_unfence(u32 sbdf, u32 generation)
{
	struct request *request;

	request = request_alloc(VIRTIO_DMA_TRACK_REQ_UNFENCE, 1,
				sizeof(request->req.unfence));
	if (request) {
		request->req.unfence.sbdf = cpu_to_le32(sbdf);
		request->req.unfence.generation = cpu_to_le32(generation);
	}
	return send_to_host(request, UNFENCE_TIMEOUT);
}

int dma_track_host_restored(u32 sbdf, u32 generation, u32 result)
{
	struct request *request;

	request = request_alloc(VIRTIO_DMA_TRACK_REQ_RESTORED, 1,
				sizeof(request->req.restored));
	if (request) {
		request->req.restored.sbdf = cpu_to_le32(sbdf);
		request->req.restored.generation = cpu_to_le32(generation);
		request->req.restored.result = cpu_to_le32(result);
	}
	return send_to_host(request, ANSWER_TIMEOUT);
}

/* --- Coming and going -------------------------------------------------------- */

static int set_up(struct host *host)
{
	struct request *request;

	request = request_alloc(VIRTIO_DMA_TRACK_REQ_SETUP, 1,
				sizeof(request->req.setup));
	if (!request)
		return -ENOMEM;
	request->req.setup.status = cpu_to_le64(virt_to_phys(status));
	return request_send(host, request, ANSWER_TIMEOUT);
}

static int publish_and_connect(struct host *host)
{
	int rc;

	/* So that no section is added between the two. */
	mutex_lock(&sections_mutex);
	host->publish_unanswered = false;
	rc = publish_sections(host);
	if (!rc) {
		if (!dma_track_table_connect(table))
			dma_track_table_give_up(table,
						VIRTIO_DMA_TRACK_LOST_NO_SECTION);
		rcu_assign_pointer(the_host, host);
	}
	mutex_unlock(&sections_mutex);
	return rc;
}

static void close_queue(struct host *host)
{
	struct request *request;
	unsigned long flags;

	/* Nobody submits any more, and those who wait stop waiting. */
	spin_lock_irqsave(&host->vq_lock, flags);
	WRITE_ONCE(host->closing, true);
	spin_unlock_irqrestore(&host->vq_lock, flags);
	wake_up_all(&host->answered);

	rcu_assign_pointer(the_host, NULL);
	synchronize_srcu(&host_srcu);

	virtio_reset_device(host->vdev);
	cancel_work_sync(&host->work);
	while ((request = virtqueue_detach_unused_buf(host->vq)))
		kfree(request);
	host->vdev->config->del_vqs(host->vdev);
	host->vq = NULL;
}

static int connect(struct host *host)
{
	struct virtio_device *vdev = host->vdev;
	struct virtqueue *vq;
	bool sync_dirty;
	int rc;

	host->closing = false;
	vq = virtio_find_single_vq(vdev, request_queue_answered, "request");
	if (IS_ERR(vq))
		return PTR_ERR(vq);
	host->vq = vq;

	virtio_device_ready(vdev);

	rc = set_up(host);
	if (rc) {
		dev_err(&vdev->dev, "the host refuses the status page: %d\n",
			rc);
		goto out_close;
	}

	sync_dirty = virtio_has_feature(vdev, VIRTIO_DMA_TRACK_F_SYNC_DIRTY);
	dma_track_hooks_set_sync_dirty(sync_dirty);

	/* Reports come in as soon as it is connected. */
	bitmap_zero(host->reports, VIRTIO_DMA_TRACK_MAX_FUNCTIONS);
	rc = publish_and_connect(host);
	if (rc) {
		dev_err(&vdev->dev, "the host refuses the planes: %d\n", rc);
		goto out_disconnect;
	}

	/*
	 * Functions by name, before their drivers are loaded next; what became
	 * of functions so far; the phase.
	 */
	dma_track_devices_discover();
	dma_track_devices_report();
	queue_work(config_wq, &host->work);
	return 0;

out_disconnect:
	dma_track_hooks_set_sync_dirty(false);
	dma_track_table_disconnect(table);
out_close:
	close_queue(host);
	return rc;
}

static void disconnect(struct host *host)
{
	/* It could not be connected again after a freeze. */
	if (!host->vq)
		return;

	close_queue(host);
	/* After the reset: until then the host reads the planes. */
	dma_track_table_disconnect(table);
	dma_track_hooks_set_sync_dirty(false);
	let_go_of_module(host);
	host->phase = VIRTIO_DMA_TRACK_PHASE_IDLE;
}

static int host_probe(struct virtio_device *vdev)
{
	struct host *host;
	int rc;

	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1))
		return -ENODEV;

	host = kzalloc(sizeof(*host), GFP_KERNEL);
	if (!host)
		return -ENOMEM;

	host->vdev = vdev;
	spin_lock_init(&host->vq_lock);
	init_waitqueue_head(&host->answered);
	INIT_WORK(&host->work, config_work);
	vdev->priv = host;

	mutex_lock(&connect_mutex);
	rc = rcu_access_pointer(the_host) ? -EBUSY : connect(host);
	mutex_unlock(&connect_mutex);
	if (rc) {
		vdev->priv = NULL;
		kfree(host);
	}
	return rc;
}

static void host_remove(struct virtio_device *vdev)
{
	struct host *host = vdev->priv;

	mutex_lock(&connect_mutex);
	disconnect(host);
	mutex_unlock(&connect_mutex);
	vdev->priv = NULL;
	kfree(host);
}

#ifdef CONFIG_PM_SLEEP
static int host_freeze(struct virtio_device *vdev)
{
	mutex_lock(&connect_mutex);
	disconnect(vdev->priv);
	mutex_unlock(&connect_mutex);
	return 0;
}

static int host_restore(struct virtio_device *vdev)
{
	int rc;

	mutex_lock(&connect_mutex);
	rc = connect(vdev->priv);
	mutex_unlock(&connect_mutex);
	return rc;
}
#endif

void dma_track_host_read_state(struct dma_track_host_state *state)
{
	struct host *host;
	int idx;

	*state = (struct dma_track_host_state) {};
	idx = srcu_read_lock(&host_srcu);
	host = srcu_dereference(the_host, &host_srcu);
	if (host) {
		state->connected = true;
		state->sync_dirty =
			virtio_has_feature(host->vdev,
					   VIRTIO_DMA_TRACK_F_SYNC_DIRTY);
		state->phase = READ_ONCE(host->phase);
		state->phase_seq = READ_ONCE(host->phase_seq);
	}
	srcu_read_unlock(&host_srcu, idx);
}

static const struct virtio_device_id host_ids[] = {
	{ VIRTIO_ID_DMA_TRACK, VIRTIO_DEV_ANY_ID },
	{}
};
MODULE_DEVICE_TABLE(virtio, host_ids);

static const unsigned int host_features[] = { VIRTIO_DMA_TRACK_F_SYNC_DIRTY };

static struct virtio_driver host_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = host_ids,
	.feature_table = host_features,
	.feature_table_size = ARRAY_SIZE(host_features),
	.probe = host_probe,
	.remove = host_remove,
	.config_changed = host_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = host_freeze,
	.restore = host_restore,
#endif
};

int dma_track_host_start(struct virtio_dma_track_status *s)
{
	int rc;

	BUILD_BUG_ON(sizeof(struct virtio_dma_track_config) != 280);
	BUILD_BUG_ON(sizeof(struct virtio_dma_track_req_publish) != 24);
	BUILD_BUG_ON(sizeof(struct virtio_dma_track_resp) != 8);
	BUILD_BUG_ON(sizeof(struct virtio_dma_track_status) > PAGE_SIZE);
	BUILD_BUG_ON(DMA_TRACK_SECTION_FRAMES !=
		     VIRTIO_DMA_TRACK_SECTION_FRAMES);
	BUILD_BUG_ON(DMA_TRACK_SECTION_FRAME_SHIFT !=
		     VIRTIO_DMA_TRACK_SECTION_SHIFT -
		     VIRTIO_DMA_TRACK_FRAME_SHIFT);
	BUILD_BUG_ON(DMA_TRACK_PLANE_SIZE != VIRTIO_DMA_TRACK_PLANE_SIZE);
	BUILD_BUG_ON(VIRTIO_DMA_TRACK_LOST_NO != 0);

	status = s;
	config_wq = alloc_workqueue("dma_track",
				    WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM,
				    0);
	if (!config_wq)
		return -ENOMEM;

	rc = register_virtio_driver(&host_driver);
	if (rc)
		destroy_workqueue(config_wq);
	return rc;
}

void dma_track_host_stop(void)
{
	unregister_virtio_driver(&host_driver);
	destroy_workqueue(config_wq);
}

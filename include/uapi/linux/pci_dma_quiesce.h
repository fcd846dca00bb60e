/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * PCI DMA quiesce capability
 *
 * A Designated Vendor-Specific Extended Capability (DVSEC, PCI Express Base
 * Specification 6.0, section 7.9.6) of a PCI function. With it a host makes the
 * function stop its DMA without losing the function's state, and tells the
 * guest that owns the function when it was reset or replaced.
 *
 * FLUSH has the meaning of STOPPED in DEV_MODE_SET of VirtIO 1.4: the function
 * stops fetching descriptors, finishes and writes back what it had observed,
 * and then initiates no more transactions. Nothing is destroyed. RESUME goes on
 * from there.
 *
 * A host whose hardware has the capability drives it. A host that assigns
 * hardware without it presents an emulated one, in which FLUSH is not offered.
 *
 * The guest uses the capabilities and the generation only. CONTROL and STATUS
 * are the host's: the guest may read them, and the host that assigns the
 * function MUST NOT pass the guest's writes on. The function itself cannot tell
 * who writes.
 *
 * The words MUST, MUST NOT, SHOULD, SHOULD NOT and MAY are those of RFC 2119.
 * "The function" is the hardware, or its emulation, that offers FLUSH.
 *
 * From FLUSH to RESUME:
 *
 * - The function MUST NOT fetch a descriptor after it has seen FLUSH. What it
 *   had fetched before MUST be finished: data, write-backs and completions, in
 *   their usual order.
 * - An interrupt for something that was written back MUST be sent before STATUS
 *   reads QUIESCED, whatever moderation would delay it. One whose cause arises
 *   later MUST be kept and sent after RESUME. A message is a transaction too.
 * - The function MUST accept accesses to all its registers, doorbells among
 *   them. What they start takes effect after RESUME.
 * - What reaches the function from outside (a packet) SHOULD be kept until
 *   RESUME as far as there is room for it, and MUST NOT be written to memory.
 * - Other functions of the same device, its physical function included, MUST go
 *   on as before.
 * - COMMAND is not concerned: a host need not turn bus mastering off, and SHOULD
 *   NOT before STATUS reads QUIESCED, because what is unfinished needs it.
 *
 * A function SHOULD be QUIESCED within 100 milliseconds. A host MUST limit the
 * time that it waits; it MAY then write RESUME, or reset the function.
 *
 * All registers are little endian.
 */
#ifndef _UAPI_LINUX_PCI_DMA_QUIESCE_H
#define _UAPI_LINUX_PCI_DMA_QUIESCE_H

#include <linux/types.h>

/*
 * Provisional, as no number is assigned yet: Red Hat's vendor ID, under which
 * QEMU's own devices go, and a DVSEC ID that nobody is known to use there.
 */
#define PCI_DMA_QUIESCE_VENDOR		0x1b36
#define PCI_DMA_QUIESCE_DVSEC_ID	0x4451
#define PCI_DMA_QUIESCE_REVISION	1

/* Offsets from the start of the extended capability, and its length. */
#define PCI_DMA_QUIESCE_CAP		0x0a	/* 16 bits, read only */
#define PCI_DMA_QUIESCE_CONTROL		0x0c	/* 16 bits, host only */
#define PCI_DMA_QUIESCE_STATUS		0x0e	/* 16 bits, read only */
#define PCI_DMA_QUIESCE_GENERATION	0x10	/* 32 bits, read only */
#define PCI_DMA_QUIESCE_LENGTH		0x14

/* CAP: the function implements FLUSH and RESUME. */
#define PCI_DMA_QUIESCE_CAP_FLUSH	0x0001

/*
 * CONTROL: a write of one of these is a command; any other value is ignored. It
 * reads as zero. What a command does depends on the state:
 *
 *	state		FLUSH			RESUME
 *	RUNNING		FLUSHING		ignored
 *	FLUSHING	ignored			RUNNING
 *	QUIESCED	ignored			RUNNING
 *	ERROR		ignored			ignored
 *
 * STATUS reads as the new state when the write has completed, or as one that
 * follows from it: a function that has nothing to finish MAY be QUIESCED at
 * once. After RESUME the function goes on where it was, in FLUSHING too.
 */
#define PCI_DMA_QUIESCE_CONTROL_FLUSH	0x0001
#define PCI_DMA_QUIESCE_CONTROL_RESUME	0x0002

/*
 * STATUS: the state, in the low four bits; the others are zero. A reset of the
 * function (function level reset, or a reset of its bus) makes it RUNNING,
 * whatever it was, and drops what was kept for RESUME. A reset by registers of
 * the function's own does not change it.
 */
#define PCI_DMA_QUIESCE_STATUS_STATE	0x000f
/* The function works as if it had no such capability. */
#define PCI_DMA_QUIESCE_STATE_RUNNING	0x0
/* FLUSH was written and is not finished. */
#define PCI_DMA_QUIESCE_STATE_FLUSHING	0x1
/* The function initiates no transactions, and none is in flight. */
#define PCI_DMA_QUIESCE_STATE_QUIESCED	0x2
/*
 * FLUSH failed, and nobody can tell whether the function is quiet: it MAY go on
 * as if it was RUNNING. Only a reset of the function leads out of this state.
 */
#define PCI_DMA_QUIESCE_STATE_ERROR	0x3

/*
 * GENERATION: a number that the host increases whenever it has reset or
 * replaced the function under the guest. It wraps; only equality matters. A
 * reset that the guest itself asks for does not change it.
 *
 * Hardware cannot know: its register reads as zero, also after a reset, and the
 * host shows the guest a number of its own in this place.
 */

#endif /* _UAPI_LINUX_PCI_DMA_QUIESCE_H */

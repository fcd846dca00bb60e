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
 * are the host's; the guest may read them, and its writes are ignored.
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

/* CONTROL: write one of these; reads as zero. */
#define PCI_DMA_QUIESCE_CONTROL_FLUSH	0x0001
#define PCI_DMA_QUIESCE_CONTROL_RESUME	0x0002

/* STATUS: the state, in the low four bits. */
#define PCI_DMA_QUIESCE_STATUS_STATE	0x000f
/* The function works as if it had no such capability. */
#define PCI_DMA_QUIESCE_STATE_RUNNING	0x0
/* FLUSH was written and is not finished. */
#define PCI_DMA_QUIESCE_STATE_FLUSHING	0x1
/* The function initiates no transactions, and none is in flight. */
#define PCI_DMA_QUIESCE_STATE_QUIESCED	0x2
/* FLUSH failed. Only a reset of the function leads out of this state. */
#define PCI_DMA_QUIESCE_STATE_ERROR	0x3

/*
 * GENERATION: a number that the host increases whenever it has reset or
 * replaced the function under the guest. It wraps; only equality matters. A
 * reset that the guest itself asks for does not change it.
 */

#endif /* _UAPI_LINUX_PCI_DMA_QUIESCE_H */

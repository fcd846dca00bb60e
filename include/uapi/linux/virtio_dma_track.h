/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Virtio DMA tracking device
 *
 * The guest's DMA API knows which frames an assigned device may write. With
 * this device the guest tells the host, so that the host can live-migrate a
 * guest that owns passed-through PCI functions.
 *
 * Guest physical memory is cut into sections of 128 MiB. For each section the
 * driver publishes two pages of its own memory, called planes. Bit n of a
 * plane (bit n % 64 of little endian 64-bit word n / 64) stands for frame n of
 * the section. While a device may write a frame, the frame is pinned: its bit
 * is set in the streaming plane (dma_map_*) or in the coherent plane
 * (dma_alloc_*). The device reads planes whenever it wants, without asking.
 *
 * Pinned frames are not sent while devices run. When a frame stops being
 * pinned during the LOGGING phase, the driver dirties it first: it writes the
 * frame with an atomic operation that changes nothing, so that the ordinary
 * dirty log of the host takes over.
 *
 * There is one request virtqueue, from driver to device. A request is one
 * device-readable part, struct virtio_dma_track_req with as much of the
 * payload as its type needs, followed by one device-writable part, struct
 * virtio_dma_track_resp. In the other direction the device uses the
 * configuration space. It is level triggered: the driver acts on what it
 * reads, not on the number of interrupts, because an interrupt can be lost
 * while the guest moves. The device repeats the configuration interrupt until
 * the driver has echoed what is new.
 *
 * All fields are little endian. Reserved fields must be zero: the device
 * refuses a request in which one is not. A driver ignores reserved fields of
 * the configuration space.
 */
#ifndef _UAPI_LINUX_VIRTIO_DMA_TRACK_H
#define _UAPI_LINUX_VIRTIO_DMA_TRACK_H

#include <linux/types.h>
#include <linux/virtio_types.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_config.h>

/*
 * Provisional: no number is assigned yet. Non-standard numbers count down from
 * 63, and crosvm uses 61 to 63. The PCI device ID is 0x1040 + this.
 */
#ifndef VIRTIO_ID_DMA_TRACK
#define VIRTIO_ID_DMA_TRACK		60
#endif

/*
 * The device wants frames dirtied at dma_sync_*_for_cpu() as well, while they
 * stay mapped. Correctness does not depend on it: such frames stay pinned.
 */
#define VIRTIO_DMA_TRACK_F_SYNC_DIRTY	0

/* A frame is 4 KiB whatever the guest's page size is. */
#define VIRTIO_DMA_TRACK_FRAME_SHIFT	12
/* A section is 128 MiB: one bit per frame fills one plane of 4 KiB. */
#define VIRTIO_DMA_TRACK_SECTION_SHIFT	27
#define VIRTIO_DMA_TRACK_PLANE_SIZE	4096
#define VIRTIO_DMA_TRACK_SECTION_FRAMES	32768

/* Functions in the configuration space, and in the status page. */
#define VIRTIO_DMA_TRACK_MAX_CONFIG_FUNCTIONS	32
#define VIRTIO_DMA_TRACK_MAX_FUNCTIONS		64
/* Entries in one PUBLISH or WITHDRAW request. */
#define VIRTIO_DMA_TRACK_MAX_ENTRIES		128

/*
 * How a PCI function is named: segment << 16 | bus << 8 | device << 3 |
 * function, with the bus number that the guest has assigned.
 */
#define VIRTIO_DMA_TRACK_SBDF(segment, bus, devfn) \
	(((segment) << 16) | ((bus) << 8) | (devfn))

/* --- Configuration space: device to driver -------------------------- */

/* No migration is running; the driver need not dirty anything. */
#define VIRTIO_DMA_TRACK_PHASE_IDLE	0
/* The host logs writes: dirty each frame before it stops being pinned. */
#define VIRTIO_DMA_TRACK_PHASE_LOGGING	1

/**
 * struct virtio_dma_track_config_function - a function the host names
 * @sbdf: the function, see VIRTIO_DMA_TRACK_SBDF()
 * @generation: as in the capability of pci_dma_quiesce.h
 *
 * Functions that can carry the capability of pci_dma_quiesce.h are not listed.
 */
struct virtio_dma_track_config_function {
	__le32 sbdf;
	__le32 generation;
};

/**
 * struct virtio_dma_track_config - configuration space
 * @phase: VIRTIO_DMA_TRACK_PHASE_*
 * @phase_seq: changes with every change of @phase; echoed by ACK
 * @alive_seq: changes when the device wants a sign of life; echoed by ALIVE
 * @reset_seq: changes when the generation of any function has changed; echoed
 *	by ALIVE
 * @nr_functions: entries of @functions in use
 * @reserved: ignored by the driver
 * @functions: assigned functions without a capability of their own. The list
 *	is computed when it is read, with the bus numbers of that moment.
 *
 * Read only for the driver. Sequence numbers wrap; only equality matters.
 */
struct virtio_dma_track_config {
	__le32 phase;
	__le32 phase_seq;
	__le32 alive_seq;
	__le32 reset_seq;
	__le32 nr_functions;
	__le32 reserved;
	struct virtio_dma_track_config_function
		functions[VIRTIO_DMA_TRACK_MAX_CONFIG_FUNCTIONS];
};

/* --- Status page: shared, written by the driver --------------------- */

/* The driver has kept its promise so far. */
#define VIRTIO_DMA_TRACK_LOST_NO		0
/* A device was given memory that lies in no published section. */
#define VIRTIO_DMA_TRACK_LOST_NO_SECTION	1
/* The frame behind a DMA address could not be found. */
#define VIRTIO_DMA_TRACK_LOST_NO_FRAME		2
/* A hook was found disabled or bypassed. */
#define VIRTIO_DMA_TRACK_LOST_HOOK		3

/* The entry is not in use. */
#define VIRTIO_DMA_TRACK_FUNCTION_NONE		0
/* No driver is bound, and nothing is mapped. */
#define VIRTIO_DMA_TRACK_FUNCTION_UNBOUND	1
/* All mappings of the function are in the planes. */
#define VIRTIO_DMA_TRACK_FUNCTION_TRACKED	2
/* They are not, for the given reason. */
#define VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED	3

#define VIRTIO_DMA_TRACK_REASON_NONE		0
/* Its driver was bound before tracking began; unbind and bind it again. */
#define VIRTIO_DMA_TRACK_REASON_BOUND_BEFORE	1
/* It has no capability and is not named in the configuration space. */
#define VIRTIO_DMA_TRACK_REASON_NO_CAPABILITY	2
/* Its driver maps memory behind the DMA API (vfio-pci and the like). */
#define VIRTIO_DMA_TRACK_REASON_BEHIND_API	3
/* The driver of this device could not keep an account of it. */
#define VIRTIO_DMA_TRACK_REASON_NO_RESOURCES	4

/**
 * struct virtio_dma_track_function - what the driver says of one function
 * @sbdf: the function, see VIRTIO_DMA_TRACK_SBDF()
 * @state: VIRTIO_DMA_TRACK_FUNCTION_*
 * @reason: VIRTIO_DMA_TRACK_REASON_*, not NONE only if @state is UNTRACKED
 *
 * Eight bytes, naturally aligned: the driver writes it with one store, before
 * the event that it tells of has an effect. The driver MUST NOT take an entry
 * out of UNTRACKED before the device has answered a FUNCTION request made after
 * it became UNTRACKED, or the device may never see it.
 */
struct virtio_dma_track_function {
	__le32 sbdf;
	__le16 state;
	__le16 reason;
};

/**
 * struct virtio_dma_track_status - the status page
 * @lost: VIRTIO_DMA_TRACK_LOST_*. Once not LOST_NO it stays so as long as the
 *	driver is loaded, also across resets of the device, because mappings
 *	that the driver knows nothing of may live on. The device refuses to
 *	complete a migration meanwhile.
 * @reserved: zero
 * @maps: mappings counted since the driver started
 * @unmaps: mappings ended
 * @dirtied: frames dirtied
 * @saturated: frames whose private count overflowed; they stay pinned for ever
 * @unknown_unmaps: frames unmapped that were not known to be mapped
 * @undirtied: frames that could not be dirtied; they stay pinned for ever
 * @reserved2: zero
 * @functions: one entry per assigned function that the driver found
 *
 * One page of RAM, 4 KiB aligned. The device only reads it. The counters are
 * for people; the device draws no conclusion from them.
 */
struct virtio_dma_track_status {
	__le32 lost;
	__le32 reserved;
	__le64 maps;
	__le64 unmaps;
	__le64 dirtied;
	__le64 saturated;
	__le64 unknown_unmaps;
	__le64 undirtied;
	__le64 reserved2;
	struct virtio_dma_track_function
		functions[VIRTIO_DMA_TRACK_MAX_FUNCTIONS];
};

/* --- Requests: driver to device ------------------------------------- */

/* Name the status page. First request after a reset, and only once. */
#define VIRTIO_DMA_TRACK_REQ_SETUP	1
/* Publish the planes of sections: all of the request, or nothing. */
#define VIRTIO_DMA_TRACK_REQ_PUBLISH	2
/* Take the planes of sections back: all of the request, or nothing. */
#define VIRTIO_DMA_TRACK_REQ_WITHDRAW	3
/* An entry of the status page has changed. */
#define VIRTIO_DMA_TRACK_REQ_FUNCTION	4
/* The phase with this sequence number is in force on all CPUs. */
#define VIRTIO_DMA_TRACK_REQ_ACK	5
/* The driver is alive and has seen these sequence numbers. */
#define VIRTIO_DMA_TRACK_REQ_ALIVE	6
/*
 * The function's driver is stopped and nothing is mapped for it that is still
 * needed: reset the function and let it master the bus again. Answered when
 * that is done.
 */
#define VIRTIO_DMA_TRACK_REQ_UNFENCE	7
/* The function's driver was started again, or could not be. */
#define VIRTIO_DMA_TRACK_REQ_RESTORED	8

/* Each has one meaning. */
#define VIRTIO_DMA_TRACK_OK		0
/* The request's type is not known. */
#define VIRTIO_DMA_TRACK_E_TYPE		1
/* A field is out of range, or a reserved field is not zero. */
#define VIRTIO_DMA_TRACK_E_FIELD	2
/* The request is not allowed in this state, such as PUBLISH before SETUP. */
#define VIRTIO_DMA_TRACK_E_STATE	3
/* A page named by the request is not writable RAM of the guest. */
#define VIRTIO_DMA_TRACK_E_NOT_RAM	4
/* The section is published already, or a page is in use already. */
#define VIRTIO_DMA_TRACK_E_EXISTS	5
/* The section is not published. */
#define VIRTIO_DMA_TRACK_E_NO_SECTION	6
/* The section contains no RAM, or only such that is unplugged. */
#define VIRTIO_DMA_TRACK_E_EMPTY	7
/* No assigned function has this address. */
#define VIRTIO_DMA_TRACK_E_NO_FUNCTION	8
/* The sequence number or the generation is not the current one. */
#define VIRTIO_DMA_TRACK_E_STALE	9
/* Not while a migration is running; try again later. */
#define VIRTIO_DMA_TRACK_E_BUSY		10
/* The function could not be reset; it stays fenced. */
#define VIRTIO_DMA_TRACK_E_RESET	11

/**
 * struct virtio_dma_track_req_setup - payload of SETUP
 * @status: guest physical address of struct virtio_dma_track_status
 */
struct virtio_dma_track_req_setup {
	__le64 status;
};

/**
 * struct virtio_dma_track_req_publish - payload of PUBLISH, one per entry
 * @section: guest physical address >> VIRTIO_DMA_TRACK_SECTION_SHIFT
 * @reserved: zero
 * @streaming: guest physical address of the streaming plane, 4 KiB aligned
 * @coherent: guest physical address of the coherent plane, 4 KiB aligned
 *
 * The planes must be valid when the request is made: frames that are pinned
 * already have their bits set.
 */
struct virtio_dma_track_req_publish {
	__le32 section;
	__le32 reserved;
	__le64 streaming;
	__le64 coherent;
};

/**
 * struct virtio_dma_track_req_withdraw - payload of WITHDRAW, one per entry
 * @section: guest physical address >> VIRTIO_DMA_TRACK_SECTION_SHIFT
 * @reserved: zero
 */
struct virtio_dma_track_req_withdraw {
	__le32 section;
	__le32 reserved;
};

/**
 * struct virtio_dma_track_req_function - payload of FUNCTION
 * @index: which entry of virtio_dma_track_status.functions has changed
 * @reserved: zero
 */
struct virtio_dma_track_req_function {
	__le32 index;
	__le32 reserved;
};

/**
 * struct virtio_dma_track_req_ack - payload of ACK
 * @phase_seq: virtio_dma_track_config.phase_seq of the phase now in force
 * @reserved: zero
 *
 * After ACK of LOGGING no CPU ends a mapping without dirtying its frames.
 */
struct virtio_dma_track_req_ack {
	__le32 phase_seq;
	__le32 reserved;
};

/**
 * struct virtio_dma_track_req_alive - payload of ALIVE
 * @alive_seq: the value the driver has read
 * @reset_seq: the value the driver has read; it has looked, or is looking, at
 *	the generation of every function
 */
struct virtio_dma_track_req_alive {
	__le32 alive_seq;
	__le32 reset_seq;
};

/**
 * struct virtio_dma_track_req_unfence - payload of UNFENCE
 * @sbdf: the function
 * @generation: its generation as the driver has read it
 */
struct virtio_dma_track_req_unfence {
	__le32 sbdf;
	__le32 generation;
};

/* The function's driver works again. */
#define VIRTIO_DMA_TRACK_RESTORED_OK		0
/* The function's driver could not be started. */
#define VIRTIO_DMA_TRACK_RESTORED_FAILED	1
/* There was no driver to start. */
#define VIRTIO_DMA_TRACK_RESTORED_NO_DRIVER	2

/**
 * struct virtio_dma_track_req_restored - payload of RESTORED
 * @sbdf: the function
 * @generation: the generation that it was restored for
 * @result: VIRTIO_DMA_TRACK_RESTORED_*
 * @reserved: zero
 */
struct virtio_dma_track_req_restored {
	__le32 sbdf;
	__le32 generation;
	__le32 result;
	__le32 reserved;
};

/**
 * struct virtio_dma_track_req - a request
 * @type: VIRTIO_DMA_TRACK_REQ_*
 * @reserved: zero
 * @nr_entries: entries of the payload; 1 but for PUBLISH and WITHDRAW, where
 *	it is 1 to VIRTIO_DMA_TRACK_MAX_ENTRIES
 * @setup: payload of SETUP
 * @publish: payload of PUBLISH, @nr_entries of them
 * @withdraw: payload of WITHDRAW, @nr_entries of them
 * @function: payload of FUNCTION
 * @ack: payload of ACK
 * @alive: payload of ALIVE
 * @unfence: payload of UNFENCE
 * @restored: payload of RESTORED
 */
struct virtio_dma_track_req {
	__le16 type;
	__le16 reserved;
	__le32 nr_entries;
	union {
		struct virtio_dma_track_req_setup setup;
		struct virtio_dma_track_req_publish publish[1];
		struct virtio_dma_track_req_withdraw withdraw[1];
		struct virtio_dma_track_req_function function;
		struct virtio_dma_track_req_ack ack;
		struct virtio_dma_track_req_alive alive;
		struct virtio_dma_track_req_unfence unfence;
		struct virtio_dma_track_req_restored restored;
	};
};

/**
 * struct virtio_dma_track_resp - the answer to a request
 * @status: VIRTIO_DMA_TRACK_OK or VIRTIO_DMA_TRACK_E_*
 * @reserved: zero
 * @reserved2: zero
 */
struct virtio_dma_track_resp {
	__le16 status;
	__le16 reserved;
	__le32 reserved2;
};

#endif /* _UAPI_LINUX_VIRTIO_DMA_TRACK_H */

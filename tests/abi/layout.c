// SPDX-License-Identifier: GPL-2.0-only
/*
 * The layout of the contract, frozen. A line of this file changes only together
 * with the contract's version.
 */
#include <assert.h>
#include <stddef.h>

#include <linux/virtio_dma_track.h>
#include <linux/pci_dma_quiesce.h>

#define SIZE(type, size) \
	static_assert(sizeof(struct type) == (size), #type)
#define FIELD(type, field, offset, size) \
	static_assert(offsetof(struct type, field) == (offset) && \
		      sizeof(((struct type *)0)->field) == (size), \
		      #type "." #field)
#define VALUE(name, value) static_assert((name) == (value), #name)

VALUE(VIRTIO_ID_DMA_TRACK, 60);
VALUE(VIRTIO_DMA_TRACK_F_SYNC_DIRTY, 0);
VALUE(VIRTIO_DMA_TRACK_FRAME_SHIFT, 12);
VALUE(VIRTIO_DMA_TRACK_SECTION_SHIFT, 27);
VALUE(VIRTIO_DMA_TRACK_PLANE_SIZE, 4096);
VALUE(VIRTIO_DMA_TRACK_SECTION_FRAMES, 32768);
VALUE(VIRTIO_DMA_TRACK_PLANE_SIZE * 8, VIRTIO_DMA_TRACK_SECTION_FRAMES);
VALUE(VIRTIO_DMA_TRACK_MAX_CONFIG_FUNCTIONS, 32);
VALUE(VIRTIO_DMA_TRACK_MAX_FUNCTIONS, 64);
VALUE(VIRTIO_DMA_TRACK_MAX_ENTRIES, 128);
VALUE(VIRTIO_DMA_TRACK_SBDF(1, 2, 3), 0x10203);

SIZE(virtio_dma_track_config_function, 8);
FIELD(virtio_dma_track_config_function, sbdf, 0, 4);
FIELD(virtio_dma_track_config_function, generation, 4, 4);

SIZE(virtio_dma_track_config, 280);
FIELD(virtio_dma_track_config, phase, 0, 4);
FIELD(virtio_dma_track_config, phase_seq, 4, 4);
FIELD(virtio_dma_track_config, alive_seq, 8, 4);
FIELD(virtio_dma_track_config, reset_seq, 12, 4);
FIELD(virtio_dma_track_config, nr_functions, 16, 4);
FIELD(virtio_dma_track_config, functions, 24, 256);

VALUE(VIRTIO_DMA_TRACK_PHASE_IDLE, 0);
VALUE(VIRTIO_DMA_TRACK_PHASE_LOGGING, 1);

SIZE(virtio_dma_track_function, 8);
FIELD(virtio_dma_track_function, sbdf, 0, 4);
FIELD(virtio_dma_track_function, state, 4, 2);
FIELD(virtio_dma_track_function, reason, 6, 2);

SIZE(virtio_dma_track_status, 576);
FIELD(virtio_dma_track_status, lost, 0, 4);
FIELD(virtio_dma_track_status, maps, 8, 8);
FIELD(virtio_dma_track_status, unmaps, 16, 8);
FIELD(virtio_dma_track_status, dirtied, 24, 8);
FIELD(virtio_dma_track_status, saturated, 32, 8);
FIELD(virtio_dma_track_status, unknown_unmaps, 40, 8);
FIELD(virtio_dma_track_status, undirtied, 48, 8);
FIELD(virtio_dma_track_status, functions, 64, 512);

VALUE(VIRTIO_DMA_TRACK_LOST_NO, 0);
VALUE(VIRTIO_DMA_TRACK_LOST_NO_SECTION, 1);
VALUE(VIRTIO_DMA_TRACK_LOST_NO_FRAME, 2);
VALUE(VIRTIO_DMA_TRACK_LOST_HOOK, 3);
VALUE(VIRTIO_DMA_TRACK_FUNCTION_NONE, 0);
VALUE(VIRTIO_DMA_TRACK_FUNCTION_UNBOUND, 1);
VALUE(VIRTIO_DMA_TRACK_FUNCTION_TRACKED, 2);
VALUE(VIRTIO_DMA_TRACK_FUNCTION_UNTRACKED, 3);
VALUE(VIRTIO_DMA_TRACK_REASON_NONE, 0);
VALUE(VIRTIO_DMA_TRACK_REASON_BOUND_BEFORE, 1);
VALUE(VIRTIO_DMA_TRACK_REASON_NO_CAPABILITY, 2);
VALUE(VIRTIO_DMA_TRACK_REASON_BEHIND_API, 3);
VALUE(VIRTIO_DMA_TRACK_REASON_NO_RESOURCES, 4);

VALUE(VIRTIO_DMA_TRACK_REQ_SETUP, 1);
VALUE(VIRTIO_DMA_TRACK_REQ_PUBLISH, 2);
VALUE(VIRTIO_DMA_TRACK_REQ_WITHDRAW, 3);
VALUE(VIRTIO_DMA_TRACK_REQ_FUNCTION, 4);
VALUE(VIRTIO_DMA_TRACK_REQ_ACK, 5);
VALUE(VIRTIO_DMA_TRACK_REQ_ALIVE, 6);
VALUE(VIRTIO_DMA_TRACK_REQ_UNFENCE, 7);
VALUE(VIRTIO_DMA_TRACK_REQ_RESTORED, 8);

VALUE(VIRTIO_DMA_TRACK_OK, 0);
VALUE(VIRTIO_DMA_TRACK_E_TYPE, 1);
VALUE(VIRTIO_DMA_TRACK_E_FIELD, 2);
VALUE(VIRTIO_DMA_TRACK_E_STATE, 3);
VALUE(VIRTIO_DMA_TRACK_E_NOT_RAM, 4);
VALUE(VIRTIO_DMA_TRACK_E_EXISTS, 5);
VALUE(VIRTIO_DMA_TRACK_E_NO_SECTION, 6);
VALUE(VIRTIO_DMA_TRACK_E_EMPTY, 7);
VALUE(VIRTIO_DMA_TRACK_E_NO_FUNCTION, 8);
VALUE(VIRTIO_DMA_TRACK_E_STALE, 9);
VALUE(VIRTIO_DMA_TRACK_E_BUSY, 10);
VALUE(VIRTIO_DMA_TRACK_E_RESET, 11);

VALUE(VIRTIO_DMA_TRACK_RESTORED_OK, 0);
VALUE(VIRTIO_DMA_TRACK_RESTORED_FAILED, 1);
VALUE(VIRTIO_DMA_TRACK_RESTORED_NO_DRIVER, 2);

SIZE(virtio_dma_track_req_setup, 8);
FIELD(virtio_dma_track_req_setup, status, 0, 8);
SIZE(virtio_dma_track_req_publish, 24);
FIELD(virtio_dma_track_req_publish, section, 0, 4);
FIELD(virtio_dma_track_req_publish, streaming, 8, 8);
FIELD(virtio_dma_track_req_publish, coherent, 16, 8);
SIZE(virtio_dma_track_req_withdraw, 8);
FIELD(virtio_dma_track_req_withdraw, section, 0, 4);
SIZE(virtio_dma_track_req_function, 8);
FIELD(virtio_dma_track_req_function, index, 0, 4);
SIZE(virtio_dma_track_req_ack, 8);
FIELD(virtio_dma_track_req_ack, phase_seq, 0, 4);
SIZE(virtio_dma_track_req_alive, 8);
FIELD(virtio_dma_track_req_alive, alive_seq, 0, 4);
FIELD(virtio_dma_track_req_alive, reset_seq, 4, 4);
SIZE(virtio_dma_track_req_unfence, 8);
FIELD(virtio_dma_track_req_unfence, sbdf, 0, 4);
FIELD(virtio_dma_track_req_unfence, generation, 4, 4);
SIZE(virtio_dma_track_req_restored, 16);
FIELD(virtio_dma_track_req_restored, sbdf, 0, 4);
FIELD(virtio_dma_track_req_restored, generation, 4, 4);
FIELD(virtio_dma_track_req_restored, result, 8, 4);
SIZE(virtio_dma_track_req, 32);
FIELD(virtio_dma_track_req, type, 0, 2);
FIELD(virtio_dma_track_req, nr_entries, 4, 4);
FIELD(virtio_dma_track_req, publish, 8, 24);
FIELD(virtio_dma_track_req, setup, 8, 8);
FIELD(virtio_dma_track_req, withdraw, 8, 8);
FIELD(virtio_dma_track_req, function, 8, 8);
FIELD(virtio_dma_track_req, ack, 8, 8);
FIELD(virtio_dma_track_req, alive, 8, 8);
FIELD(virtio_dma_track_req, unfence, 8, 8);
FIELD(virtio_dma_track_req, restored, 8, 16);
SIZE(virtio_dma_track_resp, 8);
FIELD(virtio_dma_track_resp, status, 0, 2);

VALUE(PCI_DMA_QUIESCE_VENDOR, 0x1b36);
VALUE(PCI_DMA_QUIESCE_DVSEC_ID, 0x4451);
VALUE(PCI_DMA_QUIESCE_REVISION, 1);
VALUE(PCI_DMA_QUIESCE_CAP, 0x0a);
VALUE(PCI_DMA_QUIESCE_CONTROL, 0x0c);
VALUE(PCI_DMA_QUIESCE_STATUS, 0x0e);
VALUE(PCI_DMA_QUIESCE_GENERATION, 0x10);
VALUE(PCI_DMA_QUIESCE_LENGTH, 0x14);
VALUE(PCI_DMA_QUIESCE_CAP_FLUSH, 1);
VALUE(PCI_DMA_QUIESCE_CONTROL_FLUSH, 1);
VALUE(PCI_DMA_QUIESCE_CONTROL_RESUME, 2);
VALUE(PCI_DMA_QUIESCE_STATUS_STATE, 0xf);
VALUE(PCI_DMA_QUIESCE_STATE_RUNNING, 0);
VALUE(PCI_DMA_QUIESCE_STATE_FLUSHING, 1);
VALUE(PCI_DMA_QUIESCE_STATE_QUIESCED, 2);
VALUE(PCI_DMA_QUIESCE_STATE_ERROR, 3);

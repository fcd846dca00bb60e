/*
 * What the guest has published to a virtio DMA tracking device
 *
 * Of the device alone. All functions want the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_DMA_TRACK_SECTIONS_H
#define HW_VIRTIO_DMA_TRACK_SECTIONS_H

#include "hw/virtio/virtio-dma-track.h"
#include "migration/vmstate.h"

/**
 * virtio_dma_track_sections_init: begin with nothing published
 * @s: the device
 */
void virtio_dma_track_sections_init(VirtIODMATrack *s);

/**
 * virtio_dma_track_sections_finalize: free what init has made
 * @s: the device; virtio_dma_track_forget_guest() was called, and
 *     s->listener is not registered any more
 */
void virtio_dma_track_sections_finalize(VirtIODMATrack *s);

/**
 * virtio_dma_track_sections_listen: learn what of guest memory is RAM
 * @s: the device. Unregister s->listener to end it.
 */
void virtio_dma_track_sections_listen(VirtIODMATrack *s);

/**
 * virtio_dma_track_page_aligned: may a page of the guest begin at @gpa?
 * @gpa: guest physical address, in bytes
 */
bool virtio_dma_track_page_aligned(uint64_t gpa);

/**
 * virtio_dma_track_page_get: look up page->gpa, and take a reference
 * @page: with its gpa, aligned; mr and offset are filled in
 *
 * Returns: false, and no reference, if it is not writable RAM that is there
 *     now and moves with the guest
 */
bool virtio_dma_track_page_get(VirtIODMATrackPage *page);

/**
 * virtio_dma_track_page_usable: can the page be read now?
 * @page: with a reference or, after loading, without
 */
bool virtio_dma_track_page_usable(const VirtIODMATrackPage *page);

/**
 * virtio_dma_track_page_host: where the page is for us
 * @page: one that is usable
 *
 * Returns: 4096 bytes that the guest may be writing
 */
const void *virtio_dma_track_page_host(const VirtIODMATrackPage *page);

/**
 * virtio_dma_track_page_in_use: is it a plane, or the status page?
 * @s: the device
 * @gpa: guest physical address, in bytes
 */
bool virtio_dma_track_page_in_use(VirtIODMATrack *s, hwaddr gpa);

/**
 * virtio_dma_track_section: find a published section
 * @s: the device
 * @section: its number: guest physical address in units of 128 MiB
 *
 * Returns: the section, or NULL
 */
VirtIODMATrackSection *virtio_dma_track_section(VirtIODMATrack *s,
                                                uint32_t section);

/**
 * virtio_dma_track_section_has_populated_ram: is there RAM in it, now?
 * @s: the device
 * @section: its number
 *
 * Of virtio-mem all can be unplugged. Of no use while loading: what is plugged
 * may be loaded later.
 */
bool virtio_dma_track_section_has_populated_ram(VirtIODMATrack *s,
                                                uint32_t section);

/**
 * virtio_dma_track_section_insert: publish a section
 * @s: the device, which takes over @sec and the references that it holds
 * @sec: one whose number is not published and whose pages are not in use
 */
void virtio_dma_track_section_insert(VirtIODMATrack *s,
                                     VirtIODMATrackSection *sec);

/**
 * virtio_dma_track_section_remove: withdraw a section, and free it
 * @s: the device
 * @section: the number of one that is published
 */
void virtio_dma_track_section_remove(VirtIODMATrack *s, uint32_t section);

/**
 * virtio_dma_track_section_free: free a section that was not published
 * @opaque: VirtIODMATrackSection; its references are dropped
 */
void virtio_dma_track_section_free(gpointer opaque);

/**
 * virtio_dma_track_forget_guest: withdraw all, the status page too
 * @s: the device
 */
void virtio_dma_track_forget_guest(VirtIODMATrack *s);

/**
 * virtio_dma_track_resolve: look up what was loaded from a stream
 * @s: the device; s->broken is set if a page is not writable RAM
 *
 * After loading, the addresses of pages are known but not what lies there: it
 * can depend on devices that are loaded later. Idempotent.
 */
void virtio_dma_track_resolve(VirtIODMATrack *s);

/* DMATrackProviderClass.merge_pinned */
void virtio_dma_track_merge_pinned(DMATrackProvider *p, RAMBlock *rb,
                                   unsigned long *bmap, uint64_t *streaming,
                                   uint64_t *coherent);

/* DMATrackProviderClass.count_pinned */
uint64_t virtio_dma_track_count_pinned(DMATrackProvider *p,
                                       uint64_t *streaming,
                                       uint64_t *coherent);

/* The sections in the stream; the field is the device. */
extern const VMStateInfo virtio_dma_track_vmstate_sections;

#endif

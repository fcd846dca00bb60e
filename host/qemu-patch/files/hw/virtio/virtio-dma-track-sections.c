/*
 * What the guest has published to a virtio DMA tracking device: its status
 * page, and sections with their planes
 *
 * All of it lies in the guest's memory, which can be unplugged, shrink, or be
 * no memory at all: every page is looked up when it is published, and asked
 * for again whenever it is read.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/target_page.h"
#include "hw/virtio/virtio-dma-track.h"
#include "migration/qemu-file-types.h"
#include "qapi/error.h"
#include "qemu/host-utils.h"
#include "system/address-spaces.h"
#include "system/ram-discard-manager.h"
#include "system/ramblock.h"
#include "virtio-dma-track-sections.h"

#define VIRTIO_DMA_TRACK_FRAME_SIZE \
    (UINT64_C(1) << VIRTIO_DMA_TRACK_FRAME_SHIFT)
#define VIRTIO_DMA_TRACK_SECTION_SIZE \
    (UINT64_C(1) << VIRTIO_DMA_TRACK_SECTION_SHIFT)

/* --- Guest RAM --------------------------------------------------------- */

static bool virtio_dma_track_is_ram(MemoryRegion *mr)
{
    return mr && memory_region_is_ram(mr) && mr->ram_block &&
           !memory_region_is_ram_device(mr);
}

static void virtio_dma_track_region_add(MemoryListener *listener,
                                        MemoryRegionSection *mrs)
{
    VirtIODMATrack *s = container_of(listener, VirtIODMATrack, listener);
    VirtIODMATrackRange range = {
        .gpa = mrs->offset_within_address_space,
        .size = int128_get64(mrs->size),
        .mr = mrs->mr,
        .offset = mrs->offset_within_region,
    };

    if (!virtio_dma_track_is_ram(mrs->mr)) {
        return;
    }
    memory_region_ref(range.mr);
    g_array_append_val(s->ranges, range);
}

static void virtio_dma_track_region_del(MemoryListener *listener,
                                        MemoryRegionSection *mrs)
{
    VirtIODMATrack *s = container_of(listener, VirtIODMATrack, listener);
    guint i;

    for (i = 0; i < s->ranges->len; i++) {
        VirtIODMATrackRange *range = &g_array_index(s->ranges,
                                                    VirtIODMATrackRange, i);

        if (range->mr == mrs->mr &&
            range->gpa == mrs->offset_within_address_space &&
            range->offset == mrs->offset_within_region) {
            memory_region_unref(range->mr);
            g_array_remove_index_fast(s->ranges, i);
            return;
        }
    }
}

/* Does the section contain RAM? Written so that no sum can wrap. */
static bool virtio_dma_track_section_has_ram(VirtIODMATrack *s,
                                             uint32_t section)
{
    hwaddr gpa = (hwaddr)section << VIRTIO_DMA_TRACK_SECTION_SHIFT;
    guint i;

    for (i = 0; i < s->ranges->len; i++) {
        VirtIODMATrackRange *range = &g_array_index(s->ranges,
                                                    VirtIODMATrackRange, i);

        if (range->gpa >= gpa ?
            range->gpa - gpa < VIRTIO_DMA_TRACK_SECTION_SIZE :
            gpa - range->gpa < range->size) {
            return true;
        }
    }
    return false;
}

static int virtio_dma_track_found_populated(const MemoryRegionSection *mrs,
                                            void *opaque)
{
    bool *found = opaque;

    *found = true;
    /* That is enough. */
    return -ECANCELED;
}

bool virtio_dma_track_section_has_populated_ram(VirtIODMATrack *s,
                                                uint32_t section)
{
    hwaddr gpa = (hwaddr)section << VIRTIO_DMA_TRACK_SECTION_SHIFT;
    hwaddr last_gpa = gpa + (VIRTIO_DMA_TRACK_SECTION_SIZE - 1);
    bool found = false;
    guint i;

    for (i = 0; i < s->ranges->len && !found; i++) {
        VirtIODMATrackRange *range = &g_array_index(s->ranges,
                                                    VirtIODMATrackRange, i);
        hwaddr first = MAX(range->gpa, gpa);
        hwaddr last = MIN(range->gpa + (range->size - 1), last_gpa);
        RamDiscardManager *rdm;
        MemoryRegionSection mrs;

        if (first > last) {
            continue;
        }
        rdm = memory_region_get_ram_discard_manager(range->mr);
        if (!rdm) {
            return true;
        }
        mrs = (MemoryRegionSection) {
            .mr = range->mr,
            .offset_within_region = range->offset + (first - range->gpa),
            .size = int128_make64(last - first + 1),
        };
        ram_discard_manager_replay_populated(
            rdm, &mrs, virtio_dma_track_found_populated, &found);
    }
    return found;
}

bool virtio_dma_track_page_aligned(uint64_t gpa)
{
    return !(gpa & (VIRTIO_DMA_TRACK_FRAME_SIZE - 1));
}

/*
 * Reading unplugged memory of virtio-mem would populate it, and a resizable
 * block can have shrunk.
 */
bool virtio_dma_track_page_usable(const VirtIODMATrackPage *page)
{
    MemoryRegionSection mrs = {
        .mr = page->mr,
        .offset_within_region = page->offset,
        .size = int128_make64(VIRTIO_DMA_TRACK_PLANE_SIZE),
    };
    RamDiscardManager *rdm;
    ram_addr_t used;

    if (!page->mr) {
        return false;
    }
    used = qemu_ram_get_used_length(page->mr->ram_block);
    if (used < VIRTIO_DMA_TRACK_PLANE_SIZE ||
        page->offset > used - VIRTIO_DMA_TRACK_PLANE_SIZE) {
        return false;
    }
    rdm = memory_region_get_ram_discard_manager(page->mr);
    return !rdm || ram_discard_manager_is_populated(rdm, &mrs);
}

const void *virtio_dma_track_page_host(const VirtIODMATrackPage *page)
{
    return (uint8_t *)memory_region_get_ram_ptr(page->mr) + page->offset;
}

static void virtio_dma_track_page_put(VirtIODMATrackPage *page)
{
    if (page->mr) {
        memory_region_unref(page->mr);
        page->mr = NULL;
    }
}

/* The BQL is held, so that the result cannot change under the caller. */
bool virtio_dma_track_page_get(VirtIODMATrackPage *page)
{
    MemoryRegionSection mrs =
        memory_region_find(get_system_memory(), page->gpa,
                           VIRTIO_DMA_TRACK_PLANE_SIZE);

    if (!mrs.mr) {
        return false;
    }
    if (!virtio_dma_track_is_ram(mrs.mr) || mrs.readonly || mrs.mr->readonly ||
        int128_get64(mrs.size) != VIRTIO_DMA_TRACK_PLANE_SIZE ||
        !qemu_ram_is_migratable(mrs.mr->ram_block)) {
        memory_region_unref(mrs.mr);
        return false;
    }
    page->mr = mrs.mr;
    page->offset = mrs.offset_within_region;
    if (!virtio_dma_track_page_usable(page)) {
        virtio_dma_track_page_put(page);
        return false;
    }
    return true;
}

/* --- Sections ---------------------------------------------------------- */

static gint virtio_dma_track_section_cmp(gconstpointer a, gconstpointer b,
                                         gpointer unused)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

void virtio_dma_track_section_free(gpointer opaque)
{
    VirtIODMATrackSection *sec = opaque;

    virtio_dma_track_page_put(&sec->streaming);
    virtio_dma_track_page_put(&sec->coherent);
    g_free(sec);
}

VirtIODMATrackSection *virtio_dma_track_section(VirtIODMATrack *s,
                                                uint32_t section)
{
    return g_tree_lookup(s->sections, &section);
}

bool virtio_dma_track_page_in_use(VirtIODMATrack *s, hwaddr gpa)
{
    return g_hash_table_contains(s->pages, &gpa);
}

void virtio_dma_track_section_insert(VirtIODMATrack *s,
                                     VirtIODMATrackSection *sec)
{
    g_hash_table_add(s->pages, &sec->streaming.gpa);
    g_hash_table_add(s->pages, &sec->coherent.gpa);
    g_tree_insert(s->sections, &sec->section, sec);
}

void virtio_dma_track_section_remove(VirtIODMATrack *s, uint32_t section)
{
    VirtIODMATrackSection *sec = virtio_dma_track_section(s, section);

    g_hash_table_remove(s->pages, &sec->streaming.gpa);
    g_hash_table_remove(s->pages, &sec->coherent.gpa);
    g_tree_remove(s->sections, &section);
}

void virtio_dma_track_forget_guest(VirtIODMATrack *s)
{
    g_hash_table_remove_all(s->pages);
    /* Empties the tree, and drops the reference that was taken for that. */
    g_tree_ref(s->sections);
    g_tree_destroy(s->sections);
    virtio_dma_track_page_put(&s->status);
    s->ready = false;
    g_free(s->broken);
    s->broken = NULL;
}

static gboolean virtio_dma_track_section_resolve(gpointer key, gpointer value,
                                                 gpointer opaque)
{
    VirtIODMATrackSection *sec = value;
    bool *ok = opaque;

    *ok &= (sec->streaming.mr || virtio_dma_track_page_get(&sec->streaming)) &&
           (sec->coherent.mr || virtio_dma_track_page_get(&sec->coherent));
    return FALSE;
}

void virtio_dma_track_resolve(VirtIODMATrack *s)
{
    bool ok = true;

    if (!s->ready || s->broken) {
        return;
    }
    ok = s->status.mr || virtio_dma_track_page_get(&s->status);
    g_tree_foreach(s->sections, virtio_dma_track_section_resolve, &ok);
    if (!ok) {
        s->broken = g_strdup("a page that the guest has published is not "
                             "writable RAM");
    }
}

/* --- Planes ------------------------------------------------------------- */

/* Where the bits of a run of frames belong in a RAMBlock's bitmap. */
typedef struct VirtIODMATrackMerge {
    /* NULL: only count. */
    unsigned long *bmap;
    /* Bits in @bmap. */
    uint64_t nr_pages;
    unsigned page_bits;
    /* Frames that are pinned: in either plane, and in each. */
    uint64_t pinned;
    uint64_t streaming;
    uint64_t coherent;
} VirtIODMATrackMerge;

/* The bits of @word, which stand for frames from @offset on in the RAMBlock. */
static void virtio_dma_track_merge_word(VirtIODMATrackMerge *m, uint64_t word,
                                        int64_t offset)
{
    while (word) {
        unsigned bit = ctz64(word);
        uint64_t page =
            (offset + ((int64_t)bit << VIRTIO_DMA_TRACK_FRAME_SHIFT)) >>
            m->page_bits;

        if (page < m->nr_pages) {
            set_bit(page, m->bmap);
        }
        word &= word - 1;
    }
}

/*
 * Merge frames @first to @last of a section into the bitmap of a RAMBlock, in
 * which frame @first is at @offset. The guest writes the planes meanwhile, so
 * each word is read once.
 */
static void virtio_dma_track_merge_frames(VirtIODMATrack *s,
                                          VirtIODMATrackMerge *m,
                                          VirtIODMATrackSection *sec,
                                          unsigned first, unsigned last,
                                          hwaddr offset)
{
    const uint64_t *streaming = NULL;
    const uint64_t *coherent = NULL;
    unsigned w;

    if (virtio_dma_track_page_usable(&sec->streaming) &&
        virtio_dma_track_page_usable(&sec->coherent)) {
        streaming = virtio_dma_track_page_host(&sec->streaming);
        coherent = virtio_dma_track_page_host(&sec->coherent);
    } else if (!s->broken) {
        /* The migration will fail for this; until then all is pinned. */
        s->broken = g_strdup_printf("a plane of section 0x%" PRIx32
                                    " is not RAM any more", sec->section);
    }

    for (w = first / 64; w <= last / 64; w++) {
        uint64_t mask = UINT64_MAX;
        uint64_t str = UINT64_MAX;
        uint64_t coh = UINT64_MAX;
        int64_t word_offset;

        if (w == first / 64) {
            mask &= UINT64_MAX << (first % 64);
        }
        if (w == last / 64) {
            mask &= UINT64_MAX >> (63 - last % 64);
        }
        if (streaming) {
            str = le64_to_cpu(qatomic_read(&streaming[w]));
            coh = le64_to_cpu(qatomic_read(&coherent[w]));
        }
        str &= mask;
        coh &= mask;
        if (!(str | coh)) {
            continue;
        }
        m->pinned += ctpop64(str | coh);
        m->streaming += ctpop64(str);
        m->coherent += ctpop64(coh);
        if (!m->bmap) {
            continue;
        }

        /* Of the word's first bit; before the RAMBlock if that is masked. */
        word_offset = (int64_t)offset +
            (((int64_t)w * 64 - first) << VIRTIO_DMA_TRACK_FRAME_SHIFT);

        /* The common case: a word here is a word there. */
        if (BITS_PER_LONG == 64 &&
            m->page_bits == VIRTIO_DMA_TRACK_FRAME_SHIFT &&
            word_offset >= 0 &&
            !(word_offset & ((64 << VIRTIO_DMA_TRACK_FRAME_SHIFT) - 1)) &&
            (word_offset >> VIRTIO_DMA_TRACK_FRAME_SHIFT) + 64 <= m->nr_pages) {
            m->bmap[BIT_WORD(word_offset >> VIRTIO_DMA_TRACK_FRAME_SHIFT)] |=
                str | coh;
        } else {
            virtio_dma_track_merge_word(m, str | coh, word_offset);
        }
    }
}

static void virtio_dma_track_merge_range(VirtIODMATrack *s,
                                         VirtIODMATrackMerge *m,
                                         const VirtIODMATrackRange *range)
{
    uint64_t frame = range->gpa >> VIRTIO_DMA_TRACK_FRAME_SHIFT;
    uint64_t end_frame = (range->gpa + range->size - 1) >>
                         VIRTIO_DMA_TRACK_FRAME_SHIFT;

    while (frame <= end_frame) {
        uint32_t section = frame / VIRTIO_DMA_TRACK_SECTION_FRAMES;
        unsigned first = frame % VIRTIO_DMA_TRACK_SECTION_FRAMES;
        uint64_t nr = MIN(VIRTIO_DMA_TRACK_SECTION_FRAMES - first,
                          end_frame - frame + 1);
        VirtIODMATrackSection *sec = virtio_dma_track_section(s, section);
        hwaddr frame_gpa = frame << VIRTIO_DMA_TRACK_FRAME_SHIFT;

        if (sec) {
            virtio_dma_track_merge_frames(s, m, sec, first, first + nr - 1,
                                          range->offset +
                                          (frame_gpa - range->gpa));
        }
        frame += nr;
    }
}

/* DMATrackProviderClass.merge_pinned */
void virtio_dma_track_merge_pinned(DMATrackProvider *p, RAMBlock *rb,
                                   unsigned long *bmap, uint64_t *streaming,
                                   uint64_t *coherent)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);
    VirtIODMATrackMerge m = {
        .bmap = bmap,
        .nr_pages = qemu_ram_get_used_length(rb) >> qemu_target_page_bits(),
        .page_bits = qemu_target_page_bits(),
    };
    guint i;

    virtio_dma_track_resolve(s);
    for (i = 0; i < s->ranges->len; i++) {
        VirtIODMATrackRange *range = &g_array_index(s->ranges,
                                                    VirtIODMATrackRange, i);

        if (range->mr->ram_block == rb) {
            virtio_dma_track_merge_range(s, &m, range);
        }
    }
    *streaming += m.streaming;
    *coherent += m.coherent;
}

/* DMATrackProviderClass.count_pinned */
uint64_t virtio_dma_track_count_pinned(DMATrackProvider *p,
                                       uint64_t *streaming,
                                       uint64_t *coherent)
{
    VirtIODMATrack *s = VIRTIO_DMA_TRACK(p);
    VirtIODMATrackMerge m = {};
    guint i;

    virtio_dma_track_resolve(s);
    for (i = 0; i < s->ranges->len; i++) {
        virtio_dma_track_merge_range(s, &m,
                                     &g_array_index(s->ranges,
                                                    VirtIODMATrackRange, i));
    }
    *streaming = m.streaming;
    *coherent = m.coherent;
    return m.pinned;
}

/* --- Migration stream --------------------------------------------------- */

static gboolean virtio_dma_track_put_section(gpointer key, gpointer value,
                                             gpointer opaque)
{
    VirtIODMATrackSection *sec = value;
    QEMUFile *f = opaque;

    qemu_put_be32(f, sec->section);
    qemu_put_be64(f, sec->streaming.gpa);
    qemu_put_be64(f, sec->coherent.gpa);
    return FALSE;
}

static bool virtio_dma_track_save_sections(QEMUFile *f, void *pv, size_t size,
                                           const VMStateField *field,
                                           JSONWriter *vmdesc, Error **errp)
{
    VirtIODMATrack *s = pv;

    /* In ascending order, as the tree has them. */
    qemu_put_be32(f, g_tree_nnodes(s->sections));
    g_tree_foreach(s->sections, virtio_dma_track_put_section, f);
    return true;
}

/*
 * The stream is not trusted. Sections ascend, and each contains RAM: so their
 * number is bounded by the memory of the machine, whatever the stream says.
 */
static bool virtio_dma_track_load_sections(QEMUFile *f, void *pv, size_t size,
                                           const VMStateField *field,
                                           Error **errp)
{
    VirtIODMATrack *s = pv;
    uint32_t nr = qemu_get_be32(f);
    int64_t previous = -1;
    uint32_t i;

    for (i = 0; i < nr; i++) {
        uint32_t section = qemu_get_be32(f);
        hwaddr streaming = qemu_get_be64(f);
        hwaddr coherent = qemu_get_be64(f);
        VirtIODMATrackSection *sec;

        if (section <= previous ||
            !virtio_dma_track_section_has_ram(s, section) ||
            !virtio_dma_track_page_aligned(streaming) ||
            !virtio_dma_track_page_aligned(coherent) ||
            streaming == coherent ||
            virtio_dma_track_page_in_use(s, streaming) ||
            virtio_dma_track_page_in_use(s, coherent)) {
            error_setg(errp, "virtio-dma-track: section 0x%" PRIx32 " in the "
                       "stream is out of order, contains no RAM, or has bad "
                       "planes", section);
            return false;
        }
        sec = g_new0(VirtIODMATrackSection, 1);
        sec->section = section;
        sec->streaming.gpa = streaming;
        sec->coherent.gpa = coherent;
        virtio_dma_track_section_insert(s, sec);
        previous = section;
    }
    return true;
}

const VMStateInfo virtio_dma_track_vmstate_sections = {
    .name = "virtio-dma-track sections",
    .load = virtio_dma_track_load_sections,
    .save = virtio_dma_track_save_sections,
};

/* --- Coming and going --------------------------------------------------- */

void virtio_dma_track_sections_init(VirtIODMATrack *s)
{
    s->ranges = g_array_new(false, false, sizeof(VirtIODMATrackRange));
    s->pages = g_hash_table_new(g_int64_hash, g_int64_equal);
    s->sections = g_tree_new_full(virtio_dma_track_section_cmp, NULL, NULL,
                                  virtio_dma_track_section_free);
}

void virtio_dma_track_sections_finalize(VirtIODMATrack *s)
{
    g_tree_unref(s->sections);
    g_hash_table_unref(s->pages);
    g_array_unref(s->ranges);
}

void virtio_dma_track_sections_listen(VirtIODMATrack *s)
{
    s->listener = (MemoryListener) {
        .name = TYPE_VIRTIO_DMA_TRACK,
        .region_add = virtio_dma_track_region_add,
        .region_del = virtio_dma_track_region_del,
    };
    memory_listener_register(&s->listener, &address_space_memory);
}

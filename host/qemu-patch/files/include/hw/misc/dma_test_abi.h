/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DMA test device: registers, descriptors, completions, log records
 *
 * A PCI function that writes guest memory and keeps its own log of it, so that
 * a test can tell whether a byte was lost. Numbers and offsets only: the device
 * (QEMU), its driver (Linux) and the tests each have their own types. All of it
 * is little endian.
 *
 * A transfer is queued while its descriptor waits in the submission ring,
 * issued from when the device has fetched the descriptor, and lands when its
 * data reaches memory.
 */
#ifndef DMA_TEST_ABI_H
#define DMA_TEST_ABI_H

#define DMA_TEST_PCI_VENDOR             0x1234
#define DMA_TEST_PCI_DEVICE             0x444d

/* MSI-X vectors, and the one that completions use. */
#define DMA_TEST_NR_VECTORS             2
#define DMA_TEST_VECTOR_COMPLETION      0

/*
 * Registers, BAR 0. 32 bits each; those marked 64 are two, the low half at the
 * lower address.
 */
#define DMA_TEST_BAR                    0
#define DMA_TEST_MSIX_BAR               2
#define DMA_TEST_BAR_SIZE               4096

/* Read only. */
#define DMA_TEST_ID                     0x00
#define DMA_TEST_ID_VALUE               0x54414d44
/* Read only. */
#define DMA_TEST_VERSION                0x04
#define DMA_TEST_VERSION_VALUE          1
/*
 * Setting ENABLE starts the engine with all indices 0. Clearing it drops what
 * is queued; what is issued lands, without a completion.
 */
#define DMA_TEST_CONTROL                0x08
#define DMA_TEST_CONTROL_ENABLE         0x1
#define DMA_TEST_STATUS                 0x0c    /* read only */
#define DMA_TEST_STATUS_ENABLED         0x1
/* Transfers are issued and have not landed. */
#define DMA_TEST_STATUS_BUSY            0x2
/* The engine stopped because it could not reach a ring. */
#define DMA_TEST_STATUS_ERROR           0x4
/* Submission ring: address (64), entries (a power of two up to MAX_ENTRIES). */
#define DMA_TEST_SQ_BASE                0x10
#define DMA_TEST_SQ_SIZE                0x18
/* Free running index of the first descriptor that is not valid yet. */
#define DMA_TEST_SQ_TAIL                0x1c
/* Read only: free running index of the next descriptor to fetch. */
#define DMA_TEST_SQ_HEAD                0x20
/* Completion ring: entries, address (64), log2 of the size of an entry. */
#define DMA_TEST_CQ_SIZE                0x24
#define DMA_TEST_CQ_BASE                0x28
#define DMA_TEST_CQ_SHIFT               0x30
/* Read only: free running index of the next completion. */
#define DMA_TEST_CQ_TAIL                0x34
/* Most transfers that are issued at a time. */
#define DMA_TEST_WIDTH                  0x38
/* Read only: transfers that are issued and have not landed. */
#define DMA_TEST_ISSUED                 0x3c
/*
 * The periodic writer stores an increasing 64-bit counter, beginning with 1,
 * every INTERVAL microseconds: number n goes to page n % PAGES from ADDR (64)
 * and there to word (n / PAGES) % 512. Writing INTERVAL starts it anew, 0 stops
 * it.
 */
#define DMA_TEST_PERIODIC_ADDR          0x40
#define DMA_TEST_PERIODIC_INTERVAL      0x48
#define DMA_TEST_PERIODIC_KIND          0x4c
#define DMA_TEST_PERIODIC_PAGES         0x50
/* Read only: numbers written (64). */
#define DMA_TEST_PERIODIC_COUNT         0x58

/* Writing it appends a record with the value to the log. */
#define DMA_TEST_NOTE                   0x60
/* The driver begins with fresh memory: what was written before is no matter. */
#define DMA_TEST_NOTE_FRESH             1
/* The guest's only processor is about to hear nothing for a while. */
#define DMA_TEST_NOTE_DEAF              2

#define DMA_TEST_MAX_ENTRIES            4096
#define DMA_TEST_MAX_WIDTH              64
#define DMA_TEST_MAX_LEN                65536
#define DMA_TEST_MAX_DELAY_US           50000
#define DMA_TEST_MAX_PERIODIC_PAGES     1024
#define DMA_TEST_MIN_CQ_SHIFT           4
#define DMA_TEST_MAX_CQ_SHIFT           12
/* After a reset. */
#define DMA_TEST_DEFAULT_ENTRIES        64
#define DMA_TEST_DEFAULT_CQ_SHIFT       10

/* A descriptor. */
#define DMA_TEST_DESC_SIZE              32
#define DMA_TEST_DESC_ADDR              0       /* 64 bits */
#define DMA_TEST_DESC_LEN               8       /* 32 */
#define DMA_TEST_DESC_OP                12      /* 16 */
#define DMA_TEST_DESC_KIND              14      /* 16, for the log */
#define DMA_TEST_DESC_SEED              16      /* 64 */
#define DMA_TEST_DESC_DELAY_US          24      /* 32, from issue to landing */
#define DMA_TEST_DESC_COOKIE            28      /* 32, for completion and log */

/* Only completes. */
#define DMA_TEST_OP_NOP                 0
/* Writes LEN bytes of the stamp with SEED to ADDR. */
#define DMA_TEST_OP_STAMP               1
/* With any operation: raise the interrupt after the completion. */
#define DMA_TEST_OP_IRQ                 0x8000

/*
 * A completion. The rest of the entry is the stamp whose seed is INDEX, from
 * its word 2 on, so that every byte of the ring can be checked. The first eight
 * bytes are written last, at once.
 */
#define DMA_TEST_COMP_INDEX             0       /* 32: free running index + 1 */
#define DMA_TEST_COMP_STATUS            4       /* 32 */
#define DMA_TEST_COMP_COOKIE            8       /* 64 */

#define DMA_TEST_COMP_OK                0
/* The descriptor makes no sense. */
#define DMA_TEST_COMP_INVALID           1
/* The memory could not be written. */
#define DMA_TEST_COMP_FAULT             2

/* What a page is used for; the device only copies it to its log. */
#define DMA_TEST_KIND_OTHER             0
#define DMA_TEST_KIND_UNMAPPED          1
#define DMA_TEST_KIND_MAPPED            2
#define DMA_TEST_KIND_RING              3
#define DMA_TEST_KIND_INFLIGHT          4

/*
 * The log: a header, then records. A record of a write is appended after the
 * data has reached memory.
 */
#define DMA_TEST_LOG_MAGIC              "DMATLOG1"
#define DMA_TEST_LOG_VERSION            1
#define DMA_TEST_LOG_HEADER_SIZE        64
#define DMA_TEST_LOG_HDR_VERSION        8       /* 32 */
#define DMA_TEST_LOG_HDR_RECORD_SIZE    12      /* 32 */
#define DMA_TEST_LOG_HDR_MONOTONIC      16      /* 64, ns at creation */
#define DMA_TEST_LOG_HDR_WALL           24      /* 64, ns at creation */

#define DMA_TEST_LOG_RECORD_SIZE        64
#define DMA_TEST_REC_SEQ                0       /* 64 */
#define DMA_TEST_REC_TIME               8       /* 64, ns, monotonic: landed */
#define DMA_TEST_REC_ISSUED             16      /* 64, ns, monotonic: issued */
#define DMA_TEST_REC_ADDR               24      /* 64 */
#define DMA_TEST_REC_SEED               32      /* 64 */
#define DMA_TEST_REC_LEN                40      /* 32 */
#define DMA_TEST_REC_TYPE               44      /* 16 */
#define DMA_TEST_REC_KIND               46      /* 16 */
#define DMA_TEST_REC_COOKIE             48      /* 32 */
#define DMA_TEST_REC_STATUS             52      /* 32 */

/* Writes that reached memory. */
#define DMA_TEST_LOG_STAMP              1
#define DMA_TEST_LOG_COUNTER            2
#define DMA_TEST_LOG_COMPLETION         3
/* Other things that happened. */
#define DMA_TEST_LOG_MARKER             0x100
/* SEED: how many queued transfers died. */
#define DMA_TEST_LOG_MASTER_OFF         0x101
#define DMA_TEST_LOG_MASTER_ON          0x102
#define DMA_TEST_LOG_RESET              0x103
/* ADDR: SQ_BASE. STATUS: 1 if the function can master the bus. */
#define DMA_TEST_LOG_ENABLE             0x104
#define DMA_TEST_LOG_DISABLE            0x105
/* SEED: what the driver has written to NOTE. */
#define DMA_TEST_LOG_NOTE               0x107
/* An access to memory that failed. */
#define DMA_TEST_LOG_FAULT              0x106
/*
 * The ring flush of linux/pci_dma_quiesce.h: FLUSH was seen, STATUS becomes
 * QUIESCED, RESUME was seen. SEED of the first and last: how many transfers are
 * queued.
 */
#define DMA_TEST_LOG_FLUSH              0x108
#define DMA_TEST_LOG_QUIESCED           0x109
#define DMA_TEST_LOG_RESUME             0x10a

#endif /* DMA_TEST_ABI_H */

/*
 * What the files of migration/dma-track*.c know of each other
 *
 *  - dma-track.c: the functions, the provider, and the steps of a migration;
 *  - dma-track-veto.c: whether a migration could begin, and why not;
 *  - dma-track-query.c: what the monitor shows.
 *
 * All with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QEMU_MIGRATION_DMA_TRACK_INTERNAL_H
#define QEMU_MIGRATION_DMA_TRACK_INTERNAL_H

#include "migration/dma-track.h"
#include "qapi/qapi-types-dma-track.h"

/* --- dma-track.c ------------------------------------------------------ */

/* The one that is registered, or NULL. */
DMATrackProvider *dma_track_provider(void);

DMATrackFunction *dma_track_bystander_first(void);
#define DMA_TRACK_FOREACH_BYSTANDER(fn) \
    for ((fn) = dma_track_bystander_first(); (fn); \
         (fn) = dma_track_function_next(fn))

/* It was registered by dma_track_register_emulated(). */
bool dma_track_function_is_emulated(const DMATrackFunction *fn);

/* Do the planes matter? Not if nobody uses them. */
bool dma_track_wanted(void);

/* Of the last migration that came to its last pass, or NULL. */
const DMATrackMigrationInfo *dma_track_last_migration(void);

/* --- dma-track-veto.c ------------------------------------------------- */

/*
 * Who tracks @fn now? If it is nobody, and a migration could not begin because
 * of that, @errp says why.
 */
DMATracker dma_track_function_look(DMATrackFunction *fn, Error **errp);

/* Every function is tracked, or harmless, and the guest has not lost track. */
bool dma_track_check_veto(Error **errp);

/* Is more pinned now than the provider allows? Not of a VM that is stopped. */
bool dma_track_check_max_pinned(Error **errp);

/* All for which a migration would be refused on account of functions. */
bool dma_track_check_refusals(Error **errp);

/*
 * Why migrate would be refused now: on account of functions, and of all else
 * that does not depend on its URI. One text each; NULL if it would not.
 */
strList *dma_track_reasons(void);

/* There is a function: look now and then, and tell management of changes. */
void dma_track_begin_looking(void);
void dma_track_end_looking(void);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How our messages begin; included by the compiler before everything else
 */
#ifndef DMA_TRACK_LOG_H
#define DMA_TRACK_LOG_H

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#endif /* DMA_TRACK_LOG_H */

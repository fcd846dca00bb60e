#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite unit: the table in userspace. Prints TAP.
exec make -s --no-print-directory -C "$(dirname "$0")" check

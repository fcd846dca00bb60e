#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite unit: the table in userspace. Prints TAP.
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
exec make -s --no-print-directory -C "$(dirname "$0")" check

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build the documentation: build.sh DIRECTORY. A warning is an error, and so is a
# reference that leads nowhere.
set -eu
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
root=$(cd "$(dirname "$0")/../.." && pwd)
PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m sphinx -q -W --keep-going -n \
	-d "$1/.doctrees" -b html "$root/Documentation" "$1"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Is every function of a kernel by which a device is given memory hooked by the
# module, or excused by symbols.txt?
#
#   symbols.sh RELEASE MODULE.ko
#
# Prints what is neither. What is hooked is asked of the module as built.
set -euo pipefail
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
here=$(cd "$(dirname "$0")" && pwd)
root=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}/kernels/$1/root
release=$(cat "$root/release" 2>/dev/null || echo "$1")

exported=$(awk '{ print $2 }' \
	"$root/usr/src/linux-headers-$release/Module.symvers" |
	grep -E '^(__)?dmam?_|^iommu_(map|unmap|attach|detach|replace|sva_|(group|device)_(claim|replace))')
hooked=$(nm "$2" | sed -n 's/^.* t enter_//p')
[ -n "$hooked" ] || { echo "$2 hooks nothing"; exit 1; }
excused=$(sed -e 's/#.*//' "$here/symbols.txt" | awk 'NF { print $1 }')

status=0
for name in $exported; do
	# Some are the function itself in one kernel, and wrap __it in another.
	grep -qxE "(__)?$name" <<<"$hooked" && continue
	grep -qxE "$(paste -sd '|' <<<"$excused")" <<<"$name" && continue
	echo "$name is neither hooked nor excused"
	status=1
done
exit $status

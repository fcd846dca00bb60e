#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite abi: the contract between guest and host, as compiled.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}
cd "$root" || exit 1
# shellcheck source=tests/lib/tap.sh
. tests/lib/tap.sh
mkdir -p build/abi

compile() {
	"$1" -x "$2" -std="$3" -Wall -Wextra -Werror -Wpadded -fsyntax-only \
		-Iinclude/uapi tests/abi/layout.c
}

# The copy in QEMU's tree is made from ours; somebody may have edited it there.
no_drift() {
	local header copy
	for header in virtio_dma_track pci_dma_quiesce; do
		copy=$cache/qemu/src/include/standard-headers/linux/$header.h
		[ -e "$copy" ] || { echo "no QEMU tree: make setup"; return 1; }
		diff -u <(sed -e 's/__le\([0-9][0-9]*\)/uint\1_t/g' \
			-e 's,<linux/\([^>]*\)>,"standard-headers/linux/\1",' \
			"include/uapi/linux/$header.h") "$copy" || return 1
	done
}

# A test that cannot fail proves nothing: move a field and see it noticed.
moved_field_is_noticed() {
	mkdir -p build/abi/linux
	sed 's/__le32 reset_seq;/__le64 reset_seq;/' \
		include/uapi/linux/virtio_dma_track.h \
		>build/abi/linux/virtio_dma_track.h
	cp include/uapi/linux/pci_dma_quiesce.h build/abi/linux/
	! gcc -x c -fsyntax-only -Ibuild/abi tests/abi/layout.c 2>/dev/null
}

tap_run 'sizes, offsets and values, in C' compile gcc c c11
tap_run 'sizes, offsets and values, in C++' compile g++ c++ c++17
tap_run 'a moved field is noticed' moved_field_is_noticed
tap_run "QEMU's imported copy has not drifted" no_drift
tap_done

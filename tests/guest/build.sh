#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite build: every module, for every kernel of kernels.txt, without a warning.
set -u
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root" || exit 1
# shellcheck source=tests/lib/tap.sh
. tests/lib/tap.sh

kernels=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}/kernels
# The registers of the test device, which its emulation describes.
device_abi=host/qemu-patch/files/include/hw/misc

# prepare RELEASE ROOM: a copy to build in, so that the checkout stays clean; with
# the module, whose symbols the pretend device uses
prepare() {
	local room
	copy=$root/build/kernel/$1
	rm -rf "${copy:?}"
	mkdir -p "$copy/$2"
	cp -R include "$copy/"
	for room in "$device_abi" guest/kernel/dma-track "$2"; do
		mkdir -p "$copy/$room"
		cp -R "$room/." "$copy/$room/"
	done
}

# make_module RELEASE ROOM ARGUMENT…: its output is in $copy.log
make_module() {
	local pinned=$1 room=$2
	shift 2
	tests/lib/kbuild.sh "$pinned" "$copy" "$room" W=1 KCFLAGS=-Werror \
		"$@" >"$copy.log" 2>&1 ||
		{ tail -n 30 "$copy.log"; return 1; }
}

build() {
	prepare "$1" "$2"
	make_module "$1" "$2" || return 1
	find "$copy/$2" -name '*.ko' | grep -q . ||
		{ echo "no module came out"; return 1; }
}

every_function_is_accounted_for() {
	prepare "$1" guest/kernel/dma-track
	make_module "$1" guest/kernel/dma-track || return 1
	tests/guest/symbols.sh "$1" "$copy/guest/kernel/dma-track/dma_track.ko"
}

# Also a wrong endianness in the contract's fields.
sparse_finds_nothing() {
	command -v sparse >/dev/null || { echo "sparse is missing"; return 1; }
	prepare "$1" "$2"
	make_module "$1" "$2" C=2 CF=-D__CHECK_ENDIAN__ || return 1
	! grep -E "$2/.*(warning|error):" "$copy.log"
}

mapfile -t releases < <(sed 's/#.*//' tests/guest/kernels.txt |
	awk 'NF { print $1 }')
for release in "${releases[@]}"; do
	for room in guest/kernel/dma-track tests/guest/module \
		tests/guest/oracle tests/guest/edu tests/guest/liar \
		tests/guest/bench; do
		tap_run "$room builds for $release" build "$release" "$room"
	done
	tap_run "every DMA function of $release is hooked or excused" \
		every_function_is_accounted_for "$release"
	tap_run "dkms adds, builds, installs and removes it for $release" \
		tests/guest/boot/dkms.sh "$release"
	# Not inside another kernel's tree, where there is none.
	[ ! -e "$kernels/$release/root/usr/bin/make" ] || continue
	tap_run "sparse finds nothing in the guest's module for $release" \
		sparse_finds_nothing "$release" guest/kernel/dma-track
done
tap_done

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

# What is built in one copy for a kernel, so that the checkout stays clean; the
# module first, whose symbols the pretend device uses.
rooms=(guest/kernel/dma-track tests/guest/module tests/guest/oracle
	tests/guest/edu tests/guest/liar tests/guest/bench)

# prepare RELEASE: the copy
prepare() {
	local room
	copy=$root/build/kernel/$1
	rm -rf "${copy:?}"
	for room in include "$device_abi" "${rooms[@]}"; do
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
	make_module "$1" "$2" || return 1
	find "$copy/$2" -name '*.ko' | grep -q . ||
		{ echo "no module came out"; return 1; }
}

# Of what is built already. Also a wrong endianness in the contract's fields.
sparse_finds_nothing() {
	command -v sparse >/dev/null || { echo "sparse is missing"; return 1; }
	make_module "$1" "$2" C=2 CF=-D__CHECK_ENDIAN__ || return 1
	grep -q 'CHECK .*main\.c' "$copy.log" ||
		{ echo "sparse did not run"; return 1; }
	! grep -E "$2/.*(warning|error):" "$copy.log"
}

# says_why RELEASE TEXT ARGUMENT…: with these for make, the first that the compiler
# complains of is the reason
says_why() {
	! make_module "$1" guest/kernel/dma-track "${@:3}" >/dev/null ||
		{ echo "it builds"; return 1; }
	grep -m 1 'error:' "$copy.log" | grep -F "$2" ||
		{ head -n 5 "$copy.log"; return 1; }
}

# otherwise NAME LINE…: writes a header that says so; prints its path
otherwise() {
	mkdir -p "$copy/otherwise/linux"
	printf '%s\n' "${@:2}" >"$copy/otherwise/$1"
	echo "$copy/otherwise/$1"
}

refuses_others() {
	local config
	otherwise linux/version.h '#define LINUX_VERSION_CODE 0x060000' \
		'#define KERNEL_VERSION(a, b, c) ((a) << 16 | (b) << 8 | (c))' \
		>/dev/null
	tap_run "Linux before 6.1 is refused, and it is said why" \
		says_why "$1" "supports Linux 6.1 and newer" \
		NOSTDINC_FLAGS="-nostdinc -I$copy/otherwise"
	tap_run "another architecture is refused, and it is said why" \
		says_why "$1" "x86-64 only" \
		KCFLAGS="-include $(otherwise arch.h '#undef CONFIG_X86_64')"
	for config in DYNAMIC_FTRACE_WITH_DIRECT_CALLS PCI VIRTIO IOMMU_DMA \
		NEED_DMA_MAP_STATE; do
		tap_run "a kernel without $config is refused, likewise" \
			says_why "$1" "CONFIG_$config" \
			KCFLAGS="-include $(otherwise without.h \
				"#undef CONFIG_$config" \
				"#undef CONFIG_${config}_MODULE")"
	done
	tap_run "a kernel with DMA_DECLARE_COHERENT is refused, likewise" \
		says_why "$1" "a device's own memory" \
		KCFLAGS="-include $(otherwise with.h \
			'#define CONFIG_DMA_DECLARE_COHERENT 1')"
}

mapfile -t releases < <(sed 's/#.*//' tests/guest/kernels.txt |
	awk 'NF { print $1 }')
for release in "${releases[@]}"; do
	prepare "$release"
	for room in "${rooms[@]}"; do
		tap_run "$room builds for $release" build "$release" "$room"
	done
	tap_run "every DMA function of $release is hooked or excused" \
		tests/guest/symbols.sh "$release" \
		"$copy/guest/kernel/dma-track/dma_track.ko"
	tap_run "dkms adds, builds, installs and removes it for $release" \
		tests/guest/boot/dkms.sh "$release"
	# Not inside another kernel's tree, where there is none.
	[ ! -e "$kernels/$release/root/usr/bin/make" ] || continue
	tap_run "sparse finds nothing in the guest's module for $release" \
		sparse_finds_nothing "$release" guest/kernel/dma-track
	# The same for each: after what is built is of no more use.
	[ -n "${refused-}" ] || refuses_others "$release"
	refused=1
done
tap_done

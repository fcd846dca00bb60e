#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite setup: what the set-up says when it cannot, and that the next run is not
# broken by what a failed one left.
set -u
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
root=$(cd "$(dirname "$0")/../.." && pwd)
real_cache=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}
cd "$root" || exit 1
# shellcheck source=tests/lib/tap.sh
. tests/lib/tap.sh

mkdir -p build
work=$(mktemp -d "$root/build/setup.XXXXXX")
trap 'rm -rf "$work"' EXIT
export DMA_TRACK_CACHE=$work/cache
unset DMA_TRACK_QEMU QEMU_SRC DMA_TRACK_DOWNLOADS

# pretend PROGRAM LINE…: a program of that name that runs these lines
pretend() {
	local name=$1
	shift
	mkdir -p "$work/bin"
	printf '%s\n' '#!/bin/sh' "$@" >"$work/bin/$name"
	chmod +x "$work/bin/$name"
}

# refuses PATTERN… -- STEP…: it fails, and a line of it has all patterns. The
# network is switched off by a proxy that nobody is.
refuses() {
	local patterns=() line status
	while [ "$1" != -- ]; do
		patterns+=("$1")
		shift
	done
	shift
	PATH=$work/bin:$PATH http_proxy=http://127.0.0.1:9 \
		https_proxy=http://127.0.0.1:9 timeout 120 \
		"${setup:-tests/lib/setup.sh}" "$@" >"$work/said" 2>&1
	status=$?
	rm -rf "${work:?}/bin"
	cat "$work/said"
	case $status in
	0 | 124) echo "exit status $status"; return 1 ;;
	esac
	line=$(cat "$work/said")
	for pattern in "${patterns[@]}"; do
		line=$(grep -E -- "$pattern" <<<"$line")
	done
	[ -n "$line" ] || { echo "no line has: ${patterns[*]}"; return 1; }
}

succeeds() {
	PATH=$work/bin:$PATH http_proxy=http://127.0.0.1:9 \
		https_proxy=http://127.0.0.1:9 timeout 300 \
		"${setup:-tests/lib/setup.sh}" "$@"
}

# A cache with the packages that are downloaded already, so that no network is
# needed.
fill_downloads() {
	mkdir -p "$DMA_TRACK_CACHE/downloads"
	cp -l "$real_cache/downloads/"linux-*.deb "$DMA_TRACK_CACHE/downloads/" ||
		cp "$real_cache/downloads/"linux-*.deb "$DMA_TRACK_CACHE/downloads/"
}

# with_kernel LINE: a checkout whose kernels.txt has only that
with_kernel() {
	mkdir -p "$work/tree/tests/lib" "$work/tree/tests/guest"
	cp tests/lib/setup.sh "$work/tree/tests/lib/"
	echo "$1" >"$work/tree/tests/guest/kernels.txt"
	setup=$work/tree/tests/lib/setup.sh
}

first_kernel() {
	awk '!/^#/ && NF { print; exit }' tests/guest/kernels.txt
}

wrong_architecture() {
	pretend uname 'echo aarch64'
	refuses aarch64 x86_64 -- packages
}

package_is_missing() {
	pretend dpkg-query 'case "$*" in *ccache*) exit 1 ;; esac' \
		'echo install ok installed'
	pretend apt-get 'echo E: no installation candidate; exit 100'
	pretend id 'echo 0'
	refuses ccache network -- packages
}

nobody_in_particular() {
	pretend dpkg-query 'case "$*" in *ccache*) exit 1 ;; esac' \
		'echo install ok installed'
	pretend id 'echo 1000'
	refuses 'not root' 'apt-get install.*ccache' -- packages
}

no_network_for_qemu() {
	refuses 'QEMU_SRC=' -- qemu
}

no_network_for_kernels() {
	refuses 'network' -- kernel
}

# A cache on a file system that is really full in the middle of a step; with
# more room the same step succeeds on what is left.
disk_becomes_full() {
	refuses 'unpacking meson failed' 'no space is left' 'make room' -- \
		backports || return 1
	mount -o remount,size=256m "$DMA_TRACK_CACHE" &&
		succeeds backports
}

on_small_disk() {
	local downloads=$real_cache/downloads
	ls "$downloads"/meson_*.deb >/dev/null ||
		{ echo "no meson in $downloads"; return 1; }
	(
		export DMA_TRACK_DOWNLOADS=$downloads
		export -f disk_becomes_full refuses succeeds
		export work
		mkdir -p "$DMA_TRACK_CACHE"
		# shellcheck disable=SC2016 # expanded by that shell
		unshare --mount bash -c '
			mount -t tmpfs -o size=2m cache "$DMA_TRACK_CACHE" &&
			disk_becomes_full'
	)
}

disk_is_full() {
	pretend df 'echo Filesystem; echo none 100 99 1 99% /'
	refuses 'MiB are free' 'make room' -- kernel
}

wrong_qemu() {
	mkdir -p "$work/qemu-9"
	echo 9.0.0 >"$work/qemu-9/VERSION"
	QEMU_SRC=$work/qemu-9 refuses 9.0.0 'series is for' -- qemu
}

unsupported_kernel() {
	fill_downloads
	with_kernel '4.19.0+deb10-amd64 bookworm gcc-12'
	# The index is there; it does not have that kernel.
	mkdir -p "$DMA_TRACK_CACHE"
	pretend apt-cache 'exit 100'
	# shellcheck disable=SC2016 # not expanded here
	pretend apt-get '[ "$1" = update ] || exec /usr/bin/apt-get "$@"'
	refuses 4.19 -- kernel
}

# Interrupted while it unpacked a kernel; and a package that was cut short.
left_overs_do_no_harm() {
	local release
	rm -rf "$DMA_TRACK_CACHE"
	fill_downloads
	release=$(first_kernel)
	with_kernel "$release"
	release=${release%% *}
	mkdir -p "$DMA_TRACK_CACHE/kernels/$release/unpacked.new/usr" \
		"$DMA_TRACK_CACHE/kernels/$release/unpacked" \
		"$DMA_TRACK_CACHE/downloads/partial"
	echo half >"$DMA_TRACK_CACHE/downloads/partial/linux-image_1.deb"
	succeeds kernel || return 1
	[ -s "$DMA_TRACK_CACHE/kernels/$release/root/release" ]
}

damaged_package() {
	local release deb
	rm -rf "$DMA_TRACK_CACHE"
	fill_downloads
	release=$(first_kernel)
	with_kernel "$release"
	release=${release%% *}
	deb=$(find "$DMA_TRACK_CACHE/downloads" -name "linux-image-${release}_*")
	head -c 100000 "$deb" >"$deb.cut"
	mv "$deb.cut" "$deb"
	refuses 'linux-image' -- kernel || return 1
	# It is not taken again.
	[ ! -e "$deb" ] || { echo "$deb is still there"; return 1; }
	fill_downloads 2>/dev/null
	succeeds kernel
}

# Suites that run at the same time want the same images, in an empty cache too.
# A builder waits a moment for others to begin, which none of them may.
same_image_three_times() {
	local pids=() pid status=0
	rm -rf "$DMA_TRACK_CACHE"
	for _ in 1 2 3; do
		PYTHONPATH=tests/lib python3 -c '
import os
import time
import images


def build(path):
    os.mkdir(path)
    with open(f"{images.IMAGES}/{os.getpid()}.builds", "x"):
        end = time.monotonic() + 2
    while time.monotonic() < end and builders() < 2:
        time.sleep(0.01)
    with open(f"{path}/{os.getpid()}", "x"):
        pass


def builders():
    return sum(".builds" in name for name in os.listdir(images.IMAGES))


images.cached("directory", build)
assert builders() == 1, "built more than once"
assert len(os.listdir(f"{images.IMAGES}/directory")) == 1' &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || status=1
	done
	return $status
}

tap_run 'another architecture is refused and named' wrong_architecture
tap_run 'a package that cannot be installed is named' package_is_missing
tap_run 'without root the command for root is shown' nobody_in_particular
tap_run 'without network the source of QEMU is asked for' no_network_for_qemu
tap_run 'without network the kernel step says so' no_network_for_kernels
tap_run 'a full disk is named before it is full' disk_is_full
if [ "$(id -u)" = 0 ]; then
	tap_run 'a disk that becomes full is named, and harmless' on_small_disk
else
	tap_skip 'a disk that becomes full is named, and harmless' \
		'only root can mount'
fi
tap_run 'another version of QEMU is refused and named' wrong_qemu
tap_run 'a kernel that Debian does not have is named' unsupported_kernel
tap_run 'what an interrupted run left does no harm' left_overs_do_no_harm
tap_run 'a damaged package is named, and fetched again' damaged_package
tap_run 'suites that want the same image get one' same_image_three_times
tap_done

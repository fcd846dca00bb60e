#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite build: every module, for every kernel of kernels.txt, without a warning.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}
cd "$root" || exit 1
# shellcheck source=tests/lib/tap.sh
. tests/lib/tap.sh

# build RELEASE ROOM: in a copy, so that the checkout stays clean
build() {
	local pinned=$1 room=$2 kernel=$cache/kernels/$1/root release copy
	release=$(cat "$kernel/release" 2>/dev/null || echo "$pinned")
	copy=$root/build/kernel/$release
	mkdir -p "$copy/$room"
	rm -rf "${copy:?}/$room" "$copy/include"
	mkdir -p "$copy/$room"
	cp -R include "$copy/"
	cp -R "$room/." "$copy/$room/"
	make -C "$copy/$room" W=1 KCFLAGS=-Werror \
		KDIR="$kernel/usr/src/linux-headers-$release" >"$copy/log" 2>&1 ||
		{ tail -n 30 "$copy/log"; return 1; }
	grep -iE 'warning|error:' "$copy/log" | grep -v 'compiler differs' &&
		return 1
	find "$copy/$room" -name '*.ko' | grep -q . ||
		{ echo "no module came out"; return 1; }
}

mapfile -t releases < <(sed 's/#.*//' tests/guest/kernels.txt |
	awk 'NF { print $1 }')
for release in "${releases[@]}"; do
	for room in guest/kernel/dma-track tests/guest/module \
		tests/guest/oracle; do
		tap_run "$room builds for $release" build "$release" "$room"
	done
done
tap_done

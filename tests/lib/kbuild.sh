#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build a kernel module for a kernel of kernels.txt, with that kernel's compiler.
#
#   kbuild.sh RELEASE TREE ROOM [ARGUMENT…]
#
# TREE is a copy of what the module needs of the project, ROOM the module's
# place in it; what is built stays there. A room with a Makefile is built by it,
# as a user does. ARGUMENTs are for make. Kernels that need another compiler
# than the machine's are built for inside their own tree, by chroot.
set -euo pipefail
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"

pinned=$1 tree=$2 room=$3
shift 3
root=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}/kernels/$pinned/root
[ -e "$root" ] ||
	{ echo "kernel $pinned is not in $root: tests/lib/setup.sh kernel" >&2
	exit 1; }
release=$(cat "$root/release" 2>/dev/null || echo "$pinned")
headers=/usr/src/linux-headers-$release

# build WHERE HEADERS ARGUMENT…: prints the command, one word per line
command_for() {
	local where=$1 headers=$2
	if [ -e "$tree/$room/Makefile" ]; then
		printf '%s\n' make -C "$where/$room" "KDIR=$headers"
	else
		printf '%s\n' make -C "$headers" "M=$where/$room" modules
	fi
}

if [ ! -e "$root/usr/bin/make" ]; then
	mapfile -t command < <(command_for "$tree" "$root$headers")
	exec "${command[@]}" "$@"
fi

work=$(mktemp -d "$root/build/XXXXXX")
trap 'rm -rf "$work"' EXIT
# With their times: what is built is not built again.
cp -Rp "$tree/." "$work/"
mapfile -t command < <(command_for "/build/${work##*/}" "$headers")
status=0
enter=(chroot)
[ "$(id -u)" = 0 ] || enter=(unshare --map-root-user chroot)
env -i PATH=/usr/bin LC_ALL=C "$(command -v "${enter[0]}")" "${enter[@]:1}" \
	"$root" "${command[@]}" "$@" || status=$?
cp -Rp "$work/." "$tree/"
exit "$status"

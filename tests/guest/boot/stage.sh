# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A root for one kernel in which dkms, mkinitramfs and dracut work as on a
# machine of its own: source it, call stage, then in_stage.

cache=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}

# stage RELEASE [compiler]: $stage, a root with the kernel, its headers and the
# tools; $release, what the kernel calls itself. With "compiler", that with which
# the kernel was made. All files are links to those of the cache, and whoever
# changes one replaces it.
stage() {
	local kernel=$cache/kernels/$1/root tools=$cache/boot/root dir
	[ -e "$tools" ] || { echo "no $tools: tests/lib/setup.sh boot"; return 1; }
	release=$(cat "$kernel/release" 2>/dev/null || echo "$1")
	stage=$(mktemp -d "$cache/boot/stage-XXXXXX")
	trap 'rm -rf "$stage"' EXIT

	if [ "${2-}" = compiler ] && [ -e "$kernel/usr/bin/make" ]; then
		cp -al "$kernel/." "$stage/"
		rm -rf "${stage:?}/proc" "${stage:?}/dev"
		cp "$tools/usr/sbin/dkms" "$stage/usr/sbin/"
		mkdir -p "$stage/var/lib/dkms"
	else
		cp -al "$tools/." "$stage/"
		mkdir -p "$stage/lib/modules"
		cp -al "$kernel/lib/modules/$release" "$stage/lib/modules/"
		cp -al "$kernel/boot/." "$stage/boot/"
		for dir in "$kernel"/usr/src "$kernel"/usr/lib/linux-kbuild*; do
			[ -e "$dir" ] || continue
			dir=${dir#"$kernel"}
			cp -al "$kernel$dir" "$stage${dir%/*}/"
		done
	fi
	[ -e "$stage/boot/config-$release" ] ||
		cp -al "$kernel/lib/modules/$release/config" \
			"$stage/boot/config-$release"
	# The cache's path, put there by the set-up.
	sed -i "s,include $kernel/usr/src/,include /usr/src/," \
		"$stage/usr/src/linux-headers-$release/Makefile"
	mkdir -p "$stage/proc" "$stage/dev" "$stage/sys"
}

# in_stage COMMAND…: with /proc and /dev, which nobody else sees
in_stage() {
	local enter=(unshare --mount --pid --fork)
	[ "$(id -u)" = 0 ] || enter+=(--map-root-user)
	# shellcheck disable=SC2016 # expanded by the inner shell
	"${enter[@]}" sh -c '
		mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" &&
		exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
			"$(command -v chroot)" "$0" "$@"' "$stage" "$@"
}

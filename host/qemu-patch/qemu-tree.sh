#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Make a QEMU work tree: base + new files + series.
#
#   qemu-tree.sh TREE [DOWNLOADS]
#
# TREE becomes (or is brought up to date as) a git work tree with three kinds of
# commit: the base, the new files, one for each patch of the series. Only files
# that differ are touched, so that a build beside it stays incremental.
# DOWNLOADS keeps the tarball; see find_source() for where it comes from.
set -euo pipefail
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
tree=${1:?usage: qemu-tree.sh TREE [DOWNLOADS]}
downloads=${2:-$tree.downloads}
# shellcheck source=base disable=SC2154
. "$here/base"

say() { echo "qemu-tree: $*" >&2; }
die() { echo "qemu-tree: $*" >&2; exit 1; }

git_in() {
	local dir=$1
	shift
	git -C "$dir" -c user.name=dma-track -c user.email=dma-track@invalid \
		-c commit.gpgsign=false -c core.autocrlf=false \
		-c advice.detachedHead=false -c safe.directory='*' "$@"
}

matches() { echo "$2  $1" | sha256sum --check --status 2>/dev/null; }

fetch() {
	local url=$1 to=$2
	say "fetching $url"
	/usr/lib/apt/apt-helper -o APT::Sandbox::User=root \
		-o Acquire::Retries=2 -o Acquire::http::Timeout=20 \
		download-file "$url" "$to.part" >/dev/null || return 1
	mv "$to.part" "$to"
}

# shellcheck disable=SC2016 # apt expands them
debian_sites() {
	apt-get indextargets --format '$(SITE) $(RELEASE)' 2>/dev/null |
		awk '$2 ~ /^(bookworm|trixie|sid|stable|testing|unstable)$/ \
			{ print $1 }' | sort -u
}

# Print the path of a tarball or tree. Tried in this order; a failure names all.
find_source() {
	local tried="" to=$downloads/$ds_tarball site

	if [ -n "${QEMU_SRC:-}" ]; then
		[ -e "$QEMU_SRC" ] || die "QEMU_SRC=$QEMU_SRC does not exist"
		echo "$QEMU_SRC"
		return
	fi
	if [ -n "${DMA_TRACK_DOWNLOADS:-}" ]; then
		if matches "$DMA_TRACK_DOWNLOADS/$ds_tarball" "$ds_sha256"; then
			echo "$DMA_TRACK_DOWNLOADS/$ds_tarball"
			return
		fi
		tried+="
  DMA_TRACK_DOWNLOADS: no $ds_tarball with the right sha256"
	fi
	mkdir -p "$downloads"
	if matches "$to" "$ds_sha256"; then
		echo "$to"
		return
	fi
	if [ -s "$downloads/${upstream_url##*/}" ]; then
		echo "$downloads/${upstream_url##*/}"
		return
	fi
	if fetch "$upstream_url" "$downloads/${upstream_url##*/}" 2>/dev/null
	then
		echo "$downloads/${upstream_url##*/}"
		return
	fi
	tried+="
  $upstream_url"
	for site in $(debian_sites); do
		if fetch "$site/$ds_pool/$ds_tarball" "$to" 2>/dev/null; then
			matches "$to" "$ds_sha256" && { echo "$to"; return; }
			rm -f "$to"
		fi
	done
	tried+="
  $ds_pool/$ds_tarball on the mirrors that apt is configured with"
	die "cannot get the source of QEMU $version. Tried:$tried
Give it by hand: QEMU_SRC=/path/to/qemu-$version.tar.xz (or an unpacked tree)."
}

# The guest ABI, in the form in which QEMU keeps Linux headers.
import_headers() {
	local to=$1/include/standard-headers/linux header

	for header in virtio_dma_track pci_dma_quiesce; do
		sed -e 's/__le\([0-9][0-9]*\)/uint\1_t/g' \
			-e 's,<linux/\([^>]*\)>,"standard-headers/linux/\1",' \
			"$root/include/uapi/linux/$header.h" >"$to/$header.h"
	done
}

# Debian's tarball lacks the firmware blobs and the Python packages that
# upstream vendors; the build has to be told.
adapt_stripped_tarball() {
	[ -e "$1/pc-bios/edk2-x86_64-code.fd.bz2" ] && return
	sed -i '/^"qemu.qmp" = /d;/^"qemu" = { path/d' "$1/pythondeps.toml"
	sed -i 's/^if unpack_edk2_blobs$/if unpack_edk2_blobs and false/' \
		"$1/pc-bios/meson.build"
}

make_base() {
	local source
	source=$(find_source)
	say "unpacking $(basename "$source")"
	rm -rf "$tree.new"
	mkdir -p "$tree.new"
	if [ -d "$source" ]; then
		cp -a "$source/." "$tree.new/"
		rm -rf "$tree.new/.git"
	else
		tar -C "$tree.new" --strip-components=1 --no-same-owner \
			-xf "$source" || die "cannot unpack $source (disk full?)"
	fi
	[ "$(cat "$tree.new/VERSION" 2>/dev/null)" = "$version" ] ||
		die "$source is QEMU $(cat "$tree.new/VERSION" 2>/dev/null ||
			echo '?'), but the series is for $version"
	adapt_stripped_tarball "$tree.new"
	git_in "$tree.new" init -q
	# Not the tarball's own ignore rules: the base is all of it.
	git_in "$tree.new" add -A -f
	git_in "$tree.new" commit -qm "base: QEMU $version"
	git_in "$tree.new" tag base
	rm -rf "$tree"
	mv "$tree.new" "$tree"
}

# What the tree is made of besides the base.
digest() {
	(cd "$root" && find host/qemu-patch/base host/qemu-patch/series \
		host/qemu-patch/files host/qemu-patch/patches \
		host/qemu-patch/qemu-tree.sh include/uapi -type f -print0 |
		sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}

apply_series() {
	local stage=$tree.stage patch

	git_in "$tree" worktree prune
	rm -rf "$stage"
	git_in "$tree" worktree add -q -f --detach "$stage" base
	cp -R "$here/files/." "$stage/"
	import_headers "$stage"
	git_in "$stage" add -A -f
	git_in "$stage" commit -qm "dma-track: new files"
	while read -r patch; do
		case $patch in ''|'#'*) continue ;; esac
		git_in "$stage" am -q --keep-cr "$here/patches/$patch" ||
			die "patch $patch does not apply to QEMU $version"
	done <"$here/series"
	git_in "$tree" checkout -q --detach \
		"$(git_in "$stage" rev-parse HEAD)"
	git_in "$tree" worktree remove --force "$stage"
}

if [ ! -e "$tree/.git" ] ||
	! git_in "$tree" rev-parse -q --verify base >/dev/null; then
	make_base
fi
want=$(digest)
have=$(cat "$tree/.git/dma-track-digest" 2>/dev/null || true)
if [ "$want" != "$have" ] ||
	[ -n "$(git_in "$tree" status --porcelain -uno)" ]; then
	say "applying $(grep -cv '^#' "$here/series") patches"
	git_in "$tree" reset -q --hard
	apply_series
	echo "$want" >"$tree/.git/dma-track-digest"
fi

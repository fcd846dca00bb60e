#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dkms.sh RELEASE: the module is added, built, installed and removed by dkms, in
# a root of its own. Prints what went wrong.
set -euo pipefail
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
here=$(cd "$(dirname "$0")" && pwd)
room=$here/../../../guest/kernel/dma-track
# shellcheck source=tests/guest/boot/stage.sh
. "$here/stage.sh"

die() { echo "$*"; exit 1; }

stage "$1" compiler
make -s -C "$room" dkms-source DESTDIR="$stage"
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$room/dkms.conf")
updates=$stage/lib/modules/$release/updates

dkms() { in_stage dkms "$1" -m dma-track -v "$version" "${@:2}"; }
is_installed() {
	find "$updates" -name 'dma_track.ko*' 2>/dev/null | grep -q .
}

dkms add
dkms build -k "$release" || {
	cat "$stage/var/lib/dkms/dma-track/$version/build/make.log"
	exit 1
}
! is_installed || die "built, it is installed already"
dkms install -k "$release"
is_installed || die "installed, it is not there"
in_stage modinfo -k "$release" dma_track | grep "^vermagic: *$release " ||
	die "what is installed is for another kernel"
in_stage modprobe -S "$release" --show-depends dma_track | grep dma_track ||
	die "modprobe does not find it"
in_stage dkms status | grep "dma-track/$version, $release.*: installed" ||
	die "dkms does not know that it is installed"
dkms remove --all
! is_installed || die "removed, it is still there"
[ -z "$(in_stage dkms status)" ] || die "removed, dkms still knows it"

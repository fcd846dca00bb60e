#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Who may include whom: the map in CONTRIBUTING.md, enforced.
set -u
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
cd "$(dirname "$0")/../.." || exit 1
status=0

# forbid REASON PATTERN FILE…: no line of FILE may match PATTERN
forbid() {
	local reason=$1 pattern=$2
	shift 2
	[ $# -gt 0 ] || return 0
	if grep -nE "$pattern" "$@" /dev/null; then
		echo "^^ $reason"
		status=1
	fi
}

room=guest/kernel/dma-track
in_room() { find "$room" -name '*.[ch]' "$@"; }

forbid 'the table knows nobody' \
	'#include "(hooks|devices|host|restore|main|trace)\.h"|virtio' \
	"$room/table.c" "$room/table.h"
# shellcheck disable=SC2046 # one path per word
{
	forbid 'only hooks.c knows how the DMA API is tapped' \
		'#include <linux/(ftrace|dma-map-ops)\.h>' \
		$(in_room ! -name 'hooks.*' ! -name compat.h)
	forbid 'the kernel version is asked in compat.h only' \
		'LINUX_VERSION_CODE' $(in_room ! -name compat.h \
			! -name requires.h)
	forbid 'only host.c speaks virtio' \
		'#include <linux/virtio(_ring|_config)?\.h>' \
		$(in_room ! -name 'host.*' ! -name 'main.c')
	forbid 'nothing but tests includes tests' '#include ".*tests/' \
		$(find guest host include -name '*.[ch]')
	forbid 'guest and host never see each other' 'host/qemu-patch' \
		$(find guest include -type f)
	forbid 'guest and host never see each other' 'guest/kernel' \
		$(find host -type f)
}
exit $status

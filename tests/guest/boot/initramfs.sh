#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# An initial RAM disk as a user of the module has it, made by Debian's tools.
#
#   initramfs.sh RELEASE dma_track.ko AGENT MAKER DRIVER… >IMAGE
#
# MAKER is initramfs-tools, dracut, or none: initramfs-tools without our hook.
# DRIVERs are loaded by udev when it finds their hardware, as ever. The agent of
# the tests is started when udev is done.
set -euo pipefail
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
here=$(cd "$(dirname "$0")" && pwd)
room=$here/../../../guest/kernel/dma-track
# shellcheck source=tests/guest/boot/stage.sh
. "$here/stage.sh"

module=$2 agent=$3 maker=$4
stage "$1"
drivers="${*:5} virtio_pci virtio_console dma_track"

install -D "$module" "$stage/lib/modules/$release/updates/dma_track.ko"
install "$agent" "$stage/bin/agent"
in_stage depmod "$release"
[ "$maker" = none ] || "$room/initramfs/install.sh" "$stage"

start='modprobe -q virtio_pci; modprobe -q virtio_console
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
agent l2.agent'

case $maker in
initramfs-tools | none)
	config=$stage/etc/initramfs-tools
	mkdir -p "$config/hooks" "$config/scripts/init-premount" \
		"$config/conf.d" "$config/scripts/init-top"
	printf '%s\n' MODULES=list COMPRESS=gzip >"$config/initramfs.conf"
	: >"$config/modules"
	cat >"$config/hooks/agent" <<-END
		#!/bin/sh
		[ "\$1" != prereqs ] || exit 0
		. /usr/share/initramfs-tools/hook-functions
		manual_add_modules $drivers
		copy_exec /bin/agent /bin
	END
	cat >"$config/scripts/init-premount/agent" <<-END
		#!/bin/sh
		[ "\$1" != prereqs ] || exit 0
		$start
	END
	chmod 755 "$config/hooks/agent" "$config/scripts/init-premount/agent"
	in_stage mkinitramfs -d /etc/initramfs-tools -o /image "$release" >&2
	;;
dracut)
	echo "$start" >"$stage/agent.sh"
	in_stage dracut --quiet --force --no-hostonly --no-early-microcode \
		--modules 'bash base rootfs-block udev-rules dma-track' \
		--add-drivers "$drivers" --include /bin/agent /bin/agent \
		--include /agent.sh \
		/lib/dracut/hooks/initqueue/settled/99-agent.sh \
		--kver "$release" /image >&2
	;;
*)
	echo "no such maker: $maker" >&2
	exit 1
	;;
esac
cat "$stage/image"

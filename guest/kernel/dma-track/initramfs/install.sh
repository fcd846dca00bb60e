#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# install.sh [DESTDIR]: put the module before the drivers, in the initramfs and
# outside. Run update-initramfs, or dracut, afterwards.
set -e
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
here=$(dirname "$0")
tools=$1/etc/initramfs-tools
install -D -m 755 "$here/hook" "$tools/hooks/dma_track"
install -D -m 755 "$here/init-top" "$tools/scripts/init-top/dma_track"
dracut=$1/usr/lib/dracut/modules.d/90dma-track
install -D -m 755 "$here/dracut/module-setup.sh" "$dracut/module-setup.sh"
install -D -m 755 "$here/dracut/pre-udev.sh" "$dracut/pre-udev.sh"
install -D -m 644 "$here/modprobe.conf" "$1/etc/modprobe.d/dma_track.conf"

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# install.sh [DESTDIR]: put the module before the drivers, in the initramfs and
# outside. Run update-initramfs afterwards.
set -e
here=$(dirname "$0")
tools=$1/etc/initramfs-tools
install -D -m 755 "$here/hook" "$tools/hooks/dma_track"
install -D -m 755 "$here/init-top" "$tools/scripts/init-top/dma_track"
install -D -m 644 "$here/modprobe.conf" "$1/etc/modprobe.d/dma_track.conf"

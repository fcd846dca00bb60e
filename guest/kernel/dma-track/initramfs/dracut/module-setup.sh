#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dracut module: dma_track and what finds the host's device.

check() {
	return 0
}

depends() {
	echo base
}

installkernel() {
	instmods virtio_pci dma_track
}

install() {
	inst_hook pre-udev 10 "$moddir/pre-udev.sh"
}

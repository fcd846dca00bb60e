#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# dracut, before udev loads the drivers of the hardware: a device whose driver
# was there first is untracked. Read by dracut's own shell.

# Without the host's device the module does nothing; boot goes on without it.
modprobe -q dma_track || true

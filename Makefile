# SPDX-License-Identifier: GPL-2.0-only
#
# The table of contents. Rooms have makefiles and scripts of their own.

SUITE ?=
RUNS ?= 1
HOURS ?= 1
SECONDS ?= 600

help:
	@echo 'make demo            live-migrate a guest that owns an SR-IOV VF; sets'
	@echo '                     everything up first. RUNS=n repeats the move'
	@echo 'make test            all test suites; SUITE=a,b only those:'
	@echo '                     lint abi docs setup unit model build guest qtest'
	@echo '                     fuzz conformance emulated faults nested quiesce'
	@echo 'make test-full       also what is too long for every change'
	@echo "make test-qemu       QEMU's own tests, on the patched emulator"
	@echo 'make test-newest     suite guest with the newest kernel of each series;'
	@echo '                     for information: no part of make test'
	@echo 'make fuzz            ten minutes of the fuzzer; SECONDS=n'
	@echo 'make soak            migrations with random faults; HOURS=n'
	@echo 'make docs            the documentation, in build/docs/index.html'
	@echo 'make bench-guest     what the guest pays: build/bench/guest.json'
	@echo 'make setup           only the set-up: packages, kernels, QEMU'
	@echo 'make module          the guest module, for the running kernel or KDIR='
	@echo 'make refresh TREE=d  host/qemu-patch from a QEMU work tree'
	@echo 'make clean           remove build/; the cache stays'
	@echo
	@echo 'DMA_TRACK_CACHE      where build trees are kept [~/.cache/dma-track]'
	@echo 'DMA_TRACK_DOWNLOADS  a folder to look into before downloading'
	@echo 'DMA_TRACK_ACCEL=kvm  use /dev/kvm for the outer machine [tcg]'
	@echo 'QEMU_SRC             source of QEMU, tarball or tree [fetched]'

setup:
	@tests/lib/setup.sh all

# The suite runner needs python3-tap: packages come first.
test:
	@tests/lib/setup.sh packages
	@tests/lib/suites.py '$(SUITE)'

test-full:
	@tests/lib/setup.sh packages
	@tests/lib/suites.py --full '$(SUITE)'

test-qemu:
	@tests/lib/setup.sh packages
	@tests/lib/suites.py --full qemu-own

test-newest:
	@tests/lib/setup.sh all boot newest
	@DMA_TRACK_KERNELS="$${DMA_TRACK_CACHE:-$$HOME/.cache/dma-track}/newest.txt" \
		tests/guest/vm/run.py

bench-guest: setup
	@tests/guest/bench/run.py

demo: setup
	@tests/host/nested/demo.py --runs '$(RUNS)'

docs:
	@tests/lib/setup.sh docs
	@tests/docs/build.sh build/docs
	@echo 'see build/docs/index.html'

fuzz:
	@tests/lib/setup.sh packages backports qemu fuzz
	@tests/fuzz/run.py --seconds '$(SECONDS)'

soak:
	@tests/lib/setup.sh all iommufd
	@tests/lib/soaking.py --hours '$(HOURS)'

module:
	$(MAKE) -C guest/kernel/dma-track

refresh:
	host/qemu-patch/refresh.sh '$(TREE)'

clean:
	rm -rf build

.PHONY: help setup test test-full test-qemu test-newest bench-guest demo docs fuzz \
	soak module refresh clean

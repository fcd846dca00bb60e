#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Everything that a fresh Debian machine lacks, one step per argument:
#
#   setup.sh packages     Debian packages, by apt-get
#   setup.sh backports    newer build tools, unpacked into the cache
#   setup.sh qemu         QEMU: source, our series, build
#   setup.sh kernel       kernel images and headers named in kernels.txt
#   setup.sh all          the four above
#   setup.sh lint         what only the lint suite needs
#   setup.sh model        what only the model suite needs
#   setup.sh docs         what only the documentation needs
#   setup.sh iommufd      the first kernel's VFIO modules, with iommufd, and a
#                         device that they can migrate
#   setup.sh fuzz         what only the fuzzer needs
#   setup.sh boot         what makes modules and initial RAM disks, in a root of
#                         its own: dkms, initramfs-tools, dracut
#   setup.sh debug        kernels that watch themselves, built from source
#   setup.sh newest       the newest of each series of kernels.txt, and a list of
#                         them, newest.txt in the cache
#
# Each step is a no-op when its result is there already. Results that last live
# in the cache (DMA_TRACK_CACHE, default ~/.cache/dma-track), never in the
# checkout. A step that was interrupted starts over: what is unfinished has
# another name than what is finished.
set -euo pipefail
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}
log=$cache/setup.log
build_packages=(gcc g++ make ninja-build bzip2 xz-utils perl python3 python3-venv
	python3-distlib python3-pip python3-setuptools python3-wheel pkg-config
	libglib2.0-dev zlib1g-dev libpixman-1-dev libfdt-dev
	device-tree-compiler libslirp-dev libzstd-dev libnuma-dev
	libgnutls28-dev flex bison libc6-dev git ccache)
bed_packages=(seabios ipxe-qemu qemu-system-data busybox-static cpio kmod
	iproute2 dwarves libelf1 e2fsprogs python3-tap)
boot_packages=(dkms gcc-12 libelf1 pahole initramfs-tools-core dracut-core
	mount udev busybox-static zstd xz-utils bash dash coreutils sed grep gawk
	findutils util-linux libc-bin perl-base tar gzip)
lint_packages=(sparse codespell shellcheck reuse python3-flake8)
model_packages=(spin)
docs_packages=(python3-sphinx)
fuzz_packages=(clang libclang-rt-14-dev)
debug_packages=(bc libelf-dev)
# Of tests/guest/debug.
debug_kernels=(memory races)

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

# Run with a line now and then, so that nobody thinks that it hangs.
slowly() {
	local what=$1 pid t=0
	shift
	say "$what …"
	"$@" >>"$log" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		t=$((t + 1))
		[ $((t % 20)) != 0 ] || say "$what: ${t} s, $(progress)"
	done
	wait "$pid"
}

progress() {
	tail -c 400 "$log" | tr '\r' '\n' | grep . | tail -n 1 | cut -c1-60
}

# failed WHAT HINT: the end of the log, then one line that says what to do
failed() {
	local hint=$2
	tail -n 15 "$log" >&2
	[ "$(free_space)" -ge 16 ] ||
		hint="no space is left in $cache: make room or name another"
	[ "$hint" = "$2" ] || hint+=" place with DMA_TRACK_CACHE; run again"
	die "$1 failed. $hint (log: $log)"
}

# MiB in the cache
free_space() { df -Pm "$cache" | awk 'NR == 2 { print $4 }'; }

check_machine() {
	[ "$(uname -m)" = x86_64 ] ||
		die "this machine is $(uname -m); dma-track works on x86_64 only"
	command -v apt-get >/dev/null ||
		die "no apt-get: the set-up is for Debian 12; elsewhere install" \
			"by hand: ${build_packages[*]} ${bed_packages[*]}"
	mkdir -p "$cache" 2>/dev/null ||
		die "cannot create $cache; name another with DMA_TRACK_CACHE"
}

# need_space MIB WHAT
need_space() {
	local free
	free=$(free_space)
	[ "$free" -ge "$1" ] ||
		die "$2 needs $1 MiB in $cache, $free MiB are free;" \
			"make room or name another place with DMA_TRACK_CACHE"
}

install_packages() {
	local missing=() p
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" = \
			"install ok installed" ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] ||
		die "not root and packages are missing; run:" \
			"sudo apt-get install --no-install-recommends ${missing[*]}"
	slowly "installing ${#missing[@]} packages" apt_install "${missing[@]}" ||
		failed "apt-get install" "Missing: ${missing[*]}. Is the network" \
			"there? (apt-get update)"
}

apt_install() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y --no-install-recommends "$@" ||
		{ apt-get update &&
			apt-get install -y --no-install-recommends "$@"; }
}

# --- A private apt: the machine's own lists and sources are not touched ------

# One for each suite of Debian that something comes from.
suite=bookworm

# site RELEASE…: where this machine gets the first of these releases from
# shellcheck disable=SC2016 # apt expands them
site() {
	local release found
	for release in "$@"; do
		found=$(apt-get indextargets --format '$(SITE) $(RELEASE)' |
			awk -v release="$release" \
				'$2 == release { print $1; exit }')
		[ -z "$found" ] || { echo "$found"; return; }
	done
	return 1
}

private_apt_config() {
	local apt=$cache/apt-$suite main security
	local by="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
	mkdir -p "$apt/lists/partial" "$apt/archives/partial"
	main=$(site bookworm oldstable bookworm-updates) ||
		die "apt on this machine has no Debian 12 (bookworm) source;" \
			"add one to /etc/apt/sources.list"
	security=$(site bookworm-security oldstable-security) ||
		security=$main-security
	echo "deb $by $main $suite main" >"$apt/sources.list"
	[ "$suite" != bookworm ] || cat >>"$apt/sources.list" <<-END
		deb $by $main bookworm-backports main
		deb $by $security bookworm-security main
	END
	cat >"$apt/apt.conf" <<-END
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State::lists "$apt/lists";
		Dir::Cache "$apt";
		Dir::Cache::archives "$apt/archives";
		APT::Sandbox::User "root";
		APT::Install-Recommends "false";
		Acquire::Retries "2";
	END
}

private_apt() { APT_CONFIG=$cache/apt-$suite/apt.conf "$@"; }

updated=
private_update() {
	[[ $updated != *" $suite "* ]] || return 0
	private_apt_config
	slowly "reading Debian's package lists of $suite" \
		private_apt apt-get update --error-on=any ||
		failed "apt-get update" "Is the network there?"
	updated+=" $suite "
}

# find_deb PACKAGE: print the path of a .deb that is here already
find_deb() {
	local dir deb
	for dir in "${DMA_TRACK_DOWNLOADS:-}" "$cache/downloads"; do
		[ -n "$dir" ] || continue
		deb=$(find "$dir" -maxdepth 1 -name "$1_*.deb" 2>/dev/null |
			sort -V | tail -n 1)
		[ -z "$deb" ] || { echo "$deb"; return; }
	done
	return 1
}

# download PACKAGE[/SUITE]
download() {
	local package=${1%%/*} partial=$cache/downloads/partial
	private_update
	rm -rf "$partial"
	mkdir -p "$partial"
	(cd "$partial" && slowly "downloading $package" \
		private_apt apt-get download "$1") ||
		failed "downloading $package" "Is the network there?"
	mv "$partial/${package}"_*.deb "$cache/downloads/"
}

# unpack DIR PACKAGE[/SUITE]…: all of them, or nothing
unpack() {
	local dir=$1 package
	shift
	rm -rf "$dir.new"
	mkdir -p "$dir.new"
	for package in "$@"; do
		find_deb "${package%%/*}" >/dev/null || download "$package"
		dpkg-deb -x "$(find_deb "${package%%/*}")" "$dir.new" \
			2>>"$log" || {
			rm -f "$cache/downloads/${package%%/*}"_*.deb
			failed "unpacking ${package%%/*}" \
				"Is the disk full? Then make room; run again."
		}
	done
	rm -rf "$dir"
	mv "$dir.new" "$dir"
}

# --- Steps -----------------------------------------------------------------

step_packages() {
	install_packages "${build_packages[@]}" "${bed_packages[@]}"
}

step_model() { install_packages "${model_packages[@]}"; }

step_fuzz() { install_packages "${fuzz_packages[@]}"; }

step_docs() { install_packages "${docs_packages[@]}"; }

# checkpatch.pl is in no package but the kernel's source.
step_lint() {
	local to=$cache/checkpatch deb
	install_packages "${lint_packages[@]}"
	[ ! -e "$to/checkpatch.pl" ] || return 0
	find_deb linux-source-6.12 >/dev/null || download linux-source-6.12
	deb=$(find_deb linux-source-6.12)
	slowly "unpacking checkpatch.pl" extract_checkpatch "$deb" "$to" ||
		failed "unpacking $deb" "Is the disk full?"
	rm -f "$cache/downloads/${deb##*/}"
}

extract_checkpatch() {
	rm -rf "$2.new"
	mkdir -p "$2.new"
	dpkg-deb --fsys-tarfile "$1" |
		tar -xO ./usr/src/linux-source-6.12.tar.xz |
		tar -C "$2.new" -xJ --strip-components=2 \
			linux-source-6.12/scripts/checkpatch.pl \
			linux-source-6.12/scripts/spelling.txt \
			linux-source-6.12/scripts/const_structs.checkpatch
	[ -s "$2.new/checkpatch.pl" ] && mv "$2.new" "$2"
}

# QEMU 11 wants meson 1.5 or newer, Debian 12 has 1.0.
step_backports() {
	[ ! -e "$cache/pydeps/usr/lib/python3/dist-packages/mesonbuild" ] ||
		return 0
	unpack "$cache/pydeps" meson/bookworm-backports \
		python3-pycotap/bookworm-backports
}

configure_qemu() {
	mkdir -p "$cache/qemu/build"
	cd "$cache/qemu/build"
	CC="ccache gcc" ../src/configure --python=/usr/bin/python3 \
		--target-list=x86_64-softmmu --without-default-features \
		--enable-system --enable-tcg --enable-kvm --enable-slirp \
		--enable-zstd --enable-pixman --enable-tools \
		--enable-vhost-kernel --enable-vhost-net --enable-vhost-user \
		--enable-numa --enable-gnutls --enable-replication \
		--enable-fdt=system \
		--disable-download --disable-docs --disable-debug-info \
		--disable-werror --disable-install-blobs \
		--firmwarepath=/usr/share/qemu:/usr/share/seabios:/usr/lib/ipxe/qemu
}

build_qemu() {
	cd "$cache/qemu/build"
	ninja qemu-system-x86_64 qemu-img
}

step_qemu() {
	local build=$cache/qemu/build
	[ -z "${DMA_TRACK_QEMU:-}" ] ||
		{ [ -x "$DMA_TRACK_QEMU" ] ||
			die "DMA_TRACK_QEMU=$DMA_TRACK_QEMU is no program"
		say "using DMA_TRACK_QEMU=$DMA_TRACK_QEMU"; return; }
	[ -x "$build/qemu-system-x86_64" ] || need_space 3500 "building QEMU"
	mkdir -p "$cache/qemu"
	"$root/host/qemu-patch/qemu-tree.sh" "$cache/qemu/src" \
		"$cache/downloads" || die "no QEMU source, see above"
	export PYTHONPATH=$cache/pydeps/usr/lib/python3/dist-packages
	export CCACHE_DIR=$cache/ccache PYTHONDONTWRITEBYTECODE=1
	# What it was configured with, so that a change of that starts over.
	[ "$(cat "$build/.configured" 2>/dev/null)" = \
		"$(declare -f configure_qemu)" ] ||
		{ rm -rf "$build"
		slowly "configuring QEMU" configure_qemu ||
			failed "configuring QEMU" "(rm -r $build starts over)"
		declare -f configure_qemu >"$build/.configured"; }
	slowly "building QEMU (3 minutes on two cores, once)" build_qemu ||
		failed "building QEMU" "(rm -r $cache/qemu starts over)"
}

# kernels.txt names a release per line; the mirror may have dropped it.
kernel_release() {
	local release=$1 newest
	if find_deb "linux-image-$release" >/dev/null ||
		private_apt apt-cache show \
			"linux-image-$release" >/dev/null 2>&1; then
		echo "$release"
		return
	fi
	newest=$(newest_release "$release")
	[ -n "$newest" ] || die "no kernel like $release in Debian's index," \
		"and it is not in the cache either"
	say "kernel $release is no longer in Debian's index; using $newest" >&2
	echo "$newest"
}

# newest_release RELEASE: of its series, in the index of the suite
newest_release() {
	local series=${1%%+*}
	series=${series%.*}
	private_apt apt-cache pkgnames "linux-image-$series." |
		sed -n 's/^linux-image-//p' |
		grep -E '^[0-9.]+(-[0-9]+|\+deb[0-9]+)-amd64$' | sort -V |
		tail -n 1 || true
}

# What the compiler of the machine can build for: image and headers suffice.
unpack_kernel() {
	local release=$1 dir=$2 headers=linux-headers-$1 parts
	find_deb "$headers" >/dev/null || download "$headers"
	parts=$(dpkg-deb -f "$(find_deb "$headers")" Depends |
		grep -oE 'linux-(headers-[^ ,]*-common|kbuild-[^ ,]*)')
	# shellcheck disable=SC2086 # one package per word
	unpack "$dir" "linux-image-$release" "$headers" $parts
	# Debian's makefile names its other half by its installed path.
	sed -i "s,include /usr/src/,include ${dir%/*}/root/usr/src/," \
		"$dir/usr/src/$headers/Makefile"
}

# Others come with all that a build needs, to be built in by chroot.
unpack_kernel_and_tools() {
	local release=$1 compiler=$2 dir=$3 archives=$cache/apt-$suite/archives
	private_update
	: >"$cache/apt-$suite/status"
	rm -f "$archives"/*.deb
	slowly "downloading kernel $release and $compiler of $suite" \
		private_apt apt-get -y --download-only \
		-o Dir::State::status="$cache/apt-$suite/status" install \
		"linux-headers-$release" "linux-binary-$release" \
		"linux-modules-$release" "$compiler" make bash dash coreutils \
		sed grep gawk findutils perl-base ||
		failed "downloading kernel $release" "Is the network there?"
	rm -rf "$dir"
	mkdir -p "$dir"
	slowly "unpacking kernel $release and $compiler" \
		unpack_all "$dir" "$archives"/*.deb ||
		failed "unpacking kernel $release" "Is the disk full?"
	rm -f "$archives"/*.deb
	# What maintainer scripts would have made.
	[ -e "$dir/bin/sh" ] || ln -s dash "$dir/bin/sh"
	ln -sf gawk "$dir/usr/bin/awk"
	ln -sf "$compiler" "$dir/usr/bin/gcc"
	# objtool wants to know where its stack is, to tell when that overflows.
	mkdir -p "$dir/build" "$dir/dev" "$dir/proc/self"
	echo "7ff000000000-7ffffffff000 rw-p 00000000 00:00 0 [stack]" \
		>"$dir/proc/self/maps"
	[ -e "$dir/dev/null" ] || mknod "$dir/dev/null" c 1 3 ||
		die "cannot make a device node in $dir: not root?"
}

# Where dkms, mkinitramfs and dracut are at home, without installing them.
step_boot() {
	local dir=$cache/boot archives
	[ ! -e "$dir/root" ] || return 0
	suite=bookworm
	archives=$cache/apt-$suite/archives
	need_space 800 "what makes initial RAM disks"
	private_update
	: >"$cache/apt-$suite/status"
	rm -f "$archives"/*.deb
	slowly "downloading dkms, initramfs-tools and dracut" \
		private_apt apt-get -y --download-only \
		-o Dir::State::status="$cache/apt-$suite/status" install \
		"${boot_packages[@]}" ||
		failed "downloading dkms" "Is the network there?"
	rm -rf "$dir/unpacked"
	mkdir -p "$dir/unpacked"
	slowly "unpacking them" unpack_all "$dir/unpacked" "$archives"/*.deb ||
		failed "unpacking them" "Is the disk full?"
	rm -f "$archives"/*.deb
	# What maintainer scripts would have made.
	[ -e "$dir/unpacked/bin/sh" ] || ln -s dash "$dir/unpacked/bin/sh"
	ln -sf gawk "$dir/unpacked/usr/bin/awk"
	mkdir -p "$dir/unpacked/var/lib/dkms"
	mv "$dir/unpacked" "$dir/root"
}

unpack_all() {
	local dir=$1 deb
	shift
	for deb in "$@"; do
		dpkg-deb -x "$deb" "$dir" || return 1
	done
}

step_kernel() { unpack_kernels "$root/tests/guest/kernels.txt"; }

# unpack_kernels LIST: a file like kernels.txt
unpack_kernels() {
	local pinned release dir compiler
	# Not standard input: something in the loop might read it.
	while read -r pinned suite compiler <&8; do
		dir=$cache/kernels/$pinned
		[ ! -e "$dir/root" ] || continue
		need_space 1500 "kernel $pinned"
		find_deb "linux-image-$pinned" >/dev/null || private_update
		release=$(kernel_release "$pinned")
		say "kernel $release: image and headers"
		mkdir -p "$dir"
		if [ "$suite" = bookworm ]; then
			unpack_kernel "$release" "$dir/unpacked"
		else
			unpack_kernel_and_tools "$release" "$compiler" \
				"$dir/unpacked"
		fi
		depmod -b "$dir/unpacked" "$release" 2>>"$log" || true
		echo "$release" >"$dir/unpacked/release"
		mv "$dir/unpacked" "$dir/root"
	done 8< <(sed 's/#.*//' "$1" | awk 'NF')
	suite=bookworm
}

step_newest() {
	local pinned compiler newest list=$cache/newest.txt
	: >"$list.new"
	while read -r pinned suite compiler <&8; do
		private_update
		newest=$(newest_release "$pinned")
		say "newest kernel like $pinned: ${newest:-none, so that one}"
		echo "${newest:-$pinned} $suite $compiler" >>"$list.new"
	done 8< <(sed 's/#.*//' "$root/tests/guest/kernels.txt" | awk 'NF')
	suite=bookworm
	mv "$list.new" "$list"
	unpack_kernels "$list"
}

# Debian's kernels come without iommufd. Its sources, and those of VFIO with what
# iommufd adds to them, build as modules of the same kernel: iommufd itself, and
# VFIO's, which take the place of the packaged ones. With them the kernel's sample
# of a device that VFIO can migrate, a serial card.
step_iommufd() {
	local pinned to deb
	pinned=$(sed 's/#.*//' "$root/tests/guest/kernels.txt" |
		awk 'NF { print $1; exit }')
	to=$cache/kernels/$pinned/vfio
	[ ! -e "$to" ] || return 0
	need_space 500 "building iommufd"
	find_deb linux-source-6.12 >/dev/null || download linux-source-6.12
	deb=$(find_deb linux-source-6.12)
	slowly "building iommufd for $pinned" build_iommufd "$deb" "$pinned" \
		"$to" || failed "building iommufd" "(rm -r $to.new starts over)"
}

build_iommufd() {
	local deb=$1 pinned=$2 work=$3.new
	local source=$work/linux-source-6.12 drivers=$work/room
	# Only for these modules: the kernel itself was built without.
	local on='-DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_VFIO_DEVICE_CDEV=1'
	on+=' -DCONFIG_IOMMUFD_DRIVER=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1'

	rm -rf "$work"
	mkdir -p "$drivers"
	dpkg-deb --fsys-tarfile "$deb" |
		tar -xO ./usr/src/linux-source-6.12.tar.xz |
		tar -C "$work" -xJ linux-source-6.12/drivers/iommu \
			linux-source-6.12/drivers/vfio \
			linux-source-6.12/samples/vfio-mdev \
			linux-source-6.12/lib/interval_tree.c || return 1
	cp -R "$source/drivers/iommu/iommufd" "$source/drivers/vfio" "$drivers"
	cp "$source"/drivers/iommu/*.h "$drivers"
	mkdir "$drivers/mtty"
	cp "$source/samples/vfio-mdev/mtty.c" "$drivers/mtty"
	printf '%s\n' "ccflags-y += $on" 'obj-m := mtty.o' \
		>"$drivers/mtty/Makefile"
	# The kernel has the rest of this file, but not its last part.
	{
		printf '#include <linux/%s>\n' module.h interval_tree.h \
			interval_tree_generic.h compiler.h export.h
		sed '1,/^#ifdef CONFIG_INTERVAL_TREE_SPAN_ITER/d; /^#endif/,$d
			/^EXPORT_SYMBOL_GPL/d' "$source/lib/interval_tree.c"
	} >"$drivers/iommufd/span.c"
	echo 'obj-m := iommufd/ vfio/ mtty/' >"$drivers/Kbuild"
	cat >"$drivers/iommufd/Makefile" <<-END
		ccflags-y += $on
		iommufd-y := device.o fault.o hw_pagetable.o io_pagetable.o
		iommufd-y += ioas.o main.o pages.o vfio_compat.o
		iommufd-y += iova_bitmap.o span.o
		obj-m := iommufd.o
	END
	cat >"$drivers/vfio/Makefile" <<-END
		ccflags-y += $on
		vfio-y := vfio_main.o device_cdev.o group.o iommufd.o
		vfio-y += container.o virqfd.o
		obj-m := vfio.o vfio_iommu_type1.o pci/
	END
	cat >"$drivers/vfio/pci/Makefile" <<-END
		ccflags-y += $on
		vfio-pci-core-y := vfio_pci_core.o vfio_pci_intrs.o
		vfio-pci-core-y += vfio_pci_rdwr.o vfio_pci_config.o
		vfio-pci-y := vfio_pci.o vfio_pci_igd.o
		obj-m := vfio-pci-core.o vfio-pci.o
	END
	"$root/tests/lib/kbuild.sh" "$pinned" "$work" room -j2 || return 1
	mkdir "$work/modules"
	find "$drivers" -name '*.ko' -exec strip --strip-debug {} + \
		-exec cp -t "$work/modules" {} + || return 1
	rm -rf "$3"
	mv "$work/modules" "$3"
	rm -rf "$work"
}

# Kernels of tests/guest/debug, small, from Debian's source. Each looks like
# an unpacked one, with its build tree for headers.
step_debug() {
	local source=$cache/debug/source name to deb
	install_packages "${debug_packages[@]}"
	for name in "${debug_kernels[@]}"; do
		to=$cache/kernels/debug-$name
		# Made of other wishes it is made again.
		debug_config "$name" | cmp -s - "$to/root/wanted.config" &&
			continue
		need_space 4000 "building kernel debug-$name"
		[ -e "$source" ] || {
			find_deb linux-source-6.12 >/dev/null ||
				download linux-source-6.12
			deb=$(find_deb linux-source-6.12)
			slowly "unpacking linux-source-6.12" \
				extract_source "$deb" "$source" ||
				failed "unpacking $deb" "Is the disk full?"
		}
		slowly "building kernel debug-$name (20 minutes, once)" \
			build_debug "$name" "$source" "$to" ||
			failed "building debug-$name" \
				"(rm -r $cache/debug/$name starts over)"
	done
}

# debug_config NAME: what is wanted of it
debug_config() {
	cat "$root/tests/guest/debug/base.config" \
		"$root/tests/guest/debug/$1.config"
}

extract_source() {
	rm -rf "$2.new"
	mkdir -p "$2.new"
	dpkg-deb --fsys-tarfile "$1" |
		tar -xO ./usr/src/linux-source-6.12.tar.xz |
		tar -C "$2.new" -xJ --strip-components=1 &&
		mv "$2.new" "$2"
}

build_debug() {
	local build=$cache/debug/$1 source=$2 to=$3 room=$root/tests/guest/debug
	local release
	export CCACHE_DIR=$cache/ccache LOCALVERSION
	# A kernel by another name: what is built for it is kept by that.
	LOCALVERSION=-$(debug_config "$1" | sha256sum | cut -c1-8)
	mkdir -p "$build" "$to"
	make -C "$source" O="$build" tinyconfig || return 1
	(cd "$source" && scripts/kconfig/merge_config.sh -m -O "$build" \
		"$build/.config" "$room/base.config" "$room/$1.config") ||
		return 1
	make -C "$source" O="$build" olddefconfig || return 1
	"$room/check-config.sh" "$build/.config" "$room/base.config" \
		"$room/$1.config" || return 1
	# The module's data is nobody else's, and a guest whose whole kernel looks
	# for races takes hours: only modules that are built for it do.
	make -C "$source" O="$build" CC="ccache gcc" -j"$(nproc)" \
		KCSAN_SANITIZE=n bzImage modules || return 1
	release=$(cat "$build/include/config/kernel.release")
	rm -rf "$to/root.new"
	mkdir -p "$to/root.new/boot" "$to/root.new/usr/src"
	make -C "$source" O="$build" INSTALL_MOD_PATH="$to/root.new" \
		INSTALL_MOD_STRIP=1 modules_install || return 1
	cp "$build/arch/x86/boot/bzImage" "$to/root.new/boot/vmlinuz-$release"
	rm -f "$to/root.new/lib/modules/$release/build" \
		"$to/root.new/lib/modules/$release/source"
	ln -s "$build" "$to/root.new/usr/src/linux-headers-$release"
	echo "$release" >"$to/root.new/release"
	debug_config "$1" >"$to/root.new/wanted.config"
	rm -rf "$to/root"
	mv "$to/root.new" "$to/root"
}

check_machine
exec 9>"$cache/setup.lock"
flock -n 9 || { say "waiting for another set-up to finish"; flock 9; }
: >"$log"
for step in "${@:-all}"; do
	case $step in
	packages | backports | qemu | kernel | lint | model | docs | iommufd | \
		fuzz | boot | debug | newest)
		"step_$step" ;;
	all)
		step_packages
		step_backports
		step_kernel
		step_qemu
		;;
	*) die "unknown step '$step'; see the head of $0" ;;
	esac
done

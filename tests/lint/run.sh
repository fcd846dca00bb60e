#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite lint: everything that reads the sources and runs nothing of them. A tool
# that is missing is a failure, never a skip.
set -u
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${DMA_TRACK_CACHE:-$HOME/.cache/dma-track}
cd "$root" || exit 1
# shellcheck source=tests/lib/tap.sh
. tests/lib/tap.sh

tracked() { git ls-files --cached --others --exclude-standard -- "$@"; }
kernel_code() {
	tracked 'guest/*.[ch]' 'include/*.h' 'tests/guest/*.[ch]' |
		grep -v '^tests/guest/programs/'
}
qemu_code() { tracked 'host/qemu-patch/files/*.[ch]'; }

kernel_checkpatch() {
	local file status=0
	[ -x "$cache/checkpatch/checkpatch.pl" ] ||
		{ echo "no checkpatch.pl: tests/lib/setup.sh lint"; return 1; }
	for file in $(kernel_code); do
		perl "$cache/checkpatch/checkpatch.pl" --no-tree --strict \
			--quiet --terse --show-types --no-summary \
			--ignore "$(tests/lint/checkpatch-ignore.sh "$file")" \
			-f "$file" || status=1
	done
	return $status
}

qemu_checkpatch() {
	local script=$cache/qemu/src/scripts/checkpatch.pl status=0 file
	[ -e "$script" ] || { echo "no QEMU tree: make setup"; return 1; }
	for file in $(qemu_code); do
		(cd "$cache/qemu/src" && perl scripts/checkpatch.pl --no-tree \
			--quiet --terse -f "$root/$file") || status=1
	done
	for file in $(tracked 'host/qemu-patch/patches/*.patch'); do
		(cd "$cache/qemu/src" && perl scripts/checkpatch.pl --quiet \
			--terse "$root/$file") || status=1
	done
	return $status
}

kernel_doc() {
	local script
	script=$(find "$cache/kernels" -name kernel-doc -type f | head -n 1)
	[ -n "$script" ] || { echo "no kernel-doc: make setup"; return 1; }
	# shellcheck disable=SC2046 # one path per word
	perl "$script" -none -Werror $(tracked 'include/*.h')
}

shell_scripts() {
	local file
	for file in $(tracked); do
		[ -f "$file" ] && head -n 1 "$file" |
			grep -qE '^#!.*(/| )(ba)?sh( |$)' && echo "$file"
	done
	tracked '*.sh'
}

shell_lint() {
	# shellcheck disable=SC2046 # one path per word
	shellcheck -x -P SCRIPTDIR $(shell_scripts | grep -v initramfs/ |
		sort -u)
}

python_lint() {
	# shellcheck disable=SC2046 # one path per word
	/usr/bin/python3 -m flake8 --max-line-length 80 $(tracked '*.py')
}

spelling() {
	# shellcheck disable=SC2046 # one path per word
	codespell -L 'inflight,nd' $(tracked |
		grep -vE '^(LICENSE|host/qemu-patch/patches)')
}

licences() { reuse lint; }

# The arrows of CONTRIBUTING.md: who may include whom.
arrows() { tests/lint/arrows.sh; }

no_foreign_names() {
	! git grep -nE '(^|[^[:alnum:]_}])/((root|home)/[a-z.]|work/)' -- . \
		':!tests/lint/run.sh' ':!LICENSE*'
}

mkdir -p build
tap_run 'checkpatch --strict finds nothing in guest code' kernel_checkpatch
tap_run "QEMU's checkpatch finds nothing in files and patches" qemu_checkpatch
tap_run 'kernel-doc finds nothing in the ABI headers' kernel_doc
tap_run 'shellcheck finds nothing' shell_lint
tap_run 'flake8 finds nothing' python_lint
tap_run 'codespell finds nothing' spelling
tap_run 'every file has a licence' licences
tap_run 'rooms include only what the map allows' arrows
tap_run 'no path of a private machine is named' no_foreign_names
tap_done

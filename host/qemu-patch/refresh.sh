#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Write files/, patches/ and series from a QEMU work tree: the way back.
#
#   refresh.sh TREE
#
# TREE is what qemu-tree.sh made, with your commits on top or amended. Files
# that the base does not have go to files/, whichever commit brought them; every
# commit that changes a file of the base becomes a patch. Read the difference
# (git diff, git range-diff) before you commit it.
set -euo pipefail
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"

here=$(cd "$(dirname "$0")" && pwd)
tree=${1:?usage: refresh.sh TREE}
git_in() { git -C "$tree" -c safe.directory='*' "$@"; }

[ -z "$(git_in status --porcelain -uno)" ] ||
	{ echo "refresh: $tree has uncommitted changes" >&2; exit 1; }

# The imported headers come from include/uapi: never from the tree.
imported='include/standard-headers/linux/(virtio_dma_track|pci_dma_quiesce)\.h'

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/files" "$stage/patches"
git_in diff --name-only --diff-filter=A base HEAD | grep -Ev "^$imported$" |
	while read -r file; do
		install -D -m "$([ -x "$tree/$file" ] && echo 755 || echo 644)" \
			"$tree/$file" "$stage/files/$file"
	done

changed=$(mktemp)
git_in diff --name-only --diff-filter=MD base HEAD >"$changed"
number=0
for commit in $(git_in rev-list --reverse --no-merges base..HEAD); do
	files=$(git_in show --name-only --format= "$commit" |
		grep -Fxf "$changed" || true)
	[ -n "$files" ] || continue
	number=$((number + 1))
	# shellcheck disable=SC2086 # one path per word
	git_in format-patch -1 --zero-commit --no-numbered --no-signature \
		--full-index \
		--start-number "$number" -o "$stage/patches" "$commit" \
		-- $files >/dev/null
done
rm -f "$changed"

{
	echo "# Applied in this order by qemu-tree.sh; written by refresh.sh."
	(cd "$stage/patches" && ls)
} >"$stage/series"

rm -rf "$here/files" "$here/patches"
mv "$stage/files" "$stage/patches" "$stage/series" "$here/"
echo "refresh: $(find "$here/files" -type f | wc -l) files, $number patches"

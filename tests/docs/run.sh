#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Suite docs: the documentation builds, and what it says is so.
set -u
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root" || exit 1
# shellcheck source=tests/lib/tap.sh
. tests/lib/tap.sh
scratch=$root/build/docs-test
rm -rf "$scratch"
mkdir -p "$scratch"

builds() { tests/docs/build.sh "$scratch/html"; }

# A test that cannot fail proves nothing.
# notices WHAT SED-SCRIPT PAGE: a page that is changed so does not build
notices() {
	rm -rf "$scratch/changed"
	mkdir -p "$scratch/changed/tests/docs"
	cp -r Documentation include "$scratch/changed/"
	cp tests/docs/build.sh "$scratch/changed/tests/docs/"
	sed -i "$1" "$scratch/changed/Documentation/$2"
	! cmp -s "Documentation/$2" "$scratch/changed/Documentation/$2" ||
		{ echo "nothing was changed in $2"; return 1; }
	! "$scratch/changed/tests/docs/build.sh" "$scratch/changed/html" \
		>/dev/null 2>&1
}

missing_name_is_noticed() {
	# shellcheck disable=SC2016 # backquotes of the page
	printf '``no_such_function()``\n' >"$scratch/page.rst"
	! tests/docs/names.py "$scratch/page.rst" >/dev/null
}

# As --check does, with a guide that lacks its last message.
missing_message_is_noticed() {
	local last
	last=$(grep -n '^| ``' Documentation/operating.rst | tail -n 1)
	tests/docs/messages.py --check --without "${last%%:*}" |
		grep -q 'not explained'
}

# As if the file that demands it were not there.
missing_assertion_is_noticed() {
	tests/docs/asserted.py --without vetoes.py |
		grep -q 'no test demands: .*RDMA'
}

# Neither a script that would do its work, nor one that says nothing.
silence_is_noticed() {
	printf '#!/bin/sh\nexit 0\n' >"$scratch/command"
	printf '#!/bin/sh\n# --help\nexit 0\n' >"$scratch/command2"
	chmod +x "$scratch/command" "$scratch/command2"
	[ "$(tests/docs/help.py "$scratch/command" "$scratch/command2" |
		wc -l)" = 2 ]
}

tap_run 'it builds without a warning' builds
tap_run 'a page that is not there is noticed' \
	notices 's/:doc:.overview/&x/' index.rst
tap_run 'a requirement that is not there is noticed' \
	notices 's/:req:.DT-DRV-4/&99/' protocol.rst
tap_run 'a struct that is not there is noticed' \
	notices 's/^.. struct:: .*resp$/.. struct:: no_such/' protocol.rst
tap_run 'every message of host and guest is explained, and no other' \
	tests/docs/messages.py --check
tap_run 'a message that is not explained is noticed' missing_message_is_noticed
tap_run 'every text with which the host refuses is demanded by a test' \
	tests/docs/asserted.py
tap_run 'one that is not is noticed' missing_assertion_is_noticed
tap_run 'functions, files, targets and options are there, and shell is shell' \
	tests/docs/names.py
tap_run 'a function that is not there is noticed' missing_name_is_noticed
tap_run 'every command answers --help' tests/docs/help.py
tap_run 'one that does not is noticed' silence_is_noticed
tap_done

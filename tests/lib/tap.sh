# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TAP for shell: source it, call tap_run for each test, or tap_skip for one that
# cannot run here, end with tap_done.

tap_count=0
tap_failures=0

# tap_run NAME COMMAND…: one test; what the command prints is shown if it fails.
tap_run() {
	local name=$1 out
	shift
	tap_count=$((tap_count + 1))
	if out=$("$@" 2>&1); then
		echo "ok $tap_count - $name"
	else
		echo "not ok $tap_count - $name"
		tap_failures=$((tap_failures + 1))
		printf '%s\n' "$out" | head -n 60 | sed 's/^/# /'
	fi
}

# tap_skip NAME REASON
tap_skip() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1 # SKIP $2"
}

tap_done() {
	echo "1..$tap_count"
	[ "$tap_failures" = 0 ]
}

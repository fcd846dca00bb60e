#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Is everything that was wanted of a kernel in its configuration? What depends on
# something that is missing is left out without a word.
#
#   check-config.sh CONFIG WANTED…
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
config=$1
shift
status=0
while read -r line; do
	case $line in
	CONFIG_*=n)
		! grep -q "^${line%n}" "$config" || missing=1 ;;
	CONFIG_*)
		grep -qxF "$line" "$config" || missing=1 ;;
	esac
	[ -z "$missing" ] || { echo "not so: $line"; status=1; }
	missing=
done <<END
$(cat "$@")
END
exit $status

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The checkpatch types that do not apply to a file, each with its reason.
#
#   checkpatch-ignore.sh FILE
types=(
	# checkpatch does not see how a file is built: out of tree.
	FILE_PATH_CHANGES
	# The ABI headers are BSD-3-Clause on purpose: both sides may copy them.
	SPDX_LICENSE_TAG
)
case $1 in
*/compat.h)
	# The one place where the kernel's version may be asked.
	types+=(LINUX_VERSION_CODE) ;;
tests/guest/unit/*)
	# Userspace.
	types+=(USE_NEGATIVE_ERRNO PREFER_DEFINED_ATTRIBUTE_MACRO) ;;
esac
(IFS=,; echo "${types[*]}")

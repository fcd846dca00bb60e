#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The checkpatch types that do not apply to a file, each with its reason.
#
#   checkpatch-ignore.sh FILE
[ "${1-}" != --help ] || exec sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
types=(
	# checkpatch does not see how a file is built: out of tree.
	FILE_PATH_CHANGES
	# The ABI headers are BSD-3-Clause on purpose: both sides may copy them.
	SPDX_LICENSE_TAG
	# Locks are described in the kernel-doc of their struct.
	UNCOMMENTED_DEFINITION
)
case $1 in
*/compat.h | */requires.h)
	# The places where the kernel's version may be asked, and it is asked
	# with the constant on the right, which checkpatch does not see.
	types+=(LINUX_VERSION_CODE CONSTANT_COMPARISON) ;;
*/hooks.c | */hook_list.h | */selftest.c)
	# A list of functions from which code is made: no value, no argument.
	types+=(COMPLEX_MACRO MACRO_ARG_REUSE MACRO_ARG_UNUSED
		TRAILING_SEMICOLON AVOID_EXTERNS) ;;
*/dirty.h)
	# The name of a label in an assembler's operand.
	types+=(SPACING) ;;
*/dma_bench.c)
	# A function's name, of which there is no copy to use.
	types+=(MACRO_ARG_REUSE) ;;
*/trace.h)
	# Tracepoints are laid out as the kernel's are, which it does not like.
	types+=(COMPLEX_MACRO MACRO_ARG_REUSE PARENTHESIS_ALIGNMENT
		OPEN_ENDED_LINE) ;;
tests/guest/unit/* | tests/guest/bench/native.c)
	# Userspace, and stand-ins for kernel macros.
	types+=(USE_NEGATIVE_ERRNO PREFER_DEFINED_ATTRIBUTE_MACRO CAMELCASE
		MACRO_ARG_REUSE MEMORY_BARRIER COMPLEX_MACRO DATA_RACE
		ARRAY_SIZE VOLATILE) ;;
esac
(IFS=,; echo "${types[*]}")

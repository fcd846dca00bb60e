# SPDX-License-Identifier: GPL-2.0-only
"""What survival.py has for make test-full: suite faults has the same, emulated.
"""

import survival

TESTS = (survival.cancelled_when_the_vcpus_are_stopped,
         survival.destination_is_killed_at_the_switchover,
         survival.destination_dies_after_each_method)

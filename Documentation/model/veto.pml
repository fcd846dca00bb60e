/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The veto: how the host learns that the planes do not tell all
 *
 * Five things make a device write a frame of which no plane and no dirty log
 * tells. Each happens once, or not, at any moment, in a guest whose vCPUs can
 * stop between any two steps:
 *
 *   - memory of a section that the host has not accepted is mapped: the guest
 *     sets the lost word before the driver has the address;
 *   - a driver that maps behind the DMA API is bound for a while: the function
 *     is untracked, and the guest says so before it is bound;
 *   - the guest resets the virtio device, forgets what it has published, and
 *     sets it up anew;
 *   - the kernel crashes, and another takes over that knows of no planes;
 *   - the migration begins while the VM is paused, so that nobody logs, and
 *     somebody lets the VM go on.
 *
 * The user can stop a VM that logs, and let it go on. The host asks for a sign
 * of life just before it stops the vCPUs.
 *
 * Assumed: a kernel that takes over after a crash has no device write memory
 * between the sign of life and the stop that follows it at once. Booting takes
 * longer. Mutant 10 is a kernel that boots faster.
 *
 * Properties, as they are named in mutants.csv:
 *   lost_page    no migration completes after a write that nobody tells of,
 *                unless it sends everything after it
 *   hung         the migration is over when nothing can happen any more
 *
 * Not in the code: crash, unlogged, write_uncovered.
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define TRACKED 0
#define UNTRACKED 1

bit running = 1;		/* the VM */
bit stopped_by_user;
bit state = TRACKED;		/* of the function, in the status page */
bit lost;			/* the lost word */
bit ready = 1;			/* SETUP was made, and no reset since */
bit crashed;			/* another kernel runs */
bit logging;			/* acknowledged */
bit asked_to_log;
bit report, looked;		/* FUNCTION: asked, answered */
bit alive_asked, alive;		/* the echo */
bit used, failed;		/* dma_track.active, .failed */
bit unheard;			/* dma_track.unheard */
bit quiet;
bit sending;			/* RAM is being sent */
bit final;			/* the last pass has begun */
bit hole;			/* a write that nobody tells of */
bit over, completed;
bit lost_page, hung;

#define STEP running
#define KERNEL (running && !crashed)

/*
 * A device writes a frame that no plane has. What it writes before the first
 * byte of RAM is sent is sent.
 */
inline write_uncovered()
{
	if
	:: sending && !quiet -> hole = 1
	:: else
	fi
}

proctype no_section()
{
	if
	:: true
	:: atomic { KERNEL }; 		/* the original has mapped it */
#if MUTANT != 2
	   atomic { KERNEL -> lost = 1 };
#endif
	   atomic { KERNEL };		/* the driver has the address */
	   atomic { write_uncovered() };
#if MUTANT == 2
	   atomic { KERNEL -> lost = 1 }
#endif
	fi
}

inline write_entry(now)
{
#if MUTANT != 3
	/* An untracked time must not pass unseen. */
	if
	:: atomic { KERNEL && (state != UNTRACKED || looked) }
	:: atomic { KERNEL && !ready }
	fi;
#endif
	atomic { KERNEL -> state = now; looked = 0; report = 1 }
}

proctype behind_api()
{
	if
	:: true
	:: write_entry(UNTRACKED);
	   atomic { KERNEL };		/* the driver is bound */
	   atomic { write_uncovered() };
	   atomic { KERNEL };		/* and unbound */
	   write_entry(TRACKED)
	fi
}

proctype reset()
{
	if
	:: true
	:: atomic { STEP -> ready = 0; logging = 0;
#if MUTANT != 7
		if
		:: used -> failed = 1
		:: else
		fi
#endif
	   };
	   atomic { STEP };
	   atomic { write_uncovered() };
	   atomic { STEP -> ready = 1 }
	fi
}

proctype crash()
{
	if
	:: true
	:: atomic { STEP -> crashed = 1 };
#if MUTANT == 10
	   atomic { STEP };
#else
	   atomic { STEP && !(alive_asked && alive) };
#endif
	   atomic { write_uncovered() }
	fi
}

/*
 * The guest unmaps what was written just now, and does not dirty it, because
 * nobody asked it to log. Where that is a matter of moments, see gate.pml.
 */
proctype unlogged()
{
	if
	:: true
	:: atomic { KERNEL && used && !logging && ready -> write_uncovered() }
	fi
}

/* The guest's answers. */
proctype work()
{
end:	do
	:: atomic { KERNEL && ready && asked_to_log && !logging -> logging = 1 }
	:: atomic { KERNEL && ready && alive_asked && !alive -> alive = 1 }
	od
}

inline look()
{
	atomic {
		if
#if MUTANT != 4
		:: used && state == UNTRACKED -> failed = 1
#endif
		:: else
		fi
	}
}

/* FUNCTION, in the host's main loop. */
proctype requests()
{
end:	do
	:: atomic { STEP && ready && report -> report = 0 };
	   look();
	   looked = 1
	od
}

proctype user()
{
	if
	:: true
	:: atomic { running && used && !over && !final ->
		running = 0; stopped_by_user = 1 };
	   if
	   :: true
	   :: atomic { !over && stopped_by_user && !final ->
		stopped_by_user = 0; running = 1; quiet = 0;
#if MUTANT != 8
		if
		:: !logging -> failed = 1
		:: else
		fi
#endif
	      }
	   fi
	fi
}

inline fail()
{
	atomic { goto failing }
}

#define VETO (state == UNTRACKED || lost || !ready)

proctype host()
{
	byte passes = 1;

	/* save_prepare */
	atomic {
		if
		:: VETO -> goto failing
		:: else
		fi
	};
	atomic {
		used = 1;
		if
		:: asked_to_log = 1
		:: running = 0; stopped_by_user = 1
		fi
	};
	if
	:: atomic { logging && running }
	:: atomic { !running -> quiet = 1 }
	:: fail()
	:: atomic { failed -> goto failing }
	fi;
#if MUTANT == 11
	sending = 1;
	look();
#else
	/*
	 * The first sync comes before the first byte: an untracked time that
	 * the guest told of before the planes were in use must not go on.
	 */
	look();
	sending = 1;
#endif
	do
	:: passes > 0 ->
		look();
		passes--
	:: atomic { failed -> goto failing }
	:: passes == 0 -> break
	od;

	/* The sign of life. */
#if MUTANT != 6
	if
	:: atomic { running && logging && ready -> alive_asked = 1 };
	   if
	   :: atomic { alive && running }
	   :: fail()
	   :: atomic { failed -> goto failing }
	   :: atomic { !running ->
#if MUTANT != 5
		unheard = 1
#endif
	      }
	   fi
	:: atomic { !running ->
#if MUTANT != 5
		unheard = logging
#endif
	   }
	:: atomic { running && !(logging && ready) -> goto failing }
	fi;
#endif
#if MUTANT == 1
	atomic {
		if
		:: lost -> goto failing
		:: else
		fi
	};
#endif
	atomic { running = 0; final = 1 };
	quiet = 1;
	atomic {
		if
		:: failed -> goto failing
#if MUTANT == 1
		:: state == UNTRACKED || !ready -> goto failing
#elif MUTANT == 9
		:: lost || !ready -> goto failing
#else
		:: VETO -> goto failing
#endif
		:: else
		fi
	};
	atomic {
		/* Everything is sent. */
		if
		:: unheard -> hole = 0
		:: else
		fi;
		lost_page = hole;
		assert(!lost_page);
		completed = 1;
		over = 1
	};
	goto done;

failing:
	atomic {
		running = 1; quiet = 0; used = 0; sending = 0; final = 1;
		over = 1
	};
done:
	skip
}

proctype monitor()
{
	timeout ->
	hung = !over;
	assert(!hung)
}

init
{
	atomic {
		run no_section();
		run behind_api();
		run reset();
		run crash();
		run unlogged();
		run work();
		run requests();
		run user();
		run host();
		run monitor()
	}
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Quiesce: two functions, the ways to make them quiet, and the way back
 *
 * Each function takes up work, begins the write that it takes, and the write
 * lands. The host waits for both, by ring flush or bus master, and then, for
 * one that is not quiet, uses the IOMMU, which takes memory away from both. A flush can fail, or end too late, or
 * never; so can the wait for pending transactions. The host tries twice to move
 * the guest, and gives up at every step: then the functions go on, those that
 * were flushed from where they were, the others after a reset. A flushed
 * function can be found in no other state than QUIESCED when it is resumed.
 *
 * Properties, as they are named in mutants.csv:
 *   lost_page    nothing is written to memory after the last harvest
 *   out_of_step  no function goes on that could not write what it wanted to
 *   hung         nothing waits for ever, and in the end both functions run
 *
 * Not in the code: function.
 */
#ifndef MUTANT
#define MUTANT 0
#endif

/* What a function does. */
#define NOTHING 0
#define OBSERVED 1		/* a descriptor */
#define BEGUN 2			/* its write is on the way */

/* STATUS of the capability. */
#define RUNNING 0
#define FLUSHING 1
#define QUIESCED 2
#define ERROR 3

/* In the order in which they are tried. */
#define FLUSH 0
#define MASTER 1
#define IOMMU 2
#define NONE 3

byte work[2];
byte status[2];
bit held[2];			/* bus master is off */
bit blocked;			/* memory is taken away: by a container, from both */
bit mute[2];			/* a flush that never ends */
bit dropped[2];			/* a write that the function takes for done */
byte method[2];			/* VFIODMAQuiesce.method */
bit begun[2];			/* VFIODMAQuiesce.begun */
bit quiet[2];			/* VFIODMAQuiesce.quiet */
bit harvested, over;
bit lost_page, out_of_step, hung;

proctype function(bit f)
{
end:	do
	:: atomic {
		status[f] == RUNNING && work[f] == NOTHING && !held[f] &&
		!over -> work[f] = OBSERVED
	   }
	:: atomic { work[f] == OBSERVED && !held[f] -> work[f] = BEGUN }
	:: atomic {
		work[f] == OBSERVED && held[f] ->
		work[f] = NOTHING; dropped[f] = 1
	   }
	:: atomic {
		work[f] == BEGUN && !blocked ->
		lost_page = harvested;
		assert(!lost_page);
		work[f] = NOTHING
	   }
	:: atomic {
		work[f] == BEGUN && blocked ->
		work[f] = NOTHING; dropped[f] = 1
	   }
	:: atomic {
		status[f] == FLUSHING && work[f] == NOTHING && !mute[f] ->
		status[f] = QUIESCED
	   }
	:: atomic { status[f] == FLUSHING && !mute[f] -> status[f] = ERROR }
	:: atomic { status[f] == FLUSHING && !mute[f] -> mute[f] = 1 }
	od
}

inline control_flush(f)
{
	atomic {
		if
		:: status[f] == RUNNING -> status[f] = FLUSHING
		:: else
		fi
	}
}

inline hold(f)
{
	atomic { held[f] = 1 }
}

inline begin_method(f)
{
	begun[f] = 1;
	if
	:: atomic { method[f] == FLUSH }; control_flush(f)
	:: atomic { method[f] != FLUSH }; hold(f)
	fi
}

/* Its time is up, whatever it is waited for. */
#if MUTANT == 6
#define LATE false
#else
#define LATE true
#endif

/* Sets quiet if it has worked. */
inline finish_method(f)
{
	if
	:: atomic { method[f] == FLUSH };
	   if
#if MUTANT == 1
	   :: atomic { status[f] == FLUSHING -> quiet[f] = 1 }
#endif
	   :: atomic { status[f] == QUIESCED -> quiet[f] = 1 }
	   :: atomic { status[f] == ERROR }
	   :: atomic { status[f] == FLUSHING && LATE }
	   fi
	:: atomic { method[f] == MASTER };
	   if
#if MUTANT == 7
	   :: atomic { quiet[f] = 1 }
#else
	   :: atomic { work[f] != BEGUN -> quiet[f] = 1 }
#endif
	   :: atomic { LATE }
	   fi
	:: atomic { method[f] == IOMMU };
	   /* It works, or not, and then perhaps in part. */
	   if
	   :: atomic { blocked = 1; quiet[f] = 1 }
	   :: atomic { blocked = 1 }
	   :: true
	   fi
	fi
}

/* Methods before that one, until one has worked. */
inline try(f, end)
{
	do
	:: atomic { quiet[f] || method[f] >= end -> break }
	:: atomic { !quiet[f] && method[f] < end };
	   if
	   :: atomic { begun[f] }
	   :: atomic { !begun[f] }; begin_method(f)
	   fi;
	   finish_method(f);
#if MUTANT == 8
	   if
	   :: atomic { !quiet[f] && end == IOMMU -> break }
	   :: atomic { quiet[f] || end != IOMMU }
	   fi;
#endif
	   atomic {
		if
		:: !quiet[f] -> method[f]++; begun[f] = 0
		:: else
		fi
	   }
	od
}

/* What leaves the others undisturbed. */
inline drain(f)
{
	try(f, IOMMU);
	if
	:: atomic { quiet[f] || work[f] != BEGUN }
	:: atomic { LATE }
	fi
}

inline finish(f)
{
	try(f, NONE);
	atomic {
		if
		:: !quiet[f] -> goto failed
		:: else
		fi
	}
}

#define IS_GENTLE(f) (begun[f] && method[f] == FLUSH)

/* Nothing that it began is left, and nothing that it wanted. */
inline reset_function(f)
{
	atomic {
		work[f] = NOTHING; status[f] = RUNNING; dropped[f] = 0;
		mute[f] = 0
	}
}

inline unblock()
{
	atomic { blocked = 0 }
}

/* Its driver begins anew, or goes on and notices nothing. */
inline resume(f)
{
	if
#if MUTANT == 2
	:: atomic { status[f] == QUIESCED || status[f] == FLUSHING };
#else
	:: atomic { IS_GENTLE(f) && status[f] != ERROR };
#endif
	   unblock();
	   atomic {
#if MUTANT != 5
		status[f] = RUNNING;
#endif
		held[f] = 0;
		out_of_step = dropped[f];
		assert(!out_of_step)
	   }
	:: else ->
	   hold(f);
	   reset_function(f);
	   unblock();
	   atomic { held[f] = 0 }
	fi;
	atomic { method[f] = FLUSH; begun[f] = 0; quiet[f] = 0 }
}

proctype host()
{
	byte attempts = 2;

	do
	:: attempts > 0 ->
		attempts--;
		/* All of them stop before any is waited for. */
		begin_method(0);
		begin_method(1);
		if
		:: true
		:: goto failed
		fi;
		/* And all are waited for before any disturbs the others. */
#if MUTANT != 3
		drain(0);
		drain(1);
#endif
		if
		:: true
		:: goto failed
		fi;
		finish(0);
#if MUTANT == 4
		harvested = 1;
#endif
		finish(1);
		if
		:: true
		:: goto failed
		fi;
		harvested = 1;
		if
		:: true -> goto moved
		:: goto failed
		fi;
failed:
		harvested = 0;
		resume(0);
		resume(1)
	:: attempts == 0 -> break
	od;
moved:
	over = 1
}

proctype monitor()
{
	timeout ->
	hung = !over || (!harvested && (status[0] != RUNNING || held[0] ||
					status[1] != RUNNING || held[1] ||
					blocked));
	assert(!hung)
}

init
{
	atomic {
		run function(0);
		run function(1);
		run host();
		run monitor()
	}
}

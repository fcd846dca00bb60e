/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fence: one function from the stop to its driver's restart
 *
 * The host tries twice to move the guest. Each attempt comes to nothing at any
 * step, and then the guest goes on where it is, or it succeeds, and the guest
 * goes on with a fresh function on the other host; so it can move there and
 * back. The function writes memory, has writes in flight, and holds work that
 * takes effect later without its bus master. The guest's driver knows nothing
 * of all that: it goes on touching whatever function there is, until the
 * module has read the generation. An interrupt can be lost in a move.
 *
 * Properties, as they are named in mutants.csv:
 *   lost_page    nothing is written to memory after the last harvest
 *   late_effect  nothing that the function began takes effect after the guest
 *                runs elsewhere
 *   stray_write  a function writes only what a driver that runs has set up
 *   old_fence    a fence is let go for the current generation only
 *   survives     (ltl) in the end the driver works, wherever the guest runs,
 *                and nothing waits for ever
 *
 * Not in the code: function, medium, use, write_lands.
 */
#ifndef MUTANT
#define MUTANT 0
#endif

/* What a function makes of what its driver has told it. */
#define BLANK 0			/* as after a reset */
#define SET_UP 1		/* by a driver that knows the function */
#define TOUCHED 2		/* by one that takes it for another */
#define STUCK 3			/* writes were dropped: rings out of step */

/* Of the guest's driver. */
#define RUNS 0
#define HALTED 1

/* Of an UNFENCE request. */
#define NO_REQUEST 0
#define QUEUED 1
#define RESETTING 2		/* VirtIODMATrackUnfence */
#define DONE 3
#define STALE 4

bit place;			/* which host the guest is on */
bit running = 1;		/* the VM */

/* Of the function at each host. */
byte rings[2];
bit held[2];			/* bus master is off */
bit in_flight[2];		/* a write is on its way */
bit job[2];			/* to take effect later */

/* Of the function as the guest knows it. They move with the guest. */
byte generation;
bit fenced;
byte reset_seq, reset_echoed;

bit interrupt;
bit wanted;			/* a restore is queued */
byte driver = RUNS;
byte seen;			/* dma_track_function.generation */
byte request = NO_REQUEST;
byte request_generation;	/* asked for */
byte reset_generation;		/* the reset that goes on was begun for it */
bit resetting;
bit harvested, over;
bit lost_page, late_effect, stray_write, old_fence;

#define STEP running

inline reset_hardware(f)
{
	d_step { rings[f] = BLANK; in_flight[f] = 0; job[f] = 0 }
}

inline write_lands(f)
{
	lost_page = f == place && harvested;
	assert(!lost_page);
	stray_write = f != place || driver != RUNS;
	assert(!stray_write);
	in_flight[f] = 0
}

/* Its access to memory. */
proctype function(bit f)
{
end:	do
	:: atomic {
		rings[f] == SET_UP && !held[f] && !in_flight[f] ->
		in_flight[f] = 1
	   }
	:: atomic { in_flight[f] -> write_lands(f) }
	:: atomic { rings[f] == SET_UP && held[f] -> rings[f] = STUCK }
	:: atomic {
		rings[f] == TOUCHED && !held[f] ->
		stray_write = 1;
		assert(!stray_write);	/* unreached: it holds */
		rings[f] = STUCK	/* unreached: it holds */
	   }
	od
}

/* What it does behind that, such as to store what it has read. */
proctype medium(bit f)
{
end:	do
	:: atomic { rings[f] == SET_UP && !job[f] -> job[f] = 1 }
	:: atomic {
		job[f] ->
		late_effect = f != place && running;
		assert(!late_effect);
		job[f] = 0
	   }
	od
}

/* A driver that works touches the function all the time. */
proctype use()
{
end:	do
	:: atomic {
		STEP && driver == RUNS && rings[place] == BLANK ->
		rings[place] = TOUCHED
	   }
	od
}

inline lift()
{
	old_fence = reset_generation != generation;
	assert(!old_fence);
	resetting = 0;
	held[place] = 0;
	fenced = 0
}

inline answer()
{
	if
	/* Else it would be written to memory that was sent already. */
	:: request == RESETTING && !harvested -> request = DONE
	:: else
	fi
}

/* The reset has ended. One step for all but the function itself. */
inline end_unfence(when)
{
#if MUTANT == 1
	atomic { when -> lift() };
	reset_hardware(place);
	atomic { answer() }
#else
	atomic {
		when ->
		reset_hardware(place);
		lift();
		answer()
	}
#endif
}

/* UNFENCE, in the host's main loop. */
proctype requests()
{
end:	do
	:: atomic { STEP && request == QUEUED ->
		if
#if MUTANT != 7
		:: request_generation != generation -> request = STALE
#endif
		:: else ->
			if
			:: !fenced -> request = DONE
			:: fenced ->
				request = RESETTING;
				resetting = 1;
				reset_generation = request_generation
			fi
		fi
	   }
	:: end_unfence(resetting && running)
	od
}

inline ask()
{
	atomic { STEP -> request_generation = generation };
	atomic { STEP -> request = QUEUED };
	atomic { STEP && request >= DONE };
	if
	:: atomic { STEP && request == STALE -> request = NO_REQUEST; goto again }
	:: atomic { STEP && request == DONE -> request = NO_REQUEST }
	fi
}

/* A driver that finds the function silent gets nowhere. */
inline start_half()
{
	atomic {
		STEP ->
		if
		:: held[place] -> rings[place] = STUCK
		:: else -> rings[place] = SET_UP
		fi;
		driver = RUNS
	}
}

/* config_work(): read, look, echo what was read. */
proctype work()
{
	byte seq;

end:	do
	:: atomic { STEP && interrupt -> interrupt = 0 };
#if MUTANT != 12
	   atomic { STEP -> seq = reset_seq };
#endif
	   if
	   :: atomic { STEP && generation != seen -> wanted = 1 }
	   :: atomic { STEP && generation == seen }
	   fi;
#if MUTANT == 12
	   atomic { STEP -> seq = reset_seq };
#endif
	   atomic { STEP -> reset_echoed = seq }
	od
}

proctype restore()
{
end:	do
	:: atomic { STEP && wanted -> wanted = 0 };
	   do
	   :: atomic { STEP && generation == seen -> break }
	   :: atomic { STEP && generation != seen };
		atomic { STEP -> driver = HALTED };
again:
#if MUTANT == 10
		start_half();
#endif
		ask();
#if MUTANT != 10
		start_half();
#endif
		atomic { STEP -> seen = request_generation }
	   od
	od
}

/* Until it was echoed. */
proctype notify_timer()
{
end:	do
	:: atomic { STEP && reset_echoed != reset_seq && !interrupt ->
#if MUTANT == 9
		false
#else
		interrupt = 1
#endif
	   }
	od
}

inline tell()
{
#if MUTANT != 8
	generation++;
#endif
	reset_seq++;
	interrupt = 1
}

/* vfio_dma_track_stop() */
inline stop()
{
#if MUTANT != 6
	if
	:: end_unfence(resetting)
	:: atomic { !resetting }
	fi;
#endif
	atomic { held[place] = 1 }
}

inline settle()
{
	atomic {
		if
		:: request == RESETTING -> request = STALE
		:: else
		fi
	}
}

/* vfio_dma_track_resume(): fenced, reset, and a new generation. */
inline resume()
{
	harvested = 0;
	atomic {
#if MUTANT == 2
		held[place] = 0
#elif MUTANT == 11
		reset_hardware(place);
		held[place] = 0;
		tell()
#else
		fenced = 1;
		reset_hardware(place);
		tell()
#endif
	};
	running = 1
}

proctype host()
{
	byte attempts = 2;

	do
	:: attempts > 0 ->
		attempts--;
		running = 0;
		stop();
		if
		:: true
		:: resume(); goto next
		fi;
		settle();
#if MUTANT != 4
		!in_flight[place];
#endif
		if
		:: true
		:: resume(); goto next
		fi;
		harvested = 1;
#if MUTANT != 5
		reset_hardware(place);
#endif
		if
		:: true
		:: resume(); goto next
		fi;

		/* The guest is there, with a function that is new to it. */
		atomic {
			harvested = 0;
			place = !place;
			rings[place] = BLANK;
			job[place] = 0;
			in_flight[place] = 0;
#if MUTANT == 3
			held[place] = 0;
#else
			held[place] = 1;
			fenced = 1;
#endif
			tell();
			if
			:: interrupt = 0
			:: true
			fi;
			running = 1
		};
next:		skip
	:: attempts == 0 -> break
	od;
	over = 1
}

/* So that no execution ends, and what waits for ever is a cycle. */
proctype time()
{
	do
	:: true -> true
	od
}

#define WORKS (over && driver == RUNS && rings[place] == SET_UP && \
	       !held[place] && seen == generation && running)

ltl survives { <> [] WORKS }

init
{
	atomic {
		rings[0] = SET_UP;
		held[1] = 1;
		run function(0);
		run function(1);
		run medium(0);
		run medium(1);
		run use();
		run requests();
		run work();
		run restore();
		run notify_timer();
		run host();
		run time()
	}
}

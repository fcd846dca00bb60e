/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The gate: phases, sequence numbers and acknowledgements
 *
 * The host begins to log, gives up, and begins anew, at any moment. It speaks
 * through the configuration space, field by field, and by an interrupt that can
 * be lost twice. The guest reads, sets the gate, acknowledges. A frame is mapped
 * and unmapped once, at any moment; the device writes it twice meanwhile.
 *
 * Properties, as they are named in mutants.csv:
 *   lost_page    what the host sent last is what the device wrote last
 *   stale_table  after the last migration was given up, the guest does not log
 *   hung         a guest that can answer is heard: nothing waits for ever
 *
 * Not in the code: cpu, device, line, send.
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define NEVER 255		/* was sent */

byte written;
byte sent = NEVER;
bit mapped, pinned, locked;
bit dirty, bmap, deferred;
bit logging;			/* the gate */
bit phase;			/* 1 is LOGGING */
byte phase_seq, echoed;
bit interrupt;
byte losses = 2;		/* interrupts that may still be lost */
bit stopped, quiet, over, completed;
bit lost_page, stale_table, hung;

#define STEP !stopped

proctype cpu()
{
	bit gate;

	atomic { STEP -> pinned = 1 };
	atomic { STEP -> mapped = 1 };
	atomic { STEP -> mapped = 0 };
	atomic { STEP && !locked -> locked = 1 };
	atomic { STEP -> gate = logging };
	if
	:: atomic { STEP && gate -> dirty = 1 }
	:: atomic { STEP && !gate }
	fi;
	atomic { STEP -> pinned = 0 };
	atomic { STEP -> locked = 0 }
}

proctype device()
{
	byte writes = 2;

	do
	:: atomic { writes > 0 && mapped && !quiet -> written++; writes-- }
	:: atomic { writes > 0 -> writes-- }
	:: writes == 0 -> break
	od
}

/* What an acknowledgement does in the host. */
inline acknowledge(seq)
{
#if MUTANT == 2
	atomic { STEP -> echoed = phase_seq }
#else
	atomic {
		STEP ->
		if
		:: seq == phase_seq -> echoed = seq
		:: else			/* E_STALE */
		fi
	}
#endif
}

inline read_notices()
{
#if MUTANT == 3
	atomic { STEP -> now_phase = phase };
	atomic { STEP -> seq = phase_seq }
#else
	do
	:: atomic { STEP -> before = phase_seq };
	   atomic { STEP -> now_phase = phase };
	   atomic { STEP -> seq = phase_seq };
	   if
	   :: seq == before -> break
	   :: else
	   fi
	od
#endif
}

inline follow_phase()
{
#if MUTANT == 1
	acknowledge(seq);
	atomic { STEP -> logging = now_phase }
#else
	atomic { STEP -> logging = now_phase };
	acknowledge(seq)
#endif
}

proctype work()
{
	bit now_phase;
	byte before, seq;

end:	do
	:: atomic { STEP && interrupt -> interrupt = 0 };
	   read_notices();
	   follow_phase()
	od
}

proctype line()
{
end:	do
	:: atomic { interrupt && losses > 0 -> interrupt = 0; losses-- }
	od
}

/* Until what is new was echoed. */
proctype notify_timer()
{
end:	do
	:: atomic { STEP && phase_seq != echoed && !interrupt ->
#if MUTANT == 4
	   false
#else
	   interrupt = 1
#endif
	   }
	od
}

inline set_phase(now)
{
	atomic { phase = now; phase_seq++; interrupt = 1 }
}

inline sync()
{
	d_step {
		bmap = bmap | deferred | dirty;
		dirty = 0;
		deferred = bmap & pinned;
		bmap = bmap & !pinned
	}
}

inline send()
{
	d_step {
		if
		:: bmap -> bmap = 0; sent = written
		:: else
		fi
	}
}

proctype host()
{
	byte attempts = 2;

again:
	attempts--;
	atomic { dirty = 1; bmap = 0; deferred = 0; sent = NEVER };
	set_phase(1);
#if MUTANT == 5
	skip;
#else
	if
	:: echoed == phase_seq
	:: goto give_up
	fi;
#endif
	sync();
	send();
	if
	:: true
	:: goto give_up
	fi;
	stopped = 1;
	quiet = 1;
	atomic {
		bmap = bmap | dirty | deferred | pinned;
		dirty = 0
	};
	send();
	atomic {
		lost_page = sent != written;
		assert(!lost_page);
		completed = 1;
		over = 1
	};
	goto done;

give_up:
	set_phase(0);
	if
	:: attempts > 0 -> goto again
	:: else -> over = 1
	fi;
done:
	skip
}

proctype monitor()
{
	timeout ->
	hung = !over || (!completed && echoed != phase_seq);
	assert(!hung);
	stale_table = !completed && (logging || pinned);
	assert(!stale_table)
}

init
{
	atomic {
		run cpu();
		run device();
		run work();
		run line();
		run notify_timer();
		run host();
		run monitor()
	}
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table: one frame, its word's lock, and the host's passes
 *
 * Two CPUs map and unmap the frame, twice and once; a device writes it three
 * times while it is mapped. The host reads the dirty log and the plane in two
 * passes of precopy, stops the vCPUs between any two of their steps, makes the
 * device quiet, and sends what is left. It may give up at every step, and then
 * the guest goes on. Dirtying can fail, as it does where the frame is not in
 * the direct map.
 *
 * Sequentially consistent: on the real machine the word's lock and the guest's
 * barrier before it acknowledges stand for that.
 *
 * Properties, as they are named in mutants.csv:
 *   lost_page    what the host sent last is what the device wrote last
 *   uncovered    a device writes pinned frames only
 *   stale_table  when nothing is mapped any more, nothing is pinned, but frames
 *                that could not be dirtied
 *   hung         the migration is over when nothing can happen any more
 *
 * Not in the code: device, cpu, send.
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define STICKY 3		/* stands for 255 */
#define NEVER 255

byte written;			/* what the device wrote last */
byte sent = NEVER;		/* what the host sent last */
byte count;			/* dma_track_section.counts */
byte mapped;			/* addresses that the device may use */
bit pinned;			/* the bit in the plane */
bit locked;			/* the word's lock */
bit dirty;			/* the host's dirty log */
bit bmap, deferred;		/* RAMBlock.bmap, .deferred_bmap */
bit logging;			/* the gate */
bit asked, acknowledged;
bit stopped;			/* the vCPUs */
bit quiet;			/* the device */
bit over, completed;
bit lost_page, uncovered, stale_table, hung;

/* One step of a vCPU. */
#define STEP !stopped

inline lock_word()
{
	atomic { STEP && !locked -> locked = 1 }
}

inline unlock_word()
{
	atomic { STEP -> locked = 0 }
}

inline give_address()
{
	atomic { STEP -> mapped++ }
}

inline pin()
{
	lock_word();
	atomic {
		STEP ->
		if
		:: count < STICKY -> count++
		:: else
		fi
	}
	atomic { STEP -> pinned = 1 }
	unlock_word();
}

inline map()
{
#if MUTANT == 2
	give_address();
	pin();
#else
	pin();
	give_address();
#endif
}

/* The driver has taken the address from the device. */
inline take_address()
{
	atomic { STEP -> mapped-- }
}

inline hand_over()
{
	if
	:: atomic { STEP && gate -> dirty = 1 }
	:: atomic { STEP && gate -> faulted = 1 }
	:: atomic { STEP && !gate }
	fi
}

inline clear_bit()
{
	if
	:: atomic { STEP && !faulted -> count = 0 };
	   atomic { STEP -> pinned = 0 }
#if MUTANT == 9
	:: atomic { STEP && faulted -> count = 0; pinned = 0 }
#else
	:: atomic { STEP && faulted -> count = STICKY }
#endif
	fi
}

inline unpin()
{
	faulted = 0;
	lock_word();
	atomic { STEP -> gate = logging };
	if
	:: atomic { STEP && count == STICKY }
	:: atomic { STEP && count > 1 && count != STICKY -> count-- }
	:: atomic { STEP && count == 1 };
#if MUTANT == 1
	   clear_bit();
	   hand_over()
#elif MUTANT == 5
	   hand_over();
	   unlock_word();
	   clear_bit();
	   lock_word()
#else
	   hand_over();
	   clear_bit()
#endif
	fi;
	unlock_word();
}

proctype cpu(byte times)
{
	bit gate, faulted;

	do
	:: times > 0 ->
		map();
		take_address();
		unpin();
		times--
	:: else -> break
	od
}

proctype device()
{
	byte writes = 3;

	do
	:: atomic {
		writes > 0 && mapped > 0 && !quiet ->
		uncovered = !pinned;
		assert(!uncovered);
		written++;
		writes--
	   }
	:: atomic { writes > 0 -> writes-- }
	:: writes == 0 -> break
	od
}

proctype interrupt()
{
	if
	:: atomic { STEP && asked };
	   atomic { STEP -> logging = 1 };
	   atomic { STEP -> acknowledged = 1 };
	   atomic { STEP && !asked && over };
	   atomic { STEP -> logging = 0 }
	:: atomic { STEP && !asked && over }
	fi
}

/* The dirty log is read and cleared, then the plane is read. */
inline sync()
{
	atomic { bmap = bmap | dirty; dirty = 0 };
#if MUTANT == 3
	d_step {
		if
		:: pinned -> bmap = 0
		:: else
		fi
	}
#else
	d_step {
		bmap = bmap | deferred;
		deferred = bmap & pinned;
		bmap = bmap & !pinned
	}
#endif
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

inline sync_last()
{
#if MUTANT == 10
	atomic { bmap = bmap | dirty | deferred | latched; dirty = 0 }
#elif MUTANT == 7
	atomic { bmap = bmap | dirty | deferred; dirty = 0 }
#elif MUTANT == 8
	atomic { bmap = bmap | dirty | pinned; dirty = 0 }
#else
	atomic { bmap = bmap | dirty | deferred | pinned; dirty = 0 }
#endif
}

inline give_up()
{
	atomic { stopped = 0; quiet = 0; asked = 0; over = 1; goto done }
}

proctype host()
{
	byte passes = 2;
#if MUTANT == 10
	bit latched;
#endif

	/* All of RAM is dirty at first. */
	atomic { dirty = 1; asked = 1 };
#if MUTANT == 6
	skip;
#else
	if
	:: acknowledged
	:: give_up()
	fi;
#endif
	do
	:: passes > 0 ->
		sync();
		send();
		passes--
	:: passes > 0 -> give_up()
	:: passes == 0 -> break
	od;
#if MUTANT == 10
	latched = pinned;
#endif
	stopped = 1;
	if
	:: true
	:: give_up()
	fi;
#if MUTANT == 4
	sync_last();
	send();
#endif
	quiet = 1;
	if
	:: true
	:: give_up()
	fi;
#if MUTANT != 4
	sync_last();
	send();
#endif
	atomic {
		lost_page = sent != written;
		assert(!lost_page);
		completed = 1;
		over = 1
	};
done:
	skip
}

proctype monitor()
{
	timeout ->
	hung = !over;
	assert(!hung);
	stale_table = !completed && (count != STICKY -> pinned || count : !pinned);
	assert(!stale_table)
}

init
{
	atomic {
		run cpu(2);
		run cpu(1);
		run device();
		run interrupt();
		run host();
		run monitor()
	}
}

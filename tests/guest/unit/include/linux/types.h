/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The part of the kernel that table.c needs, for userspace
 *
 * All other headers of this folder come here: one screen of shims is easier to
 * check than a dozen files.
 */
#ifndef SHIM_TYPES_H
#define SHIM_TYPES_H

#include_next <linux/types.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define __percpu
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define BUILD_BUG_ON(x)	_Static_assert(!(x), #x)
#define BIT_ULL(n)	(1ULL << (n))
#define min(a, b)	((a) < (b) ? (a) : (b))
#define __ffs64(x)	((unsigned int)__builtin_ctzll(x))
#define hweight64(x)	((unsigned int)__builtin_popcountll(x))

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error planes are little endian
#endif
#define cpu_to_le64(x)	((__le64)(x))
#define le64_to_cpu(x)	((u64)(x))
#define cpu_to_le32(x)	((__le32)(x))

#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), v, __ATOMIC_RELAXED)
#define smp_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define smp_store_release(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
/* The thread sanitizer knows no fences, but operations that imply one. */
#define smp_mb() \
	((void)__atomic_fetch_add(&(int){ 0 }, 0, __ATOMIC_SEQ_CST))
#define cmpxchg(p, o, n)	__sync_val_compare_and_swap(p, o, n)

struct mutex { pthread_mutex_t m; };
#define mutex_init(x)	pthread_mutex_init(&(x)->m, NULL)
#define mutex_lock(x)	pthread_mutex_lock(&(x)->m)
#define mutex_unlock(x)	pthread_mutex_unlock(&(x)->m)

/*
 * Four bytes, as in a kernel without lock debugging. Gives way to the holder,
 * which may have been preempted or stopped.
 */
#define raw_spinlock_t pthread_spinlock_t
static inline void shim_lock(raw_spinlock_t *lock)
{
	while (pthread_spin_trylock(lock))
		sched_yield();
}

/* Often lets somebody else in at once, who would seldom come by himself. */
static inline void shim_unlock(raw_spinlock_t *lock)
{
	static __thread unsigned int n;

	pthread_spin_unlock(lock);
	if (!(++n % 8))
		sched_yield();
}

#define raw_spin_lock_init(l)		pthread_spin_init(l, 0)
#define raw_spin_lock_irqsave(l, f)	((f) = 0, shim_lock(l))
#define raw_spin_unlock_irqrestore(l, f) ((void)(f), shim_unlock(l))

/* One CPU, whose variables are added to atomically. */
#define alloc_percpu(type)	calloc(1, sizeof(type))
#define free_percpu(p)		free(p)
#define per_cpu_ptr(p, cpu)	(&(p)[cpu])
#define for_each_possible_cpu(cpu) for ((cpu) = 0; (cpu) < 1; (cpu)++)
#define this_cpu_add(x, n)	__atomic_fetch_add(&(x), n, __ATOMIC_RELAXED)

#define PAGE_SIZE	4096
#define GFP_KERNEL	0
#define __GFP_ZERO	0
#define __GFP_NOWARN	0
#define __GFP_NORETRY	0

/*
 * Every allocation can be made to fail: the one that takes shim_fail_in to
 * zero, if it was positive.
 */
extern int shim_fail_in;
static inline void *shim_alloc(size_t size)
{
	void *p;

	if (shim_fail_in > 0 && !--shim_fail_in)
		return NULL;
	if (posix_memalign(&p, PAGE_SIZE, size))
		return NULL;
	return memset(p, 0, size);
}

static inline void *alloc_pages_exact(size_t size, int gfp)
{
	return shim_alloc(size);
}

static inline void free_pages_exact(void *p, size_t size)
{
	free(p);
}

static inline void *vzalloc(size_t size)
{
	return shim_alloc(size);
}

static inline bool is_vmalloc_addr(const void *p)
{
	return false;
}

static inline unsigned long get_zeroed_page(int gfp)
{
	return (unsigned long)shim_alloc(PAGE_SIZE);
}

static inline void *kvcalloc(size_t n, size_t size, int gfp)
{
	return shim_alloc(n * size);
}

#define vfree(p)	free(p)
#define free_page(p)	free((void *)(p))
#define kvfree(p)	free(p)

#endif /* SHIM_TYPES_H */

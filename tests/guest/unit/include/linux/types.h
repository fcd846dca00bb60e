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
typedef __s8 s8;

#define __percpu
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define barrier()	__asm__ __volatile__("" : : : "memory")
#define U32_MAX		UINT32_MAX
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
#define data_race(x)		READ_ONCE(x)
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
 * Who waits for a lock gives way to its holder, which may have been preempted
 * or stopped.
 */
typedef struct { int v; } atomic_t;
#define atomic_set(a, n)		((a)->v = (n))
#define atomic_read(a)			__atomic_load_n(&(a)->v, \
							__ATOMIC_RELAXED)
#define atomic_dec_and_test(a) \
	(!__atomic_sub_fetch(&(a)->v, 1, __ATOMIC_SEQ_CST))
#define atomic_set_release(a, n) \
	__atomic_store_n(&(a)->v, n, __ATOMIC_RELEASE)
#ifdef SHIM_STEPPED
void shim_relax(void);
#define cpu_relax()			shim_relax()
#else
#define cpu_relax()			sched_yield()
#endif

/* Often lets somebody else in at once, who would seldom come by himself. */
static inline void shim_irq_restore(void)
{
#ifndef SHIM_UNDISTURBED
	static __thread unsigned int n;

	if (!(++n % 8))
		sched_yield();
#endif
}

#define raw_local_irq_save(f)		((void)((f) = 0))
#define raw_local_irq_restore(f)	((void)(f), shim_irq_restore())
#define raw_irqs_disabled()		false
#define raw_local_irq_disable()		((void)0)
#define raw_local_irq_enable()		shim_irq_restore()

/* The kernel's instructions, but where a sanitizer has to see what they do. */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && \
	!defined(__SANITIZE_ADDRESS__)
static inline void __set_bit_le(unsigned long nr, __le64 *bits)
{
	__asm__ __volatile__("btsq %1, %0" : "+m" (*bits) : "Ir" (nr)
			     : "memory");
}

static inline void __clear_bit_le(unsigned long nr, __le64 *bits)
{
	__asm__ __volatile__("btrq %1, %0" : "+m" (*bits) : "Ir" (nr)
			     : "memory");
}
#else
static inline void __set_bit_le(unsigned long nr, __le64 *bits)
{
	__le64 *word = &bits[nr / 64];

	smp_store_release(word, READ_ONCE(*word) | BIT_ULL(nr % 64));
}

static inline void __clear_bit_le(unsigned long nr, __le64 *bits)
{
	__le64 *word = &bits[nr / 64];

	smp_store_release(word, READ_ONCE(*word) & ~BIT_ULL(nr % 64));
}
#endif

/* One CPU, whose variables are added to atomically. */
#define alloc_percpu(type)	calloc(1, sizeof(type))
#define free_percpu(p)		free(p)
#define per_cpu_ptr(p, cpu)	(&(p)[cpu])
#define for_each_possible_cpu(cpu) for ((cpu) = 0; (cpu) < 1; (cpu)++)
#define this_cpu_inc(x)		this_cpu_add(x, 1)
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
/* Bytes that were ever allocated. */
extern size_t shim_allocated;
static inline void *shim_alloc(size_t size)
{
	void *p;

	if (shim_fail_in > 0 && !--shim_fail_in)
		return NULL;
	if (posix_memalign(&p, PAGE_SIZE, size))
		return NULL;
	shim_allocated += size;
	return memset(p, 0, size);
}

static inline void *alloc_pages_exact(size_t size, int gfp)
{
	return shim_alloc((size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE);
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

/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_CLEANUP_H
#define SL_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

/*
 * Scope-bound ownership. A local tagged with one of these owns what it holds;
 * the only way out of the scope is SL_TAKE_PTR()/SL_TAKE_FD(). Initialise at
 * the declaration: NULL for pointers, -1 for descriptors.
 */
#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define _cleanup_free_ _cleanup_(sl_freep)
#define _cleanup_fd_ _cleanup_(sl_closep)

#define SL_MUST_CHECK __attribute__((warn_unused_result))
#define SL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#define SL_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The object that embeds `member` at address `ptr`. */
#define SL_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define SL_TAKE_PTR(p)                   \
	({                               \
		__auto_type take_ = (p); \
		(p) = NULL;              \
		take_;                   \
	})

#define SL_TAKE_FD(fd)            \
	({                        \
		int take_ = (fd); \
		(fd) = -1;        \
		take_;            \
	})

/* Defines fn##p(), the cleanup handler of a destructor that accepts NULL. */
#define SL_DEFINE_CLEANUP(type, fn)         \
	static inline void fn##p(type **p_) \
	{                                   \
		fn(*p_);                    \
		*p_ = NULL;                 \
	}                                   \
	struct sl_swallow_semicolon

static inline void sl_freep(void *p)
{
	free(*(void **)p);
	*(void **)p = NULL;
}

static inline void sl_closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

#endif

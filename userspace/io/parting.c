/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "io/parting.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SOCKETS 256
#define MAX_MS 1000
#define MAX_BYTES (256u << 10)

struct parted {
	struct sl_list node; /* of sl_parting.all */
	struct sl_parting *owner;
	struct sl_io io;
	struct sl_timer timer;
	struct sl_task end;
	size_t n_read;
};

struct sl_parting {
	struct sl_loop *loop; /* borrowed */
	struct sl_list all;   /* the oldest first */
	size_t n;
};

static void free_parted(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct parted, end));
}

static void end(struct parted *s)
{
	sl_timer_stop(&s->timer);
	sl_io_stop(&s->io);
	close(s->io.fd);
	sl_list_remove(&s->node);
	s->owner->n--;
	sl_loop_defer(s->owner->loop, &s->end, free_parted);
}

/* True when there is nothing more to wait for. */
static bool drain(struct parted *s)
{
	char buf[4096];
	ssize_t n;

	while (s->n_read < MAX_BYTES) {
		n = recv(s->io.fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 || errno != EAGAIN;
		s->n_read += (size_t)n;
	}
	return true;
}

static void on_socket(struct sl_io *io, uint32_t events)
{
	struct parted *s = SL_CONTAINER_OF(io, struct parted, io);

	(void)events;
	if (drain(s))
		end(s);
}

static void on_time(struct sl_timer *timer)
{
	end(SL_CONTAINER_OF(timer, struct parted, timer));
}

int sl_parting_new(struct sl_loop *loop, struct sl_parting **ret)
{
	struct sl_parting *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->loop = loop;
	sl_list_init(&p->all);
	*ret = p;
	return 0;
}

static void end_oldest(struct sl_parting *p)
{
	end(SL_CONTAINER_OF(p->all.next, struct parted, node));
}

void sl_parting_free(struct sl_parting *p)
{
	while (p && !sl_list_is_empty(&p->all))
		end_oldest(p);
	free(p);
}

void sl_parting_take(struct sl_parting *p, int fd)
{
	struct parted *s = calloc(1, sizeof(*s));

	(void)shutdown(fd, SHUT_WR); /* fails where there is no connection */
	if (!s || sl_io_start(p->loop, &s->io, fd, SL_IO_IN, on_socket) < 0) {
		free(s);
		close(fd);
		return;
	}
	if (p->n >= MAX_SOCKETS)
		end_oldest(p);
	s->owner = p;
	sl_list_add(&p->all, &s->node);
	p->n++;
	sl_timer_start(p->loop, &s->timer, sl_loop_now_ms(p->loop) + MAX_MS, on_time);
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/ct_stream.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_compat.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <time.h>

#include "base/clock.h"
#include "base/count.h"

#define N_EVENTS 32      /* per system call */
#define EVENT_BYTES 2048 /* one has 300; with a helper and labels still less than 1000 */
#define EVENT_BATCHES 32 /* before the dump has its turn */
/*
 * Nobody waits for events sooner than this after those before: to wake up for each one costs, with
 * all that follows from it, several times what it takes to read it.
 */
#define GATHER_MS 10
#define ANSWER_BYTES 65536 /* the kernel fills 32 KiB at most */
#define ANSWER_DATAGRAMS 8
#define SWEEP_STEP 4096           /* records per turn: below a millisecond */
#define DUMP_GAP_US 100000        /* between dumps asked for in a hurry */
#define DUMP_DEADLINE_US 30000000 /* without a word of the kernel */
#define DUMP_SHARE 20             /* one twentieth of a processor at most */
#define MAX_DUMP_MS 3600000
#define REQUEST_DEADLINE_S 10

enum dump_phase {
	WAITING = 0,
	READING,
	DRAINING, /* the events that were queued when it ended */
	SWEEPING,
};

struct event_buf {
	_Alignas(4) uint8_t bytes[N_EVENTS][EVENT_BYTES];
	struct mmsghdr head[N_EVENTS];
	struct iovec iov[N_EVENTS];
	struct sockaddr_nl from[N_EVENTS];
};

struct sl_ct_stream {
	struct sl_ct_stream_conf conf;
	struct mnl_socket *events;
	struct mnl_socket *dumps;
	struct mnl_socket *requests; /* under request_lock */
	pthread_mutex_t request_lock;
	uint32_t request_seq;
	int wake_fd;     /* to the thread */
	int ready_fd;    /* to the owner */
	bool must_stop;  /* atomic */
	bool wants_dump; /* atomic */
	bool has_thread;
	pthread_t thread;

	pthread_mutex_t lock; /* of the table and is_ready */
	struct sl_ct_table table;
	bool is_ready;

	/* of the thread alone */
	enum dump_phase phase;
	uint32_t dump_seq;
	uint64_t dump_start_us;
	uint64_t dump_heard_us; /* when the last answer came */
	uint64_t dump_start_cpu_us;
	uint64_t next_dump_us;
	bool must_resync;         /* events were lost since the last dump began */
	uint64_t gather_until_us; /* until then events are left to come together */
	struct event_buf in;
	_Alignas(4) uint8_t answer[ANSWER_BYTES];
	size_t answer_n; /* received, to be noted after the events; 0: none */

	/* written by the thread, read by all (base/count.h) */
	uint64_t n_foreign;
	uint64_t n_overruns;
	uint64_t n_dumps;
	uint64_t n_dumps_failed;
	uint64_t last_dump_us;
	uint64_t apart_us;
};

/* The kernel answers a dump within our system calls, so this is what one costs, however busy others
 * are. */
static uint64_t cpu_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- telling the owner ---- */

/* Under the lock. */
static void signal_owner(struct sl_ct_stream *s)
{
	const uint64_t one = 1;

	if (s->is_ready || sl_list_is_empty(&s->table.todo))
		return;
	s->is_ready = write(s->ready_fd, &one, sizeof(one)) == sizeof(one);
}

static void wake(struct sl_ct_stream *s)
{
	const uint64_t one = 1;
	ssize_t n = write(s->wake_fd, &one, sizeof(one));

	(void)n; /* it only fails when it is readable anyway */
}

/* ---- what the kernel says ---- */

static bool is_ours(const struct sl_ct_stream *s, uint32_t mark)
{
	return mark != 0 && mark - s->conf.mark_base < s->conf.n_marks;
}

/* Under the lock. */
static void note(struct sl_ct_stream *s, const struct sl_ct_flow *f, uint64_t now_ns)
{
	if (!is_ours(s, f->mark)) {
		sl_count_add(&s->n_foreign, 1);
		return;
	}
	sl_ct_table_note(&s->table, f, now_ns);
}

static uint64_t hurried_gap_us(const struct sl_ct_stream *s)
{
	uint64_t twice_us = 2 * sl_count_get(&s->last_dump_us);

	return twice_us > DUMP_GAP_US ? twice_us : DUMP_GAP_US;
}

/* Events were dropped, or one of them could not be read: only a dump can tell what is missing. */
static void resync(struct sl_ct_stream *s)
{
	uint64_t soonest_us = sl_clock_us() + hurried_gap_us(s);

	s->must_resync = true;
	if (s->next_dump_us > soonest_us)
		s->next_dump_us = soonest_us;
}

/* Under the lock. */
static void read_event(struct sl_ct_stream *s, size_t i, uint64_t now_ns)
{
	const struct msghdr *m = &s->in.head[i].msg_hdr;
	struct sl_ct_reply reply;
	enum sl_ct_msg what = SL_CT_MSG_BAD;

	if (s->in.from[i].nl_pid != 0)
		return; /* not the kernel */
	if (!(m->msg_flags & MSG_TRUNC))
		what = sl_ct_msg_parse(s->in.bytes[i], s->in.head[i].msg_len, &reply);
	if (what == SL_CT_MSG_FLOW) {
		note(s, &reply.flow, now_ns);
	} else if (what == SL_CT_MSG_BAD) {
		resync(s);
	}
}

static int receive_events(struct sl_ct_stream *s)
{
	for (size_t i = 0; i < N_EVENTS; i++) {
		s->in.iov[i] = (struct iovec){ s->in.bytes[i], EVENT_BYTES };
		s->in.head[i].msg_hdr = (struct msghdr){
			.msg_name = &s->in.from[i],
			.msg_namelen = sizeof(s->in.from[i]),
			.msg_iov = &s->in.iov[i],
			.msg_iovlen = 1,
		};
	}
	return recvmmsg(mnl_socket_get_fd(s->events), s->in.head, N_EVENTS, MSG_DONTWAIT, NULL);
}

/* True: everything queued was read. */
static bool read_events(struct sl_ct_stream *s)
{
	for (int batch = 0; batch < EVENT_BATCHES; batch++) {
		int n = receive_events(s);
		uint64_t now_ns;

		if (n < 0 && errno == ENOBUFS) {
			sl_count_add(&s->n_overruns, 1);
			resync(s);
			continue;
		}
		if (n <= 0)
			return true;
		now_ns = sl_clock_real_ns();
		s->gather_until_us = sl_clock_us() + GATHER_MS * 1000;
		(void)pthread_mutex_lock(&s->lock);
		for (int i = 0; i < n; i++)
			read_event(s, (size_t)i, now_ns);
		signal_owner(s);
		(void)pthread_mutex_unlock(&s->lock);
	}
	return false;
}

/* ---- dumps ---- */

static void end_dump(struct sl_ct_stream *s, int error)
{
	const uint64_t min_us = (uint64_t)s->conf.dump_ms * 1000;
	uint64_t now_us = sl_clock_us();
	uint64_t took_us = cpu_us() - s->dump_start_cpu_us;
	uint64_t apart_us = took_us * DUMP_SHARE > min_us ? took_us * DUMP_SHARE : min_us;
	uint64_t soonest_us;

	(void)pthread_mutex_lock(&s->lock);
	sl_ct_table_dump_end(&s->table, error == 0);
	(void)pthread_mutex_unlock(&s->lock);
	s->phase = DRAINING;
	s->answer_n = 0;
	s->next_dump_us = s->dump_start_us + apart_us;
	sl_count_add(error < 0 ? &s->n_dumps_failed : &s->n_dumps, 1);
	sl_count_set(&s->last_dump_us, took_us);
	sl_count_set(&s->apart_us, apart_us);
	soonest_us = now_us + hurried_gap_us(s);
	if ((error < 0 || s->must_resync) && s->next_dump_us > soonest_us)
		s->next_dump_us = soonest_us;
}

static void begin_dump(struct sl_ct_stream *s)
{
	struct sl_ct_request q;

	sl_ct_request_dump(&q, ++s->dump_seq,
			   sl_ct_marks_cover(s->conf.mark_base, s->conf.n_marks));
	__atomic_store_n(&s->wants_dump, false, __ATOMIC_RELAXED);
	(void)pthread_mutex_lock(&s->lock);
	sl_ct_table_dump_begin(&s->table);
	(void)pthread_mutex_unlock(&s->lock);
	s->phase = READING;
	s->dump_start_us = sl_clock_us();
	s->dump_heard_us = s->dump_start_us;
	s->dump_start_cpu_us = cpu_us();
	s->next_dump_us = UINT64_MAX;
	s->must_resync = false;
	s->answer_n = 0;
	if (mnl_socket_sendto(s->dumps, q.bytes, q.n) < 0)
		end_dump(s, -errno);
}

/* 1: go on; 0: that was all; or -errno. Under the lock. */
static int note_answer(struct sl_ct_stream *s, uint64_t now_ns)
{
	const size_t n = s->answer_n;

	for (size_t at = 0; at < n;) {
		size_t len = sl_ct_msg_len(s->answer + at, n - at);
		struct sl_ct_reply reply;
		enum sl_ct_msg what = sl_ct_msg_parse(s->answer + at, n - at, &reply);

		if (what == SL_CT_MSG_BAD) {
			if (len == 0)
				return -EBADMSG;
		} else if (reply.seq != s->dump_seq) {
			; /* of one that was given up */
		} else if (what == SL_CT_MSG_FLOW) {
			note(s, &reply.flow, now_ns);
		} else if (what == SL_CT_MSG_DONE) {
			return 0;
		} else if (what == SL_CT_MSG_ERROR && reply.error < 0) {
			return reply.error;
		}
		at += len;
	}
	return 1;
}

static ssize_t receive_answer(struct sl_ct_stream *s)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { s->answer, sizeof(s->answer) };
	struct msghdr m = {
		.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1
	};
	ssize_t n = recvmsg(mnl_socket_get_fd(s->dumps), &m, MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	if (m.msg_flags & MSG_TRUNC)
		return -EMSGSIZE;
	return from.nl_pid == 0 ? n : 0;
}

/* False: nothing came, or the dump is over. */
static bool fetch_answer(struct sl_ct_stream *s)
{
	ssize_t n = receive_answer(s);

	if (n == -EAGAIN || n == -EINTR)
		return false;
	if (n < 0)
		end_dump(s, (int)n);
	else
		s->answer_n = (size_t)n;
	return n >= 0;
}

/*
 * What an answer shows of the next entry of a key is noted when all is said of the one before: its
 * DESTROY was queued before the kernel wrote the answer.
 */
static void read_answers(struct sl_ct_stream *s)
{
	for (int i = 0; i < ANSWER_DATAGRAMS && s->phase == READING; i++) {
		uint64_t now_ns;
		int r;

		if ((s->answer_n == 0 && !fetch_answer(s)) || !read_events(s))
			return;
		now_ns = sl_clock_real_ns();
		(void)pthread_mutex_lock(&s->lock);
		r = note_answer(s, now_ns);
		signal_owner(s);
		(void)pthread_mutex_unlock(&s->lock);
		s->answer_n = 0;
		s->dump_heard_us = sl_clock_us();
		if (r <= 0)
			end_dump(s, r);
	}
}

/*
 * However long it takes: one that is given up half-way goes on in the kernel, which begins no other
 * (-EBUSY) until all of it is read.
 */
static bool is_dump_lost(const struct sl_ct_stream *s)
{
	return s->phase == READING && s->answer_n == 0 &&
	       sl_clock_us() - s->dump_heard_us > DUMP_DEADLINE_US;
}

static void sweep(struct sl_ct_stream *s)
{
	bool has_more;

	(void)pthread_mutex_lock(&s->lock);
	has_more = sl_ct_table_sweep(&s->table, SWEEP_STEP, sl_clock_real_ns());
	signal_owner(s);
	(void)pthread_mutex_unlock(&s->lock);
	if (!has_more)
		s->phase = WAITING;
}

/* One step of the dump, after the events of this turn; `drained`: all that were queued. */
static void step_dump(struct sl_ct_stream *s, bool drained)
{
	uint64_t now_us = sl_clock_us();
	bool is_wanted = __atomic_load_n(&s->wants_dump, __ATOMIC_RELAXED);

	switch (s->phase) {
	case WAITING:
		if (is_wanted || now_us >= s->next_dump_us)
			begin_dump(s);
		break;
	case READING:
		read_answers(s);
		if (is_dump_lost(s))
			end_dump(s, -ETIMEDOUT);
		break;
	case DRAINING:
		/* it ended in an earlier turn: what was queued then has been read now */
		if (drained)
			s->phase = SWEEPING;
		break;
	case SWEEPING:
		sweep(s);
		break;
	}
}

/* ---- thread ---- */

static int ms_until(uint64_t us, uint64_t now_us)
{
	if (us <= now_us)
		return 0;
	return us - now_us > 60000000 ? 60000 : (int)((us - now_us) / 1000) + 1;
}

static int timeout_ms(const struct sl_ct_stream *s, uint64_t now_us)
{
	int ms = s->phase == READING ? 1000 : ms_until(s->next_dump_us, now_us);
	int gather_ms = ms_until(s->gather_until_us, now_us);

	if (s->phase == DRAINING || s->phase == SWEEPING || s->answer_n > 0)
		return 0;
	return gather_ms > 0 && gather_ms < ms ? gather_ms : ms;
}

static void *run(void *arg)
{
	struct sl_ct_stream *s = arg;
	struct pollfd p[] = {
		{ .fd = -1, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
		{ .fd = s->wake_fd, .events = POLLIN },
	};

	while (!__atomic_load_n(&s->must_stop, __ATOMIC_RELAXED)) {
		uint64_t now_us = sl_clock_us();
		uint64_t count;

		p[0].fd = now_us >= s->gather_until_us ? mnl_socket_get_fd(s->events) : -1;
		/* what is left of a dump that was given up waits for the next one */
		p[1].fd = s->phase == READING ? mnl_socket_get_fd(s->dumps) : -1;
		(void)poll(p, SL_ARRAY_LEN(p), timeout_ms(s, now_us));
		if (p[2].revents && read(s->wake_fd, &count, sizeof(count)) < 0)
			continue;
		step_dump(s, read_events(s));
	}
	return NULL;
}

/* ---- requests ---- */

/* The acknowledgement of `seq`; what is left of an earlier request that timed out is skipped. */
static int wait_verdict(struct sl_ct_stream *s, uint32_t seq)
{
	_Alignas(4) uint8_t bytes[1024];

	for (int i = 0; i < 16; i++) {
		ssize_t n = mnl_socket_recvfrom(s->requests, bytes, sizeof(bytes));
		struct sl_ct_reply reply;

		if (n < 0 && errno == EINTR)
			continue; /* of the owner, who has signals */
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (sl_ct_msg_parse(bytes, (size_t)n, &reply) == SL_CT_MSG_ERROR &&
		    reply.seq == seq)
			return reply.error;
	}
	return -EPROTO;
}

static int ask(struct sl_ct_stream *s, const struct sl_ct_request *q, uint32_t seq)
{
	if (mnl_socket_sendto(s->requests, q->bytes, q->n) < 0)
		return -errno;
	return wait_verdict(s, seq);
}

/* ---- start and stop ---- */

static int open_socket(unsigned groups, struct mnl_socket **ret)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);

	if (!nl)
		return -errno;
	if (mnl_socket_bind(nl, groups, MNL_SOCKET_AUTOPID) < 0) {
		int r = -errno;

		(void)mnl_socket_close(nl);
		return r;
	}
	*ret = nl;
	return 0;
}

static void close_socket(struct mnl_socket **nl)
{
	if (*nl)
		(void)mnl_socket_close(*nl);
	*nl = NULL;
}

/* Beyond net.core.rmem_max, which is 200 KiB on most systems. */
static int set_rcvbuf(struct mnl_socket *nl, size_t bytes)
{
	int fd = mnl_socket_get_fd(nl);
	int value = bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (int)bytes;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &value, sizeof(value)) == 0)
		return 0;
	return -errno;
}

static int open_requests(struct sl_ct_stream *s)
{
	const struct timeval deadline = { .tv_sec = REQUEST_DEADLINE_S };
	int one = 1;
	int r = open_socket(0, &s->requests);

	if (r < 0)
		return r;
	(void)mnl_socket_setsockopt(s->requests, NETLINK_CAP_ACK, &one, sizeof(one));
	return setsockopt(mnl_socket_get_fd(s->requests), SOL_SOCKET, SO_RCVTIMEO, &deadline,
			  sizeof(deadline)) < 0
		       ? -errno
		       : 0;
}

/*
 * Whoever subscribes does not wait for the module that sends the events (nf_conntrack_netlink), and
 * what happens before it is there nobody hears of. Whoever asks does wait.
 */
static int load_conntrack(struct sl_ct_stream *s)
{
	struct sl_ct_request q;
	int r;

	sl_ct_request_count(&q, ++s->request_seq);
	r = ask(s, &q, s->request_seq);
	return r == -EINVAL ? -EPROTONOSUPPORT : r; /* nobody answers for connection tracking */
}

static int open_sockets(struct sl_ct_stream *s, const char **ret_what)
{
	int r;

	*ret_what = "listening to the events of connection tracking";
	r = open_requests(s);
	if (r == 0)
		r = load_conntrack(s);
	if (r == 0)
		r = open_socket(NF_NETLINK_CONNTRACK_NEW | NF_NETLINK_CONNTRACK_DESTROY,
				&s->events);
	if (r < 0)
		return r;
	*ret_what = "the buffer for events of connection tracking";
	r = set_rcvbuf(s->events, s->conf.rcvbuf);
	if (r < 0)
		return r;
	*ret_what = "a socket to connection tracking";
	r = open_socket(0, &s->dumps);
	if (r < 0)
		return r;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->wake_fd < 0 || s->ready_fd < 0 ? -errno : 0;
}

static int start_thread(struct sl_ct_stream *s)
{
	sigset_t all;
	sigset_t old;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&s->thread, NULL, run, s);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	s->has_thread = r == 0;
	if (r == 0)
		(void)pthread_setname_np(s->thread, "conntrack");
	return r;
}

int sl_ct_stream_start(const struct sl_ct_stream_conf *conf, struct sl_ct_stream **ret,
		       const char **ret_what)
{
	_cleanup_(sl_ct_stream_stopp) struct sl_ct_stream *s = NULL;
	int r;

	*ret_what = "the settings";
	if (conf->n_marks == 0 || conf->dump_ms == 0 || conf->dump_ms > MAX_DUMP_MS ||
	    conf->mark_base + (conf->n_marks - 1) < conf->mark_base)
		return -EINVAL;
	*ret_what = "memory";
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->conf = *conf;
	s->wake_fd = -1;
	s->ready_fd = -1;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_mutex_init(&s->request_lock, NULL);
	r = sl_ct_table_init(&s->table, conf->max_records, &conf->timeouts);
	s->table.last_serial = conf->first_serial;
	if (r == 0)
		r = open_sockets(s, ret_what);
	if (r < 0)
		return r;
	*ret_what = "a thread";
	r = start_thread(s);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(s);
	return 0;
}

void sl_ct_stream_stop(struct sl_ct_stream *s)
{
	if (!s)
		return;
	if (s->has_thread) {
		__atomic_store_n(&s->must_stop, true, __ATOMIC_RELAXED);
		wake(s);
		(void)pthread_join(s->thread, NULL);
	}
	sl_ct_table_done(&s->table);
	close_socket(&s->events);
	close_socket(&s->dumps);
	close_socket(&s->requests);
	sl_closep(&s->wake_fd);
	sl_closep(&s->ready_fd);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_mutex_destroy(&s->request_lock);
	free(s);
}

/* ---- for the owner ---- */

int sl_ct_stream_fd(const struct sl_ct_stream *s)
{
	return s->ready_fd;
}

size_t sl_ct_stream_take(struct sl_ct_stream *s, struct sl_ct_change *ret, size_t n)
{
	uint64_t count;
	size_t taken;

	(void)pthread_mutex_lock(&s->lock);
	taken = sl_ct_table_take(&s->table, ret, n);
	if (s->is_ready && sl_list_is_empty(&s->table.todo))
		s->is_ready = read(s->ready_fd, &count, sizeof(count)) != sizeof(count);
	(void)pthread_mutex_unlock(&s->lock);
	return taken;
}

void sl_ct_stream_get_counts(struct sl_ct_stream *s, struct sl_ct_stream_counts *ret)
{
	struct sl_ct_stream_counts c = {
		.foreign = sl_count_get(&s->n_foreign),
		.overruns = sl_count_get(&s->n_overruns),
		.dumps = sl_count_get(&s->n_dumps),
		.dumps_failed = sl_count_get(&s->n_dumps_failed),
		.last_dump_us = sl_count_get(&s->last_dump_us),
		.apart_us = sl_count_get(&s->apart_us),
	};

	(void)pthread_mutex_lock(&s->lock);
	c.table = s->table.counts;
	c.records = s->table.n;
	c.live = s->table.n_live;
	(void)pthread_mutex_unlock(&s->lock);
	*ret = c;
}

void sl_ct_stream_retell(struct sl_ct_stream *s)
{
	(void)pthread_mutex_lock(&s->lock);
	sl_ct_table_retell(&s->table);
	signal_owner(s);
	(void)pthread_mutex_unlock(&s->lock);
}

void sl_ct_stream_grow(struct sl_ct_stream *s, size_t max_records)
{
	(void)pthread_mutex_lock(&s->lock);
	sl_ct_table_grow(&s->table, max_records);
	(void)pthread_mutex_unlock(&s->lock);
}

bool sl_ct_stream_find(struct sl_ct_stream *s, uint64_t serial, struct sl_ct_flow *ret)
{
	bool found;

	(void)pthread_mutex_lock(&s->lock);
	found = sl_ct_table_find(&s->table, serial, ret);
	(void)pthread_mutex_unlock(&s->lock);
	return found;
}

void sl_ct_stream_each(struct sl_ct_stream *s, sl_ct_flow_fn fn, void *arg)
{
	(void)pthread_mutex_lock(&s->lock);
	sl_ct_table_each(&s->table, fn, arg);
	(void)pthread_mutex_unlock(&s->lock);
}

void sl_ct_stream_dump_soon(struct sl_ct_stream *s)
{
	__atomic_store_n(&s->wants_dump, true, __ATOMIC_RELAXED);
	wake(s);
}

int sl_ct_stream_delete_marks(struct sl_ct_stream *s, struct sl_ct_marks marks)
{
	struct sl_ct_request q;
	uint32_t seq;
	int r;

	/* the first and the last of them */
	if (!is_ours(s, marks.mark) || !is_ours(s, marks.mark | ~marks.mask))
		return -EINVAL;
	(void)pthread_mutex_lock(&s->request_lock);
	seq = ++s->request_seq;
	r = sl_ct_request_delete_marks(&q, seq, marks);
	if (r == 0)
		r = ask(s, &q, seq);
	(void)pthread_mutex_unlock(&s->request_lock);
	return r;
}

int sl_ct_stream_delete_flow(struct sl_ct_stream *s, const struct sl_ct_flow *f)
{
	struct sl_ct_request q;
	uint32_t seq;
	int r;

	if (!is_ours(s, f->mark))
		return -EINVAL;
	(void)pthread_mutex_lock(&s->request_lock);
	seq = ++s->request_seq;
	sl_ct_request_delete_flow(&q, seq, f);
	r = ask(s, &q, seq);
	(void)pthread_mutex_unlock(&s->request_lock);
	return r;
}

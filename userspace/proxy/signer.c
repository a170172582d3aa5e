/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/signer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "tls/stream.h"

/* A tenth of a worker's share where both want the same processor (sched_prio_to_weight[]). */
#define NICE 10

struct sl_signer {
	struct sl_loop *loop; /* the worker's: borrowed */
	unsigned index;
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t given;
	struct sl_list jobs;
	bool quits;
};

static struct sl_signer_job *wait_for_job(struct sl_signer *s)
{
	struct sl_signer_job *job = NULL;

	(void)pthread_mutex_lock(&s->lock);
	while (sl_list_is_empty(&s->jobs) && !s->quits)
		(void)pthread_cond_wait(&s->given, &s->lock);
	if (!s->quits) {
		job = SL_CONTAINER_OF(s->jobs.next, struct sl_signer_job, node);
		sl_list_remove(&job->node);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return job;
}

/* `scratch` NULL: there was no memory for it. */
static int make(struct sl_signer_job *job, struct sl_tls_scratch *scratch)
{
	if (__atomic_load_n(&job->is_void, __ATOMIC_RELAXED))
		return -ECANCELED;
	return scratch ? sl_tls_stream_handshake(job->stream, scratch) : -ENOMEM;
}

static void *run(void *arg)
{
	struct sl_signer *s = arg;
	struct sl_tls_scratch scratch;
	struct sl_signer_job *job;
	bool has_scratch = sl_tls_scratch_init(&scratch) == 0;
	char name[16];

	(void)snprintf(name, sizeof(name), "signer %u", s->index);
	(void)prctl(PR_SET_NAME, name);
	(void)setpriority(PRIO_PROCESS, 0, NICE); /* of this thread alone, on Linux */
	while ((job = wait_for_job(s)) != NULL) {
		job->result = make(job, has_scratch ? &scratch : NULL);
		(void)sl_loop_post(s->loop, &job->done, job->on_done);
	}
	if (has_scratch)
		sl_tls_scratch_done(&scratch);
	return NULL;
}

int sl_signer_new(struct sl_loop *loop, unsigned index, struct sl_signer **ret)
{
	struct sl_signer *s = calloc(1, sizeof(*s));
	sigset_t all;
	sigset_t before;
	int r;

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->index = index;
	sl_list_init(&s->jobs);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->given, NULL);
	/* Signals are the control thread's business. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&s->thread, NULL, run, s);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0) {
		free(s);
		return -r;
	}
	*ret = s;
	return 0;
}

void sl_signer_free(struct sl_signer *s)
{
	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->quits = true;
	(void)pthread_cond_signal(&s->given);
	(void)pthread_mutex_unlock(&s->lock);
	(void)pthread_join(s->thread, NULL);
	(void)pthread_cond_destroy(&s->given);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

void sl_signer_give(struct sl_signer *s, struct sl_signer_job *job)
{
	(void)pthread_mutex_lock(&s->lock);
	sl_list_add(&s->jobs, &job->node);
	(void)pthread_cond_signal(&s->given);
	(void)pthread_mutex_unlock(&s->lock);
}

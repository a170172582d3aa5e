/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/broker_role.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "accel/packet.h"
#include "base/log.h"
#include "broker/nat_plan.h"
#include "broker/policy.h"
#include "broker/server.h"
#include "daemon/channel.h"
#include "daemon/privs.h"
#include "daemon/role.h"
#include "daemon/sandbox.h"

/* What is settled by loading; another policy that differs here is for another broker. */
struct fixed {
	bool wants_xdp;
	bool is_off; /* programs that are loaded may as well stay */
	bool wants_sockmap;
	char bpf_dir[sizeof(((struct sl_policy *)NULL)->bpf_dir)];
};

struct role {
	struct sl_loop *loop;
	struct sl_channel *channel;
	struct sl_msg_options options;
	struct sl_broker *broker; /* NULL before the first policy */
	struct fixed fixed;
	struct sl_policy *next;  /* came before this one is ready */
	struct sl_nat_plan *nat; /* came before there was a policy */
	uint64_t nat_id;         /* of the last one */
	bool has_nat;            /* which this process follows, */
	bool is_nat_told;        /* and has said */
	bool is_in_force;        /* so */
	bool is_ready;
	bool is_on; /* as was said last */
	int exit_code;
};

static void say_of(struct role *role, enum sl_msg_type type, uint64_t id, uint32_t flag,
		   const char *text)
{
	struct sl_msg msg = { .type = type, .id = id, .flag = flag };

	(void)snprintf(msg.text, sizeof(msg.text), "%s", text);
	(void)sl_channel_send(role->channel, &msg, -1); /* its end is reported to us anyway */
}

static void say(struct role *role, enum sl_msg_type type, uint32_t flag, const char *text)
{
	say_of(role, type, 0, flag, text);
}

static void say_failed(struct role *role, int err, const char *what)
{
	char name[128];
	char text[sizeof(((struct sl_msg *)NULL)->text)];

	(void)snprintf(text, sizeof(text), "%s%s%s", what, err ? ": " : "",
		       err ? strerror_r(-err, name, sizeof(name)) : "");
	say(role, SL_MSG_FAILED, 0, text);
	role->exit_code = 1;
	sl_loop_quit(role->loop);
}

/* ---- policies ---- */

static struct fixed fixed_of(const struct sl_policy *p)
{
	struct fixed f = { .wants_xdp = p->wants_xdp,
			   .is_off = p->is_off,
			   .wants_sockmap = p->wants_sockmap };

	(void)snprintf(f.bpf_dir, sizeof(f.bpf_dir), "%s", p->bpf_dir);
	return f;
}

static bool is_same(const struct fixed *a, const struct fixed *b)
{
	return a->wants_xdp == b->wants_xdp && strcmp(a->bpf_dir, b->bpf_dir) == 0;
}

/* Ends, so that the next one loads what the policy asks for. The flows go on. */
static void make_room(struct role *role, const char *why)
{
	say(role, SL_MSG_FAILED, 1, why);
	sl_loop_quit(role->loop);
}

static int restrict_self(struct role *role)
{
	bool is_on = false;
	int r;

	if (role->options.is_single)
		return 0;
	r = sl_privs_end_loading();
	if (r == 0)
		r = sl_sandbox_confine_files(role->fixed.bpf_dir);
	return r < 0 ? r : sl_sandbox_enter(SL_ROLE_BROKER, &is_on);
}

/* What could not be loaded can be no more: another process is needed, if it can do better. */
static void retry(struct role *role, const struct fixed *wanted)
{
	bool is_other = !is_same(&role->fixed, wanted) || role->fixed.is_off != wanted->is_off;

	if (!wanted->is_off && (is_other || sl_broker_is_off_for_now(role->broker)))
		make_room(role, "the packet engine, which is off, may be on with another process");
}

/* It was not loaded, and is wanted now, or again, where that may help. */
static bool lacks_sockmap(const struct role *role, const struct fixed *wanted, bool may_retry)
{
	return wanted->wants_sockmap && !role->options.is_single &&
	       !sl_broker_has_sockmap(role->broker) &&
	       (!role->fixed.wants_sockmap ||
		(may_retry && sl_broker_is_sockmap_off_for_now(role->broker)));
}

static void change_policy(struct role *role, struct sl_policy *policy, bool may_retry)
{
	struct fixed wanted = fixed_of(policy);

	if (lacks_sockmap(role, &wanted, may_retry)) {
		sl_policy_free(policy);
		make_room(role, "the sockmap engine is to be loaded");
		return;
	}
	if (!sl_broker_has_programs(role->broker) && !sl_broker_has_sockmap(role->broker) &&
	    !role->options.is_single) {
		sl_policy_free(policy);
		if (may_retry)
			retry(role, &wanted);
		return;
	}
	if (!is_same(&role->fixed, &wanted)) {
		sl_policy_free(policy);
		/* Nobody looks into the old directory any more. */
		if (strcmp(role->fixed.bpf_dir, wanted.bpf_dir) != 0)
			sl_broker_stop(role->broker);
		make_room(role, "what is loaded differs");
		return;
	}
	sl_broker_set_policy(role->broker, policy);
}

/* ---- the kernel's NAT ---- */

static void on_nat_changed(void *arg)
{
	struct role *role = arg;
	const char *text;
	bool is_in_force = sl_broker_is_nat_in_force(role->broker, &text);

	if (!role->has_nat || (role->is_nat_told && role->is_in_force == is_in_force))
		return;
	role->is_nat_told = true;
	role->is_in_force = is_in_force;
	say_of(role, SL_MSG_NAT_STATE, role->nat_id, is_in_force, text);
}

/* Takes over the plan, one that can be taken. */
static void follow(struct role *role, struct sl_nat_plan *plan)
{
	role->has_nat = false; /* what is heard meanwhile is of both */
	sl_broker_set_nat_plan(role->broker, plan);
	role->has_nat = true;
	role->is_nat_told = false;
	on_nat_changed(role);
}

/*
 * Takes over the plan. What goes with the old one goes at once when the table is another:
 * nobody looks at that any more.
 */
static void change_nat(struct role *role, struct sl_nat_plan *plan)
{
	if (sl_broker_can_take_nat(role->broker, plan)) {
		follow(role, plan);
		return;
	}
	role->has_nat = false;
	sl_broker_leave_nat(role->broker, plan->table);
	sl_nat_plan_free(plan);
	make_room(role, "routes for the kernel's NAT have come, or its table changes");
}

static void set_nat(struct role *role, uint64_t id, int fd)
{
	struct sl_nat_plan *plan = NULL;
	int r = sl_nat_plan_unpack(fd, &plan);

	role->nat_id = id;
	if (r < 0) {
		say_failed(role, r, "cannot read what the kernel's NAT is to do");
	} else if (role->broker) {
		change_nat(role, plan);
	} else {
		sl_nat_plan_free(role->nat);
		role->nat = plan;
	}
}

/* By a policy that came later, or by that of the start while there were flows. */
static void on_outgrown(void *arg)
{
	make_room(arg, "max_flows changes");
}

static void on_status(void *arg, const struct sl_broker_status *status)
{
	struct role *role = arg;

	if (role->is_ready && role->is_on == status->is_on)
		return;
	role->is_ready = true;
	role->is_on = status->is_on;
	say(role, SL_MSG_READY, status->is_on, status->text);
	if (role->next)
		change_policy(role, SL_TAKE_PTR(role->next), false);
}

/* Takes over the policy. */
static int begin(struct role *role, struct sl_policy *policy)
{
	const struct sl_msg_options *o = &role->options;
	bool is_same_uid = o->is_single || o->uid == UINT32_MAX;
	const struct sl_broker_options options = { .loop = role->loop,
						   .proxy_uid = is_same_uid ? geteuid() : o->uid,
						   .changed = on_status,
						   .outgrown = on_outgrown,
						   .nat_changed = on_nat_changed,
						   .arg = role };
	int r = sl_broker_new(&options, &role->broker);

	if (r == 0 && role->nat)
		r = sl_broker_open_nat(role->broker, role->nat);
	if (r < 0) {
		sl_policy_free(policy);
		return r;
	}
	role->fixed = fixed_of(policy);
	sl_broker_set_policy(role->broker, policy);
	r = restrict_self(role);
	/* its thread is to be restricted, too */
	if (r == 0 && role->nat)
		follow(role, SL_TAKE_PTR(role->nat));
	return r;
}

static void set_policy(struct role *role, bool may_retry, int fd)
{
	struct sl_policy *policy = NULL;
	int r = sl_policy_unpack(fd, &policy);

	if (r < 0) {
		say_failed(role, r, "cannot read the policy");
	} else if (!role->broker) {
		r = begin(role, policy);
		if (r < 0)
			say_failed(role, r, "cannot start");
	} else if (role->is_ready) {
		change_policy(role, policy, may_retry);
	} else {
		sl_policy_free(role->next);
		role->next = policy;
	}
}

/* ---- the channel ---- */

static void add_channel(struct role *role, const struct sl_msg *msg, int fd)
{
	int r;

	if (!role->broker) {
		sl_closep(&fd);
		return;
	}
	r = sl_broker_add_channel(role->broker, msg->id, msg->flag >> 16,
				  msg->flag & SL_MSG_WORKERS_MAX, fd);
	if (r < 0)
		(void)sl_warn(r, "cannot serve a worker, which goes on without");
}

static void stop(struct role *role)
{
	if (role->broker) {
		sl_broker_stop_nat(role->broker);
		sl_broker_stop(role->broker);
	}
	sl_loop_quit(role->loop);
}

static void on_channel(void *arg, int err, const struct sl_msg *msg, int fd)
{
	struct role *role = arg;

	if (err) {
		role->exit_code = 1;
		sl_loop_quit(role->loop);
		return;
	}
	if (msg->type == SL_MSG_NAT)
		set_nat(role, msg->id, fd);
	else if (msg->type == SL_MSG_POLICY)
		set_policy(role, msg->flag, fd);
	else if (msg->type == SL_MSG_WORKER)
		add_channel(role, msg, SL_TAKE_FD(fd));
	else if (msg->type == SL_MSG_STOP)
		stop(role);
	else if (msg->type == SL_MSG_DRAIN)
		sl_loop_quit(role->loop);
	sl_closep(&fd);
}

/* ---- start ---- */

static int become_broker(struct role *role)
{
	int r;

	sl_role_begin(SL_ROLE_BROKER, SL_BROKER_ARGV0);
	r = sl_privs_enter_broker(role->options.supervisor);
	if (r < 0 && r != -ESRCH)
		(void)sl_err(r, "cannot give up privileges, not starting");
	return r;
}

static int start(struct role *role, int channel_fd)
{
	_cleanup_fd_ int fd = channel_fd;
	int r = sl_role_wait_options(fd, &role->options);

	if (r < 0)
		return sl_err(r, "no options from the supervisor");
	sl_packet_read_init();
	if (!role->options.is_single)
		r = become_broker(role);
	if (r == 0)
		r = sl_loop_new(&role->loop);
	if (r == 0)
		r = sl_channel_new(role->loop, SL_TAKE_FD(fd), SL_ROLE_SUPERVISOR, on_channel, role,
				   &role->channel);
	if (r < 0)
		return r;
	if (role->options.protocol != SL_PROTOCOL)
		say_failed(role, 0,
			   "this program speaks another version of the protocol, restart the "
			   "daemon instead");
	return 0;
}

int sl_broker_role_run(int channel_fd)
{
	struct role role = { 0 };
	int r = start(&role, channel_fd);

	if (r == 0)
		r = sl_loop_run(role.loop);
	if (r < 0)
		role.exit_code = 1;
	sl_broker_free(role.broker);
	sl_policy_free(role.next);
	sl_nat_plan_free(role.nat);
	sl_channel_free(role.channel);
	sl_loop_free(role.loop);
	return role.exit_code;
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a proxy may send to the broker, what a broker may send to it, and the policy that the
 * supervisor hands over: the first byte says which, the second how many descriptors came along.
 * What is accepted can be used, and comes out the same after another round.
 */
#include <assert.h>
#include <unistd.h>

#include "../../userspace/broker/wire.c"
#define is_ip_or_none policy_is_ip_or_none
#define is_text policy_is_text
#include "../../userspace/broker/policy.c"

static void check_handover(const struct sl_broker_handover *h)
{
	char text[SL_ADDR_TEXT];

	assert(h->is_frozen <= 1 && h->to_sockmap <= 1);
	(void)sl_addr_format(&h->client, text);
	(void)sl_addr_format(&h->via, text);
}

static void check_flow(const struct sl_broker_flow *f)
{
	const struct sl_addr *all[] = { &f->client, &f->front, &f->back, &f->backend };
	uint8_t ip[16];

	for (size_t i = 0; i < SL_ARRAY_LEN(all); i++)
		assert(sl_addr_ip_bytes(all[i], ip) ==
		       (sl_addr_family(all[i]) == AF_INET ? 4 : 16));
	assert(sl_addr_family(&f->client) == sl_addr_family(&f->front));
	assert(sl_addr_family(&f->back) == sl_addr_family(&f->backend));
}

static void check_part(const struct sl_broker_part *w, uint32_t size, uint32_t max)
{
	size_t n = strnlen(w->text, sizeof(w->text));

	assert(w->at + n <= size && size <= max);
	assert(n == sizeof(w->text) || w->at + n == size);
	for (size_t i = 0; i < n; i++)
		assert((uint8_t)w->text[i] >= ' ' || w->text[i] == '\n');
}

static void check_fields(const struct sl_broker_msg *msg)
{
	if (msg->type == SL_BROKER_HANDOVER || msg->type == SL_BROKER_RESOLVE)
		check_handover(&msg->handover);
	else if (msg->type == SL_BROKER_ADOPTED)
		assert(msg->flag <= 2);
	else if (msg->type == SL_BROKER_RESULT)
		assert(sl_engine_reason_name((enum sl_engine_reason)msg->result.why)[0] != '-');
	else if (msg->type == SL_BROKER_ENDED)
		assert(msg->ended.how <= SL_BROKER_END_KILLED);
	else if (msg->type == SL_BROKER_ADOPT)
		check_flow(&msg->flow);
	else if (msg->type == SL_BROKER_NAT_WORRIES)
		check_part(&msg->nat_worries, msg->flag, SL_BROKER_WORRIES_MAX);
	else if (msg->type == SL_BROKER_DIFF_TEXT)
		check_part(&msg->diff_text, msg->flag, SL_BROKER_DIFF_MAX);
	else if (msg->type == SL_BROKER_STATUS)
		assert(strlen(msg->status.text) < sizeof(msg->status.text));
	else if (msg->type == SL_BROKER_SOCKMAP_STATUS)
		assert(strlen(msg->sockmap_status.text) < sizeof(msg->sockmap_status.text) &&
		       msg->sockmap_status.why < SL_WHY_COUNT_);
}

/* What one side sends, the other one takes, byte for byte, with its descriptors. */
static void check_round(const struct sl_broker_msg *msg, size_t n_fds, bool is_request)
{
	const int sent[SL_BROKER_MAX_FDS] = { STDERR_FILENO, STDERR_FILENO, STDERR_FILENO,
					      STDERR_FILENO };
	int p[2], fds[SL_BROKER_MAX_FDS];
	struct sl_broker_msg got;

	assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) == 0);
	assert(sl_broker_send(p[0], msg, sent, n_fds) == 0);
	assert(sl_broker_recv(p[1], !is_request, &got, fds) == -EBADMSG);
	assert(sl_broker_send(p[0], msg, sent, n_fds) == 0);
	assert(sl_broker_recv(p[1], is_request, &got, fds) == 0);
	assert(memcmp(&got, msg, sizeof(got)) == 0);
	for (size_t i = 0; i < SL_BROKER_MAX_FDS; i++)
		assert((fds[i] >= 0) == (i < n_fds));
	sl_broker_close_fds(fds);
	assert(sl_broker_send(p[0], msg, sent, n_fds) == 0);
	sl_broker_hang_up(p[1]);
	assert(sl_broker_send(p[0], msg, sent, n_fds) == -EPIPE);
	(void)close(p[0]);
}

/* `bytes` is of exactly that size, so that a sanitizer sees any overread. */
static void check_message(const uint8_t *bytes, size_t n, size_t n_fds)
{
	bool is_request = sl_broker_check_request(bytes, n, n_fds) == 0;
	bool is_reply = sl_broker_check_reply(bytes, n, n_fds) == 0;
	struct sl_broker_msg msg;

	assert(!is_request || !is_reply);
	if (!is_request && !is_reply)
		return;
	assert(n == sizeof(msg));
	memcpy(&msg, bytes, sizeof(msg));
	assert(sl_broker_n_fds(msg.type) == (int)n_fds);
	assert(sl_broker_is_request(msg.type) == is_request);
	check_fields(&msg);
	check_round(&msg, n_fds, is_request);
}

static void check_policy_route(const struct sl_policy *p, uint32_t i)
{
	const struct sl_policy_route *r = &p->routes[i];
	struct sl_addr front = { .v4 = { .sin_family = AF_INET, .sin_addr.s_addr = 1 } };

	assert(strlen(r->name) < sizeof(r->name) && r->min_port <= r->max_port);
	assert((uint64_t)r->first_target + r->n_targets <= p->n_targets);
	sl_addr_set_port(&front, r->min_port);
	for (uint32_t k = 0; k < r->n_targets && k < 16; k++) {
		const struct sl_policy_target *t = &p->targets[r->first_target + k];
		struct sl_addr backend = t->ip;

		sl_addr_set_port(&backend, t->port ? t->port : r->min_port);
		/* a literal target is allowed wherever its route is */
		if (sl_policy_allows(p, i, false, &front, &backend))
			assert(r->may_packet && !p->is_off);
		else
			assert(!r->may_packet || p->is_off || !is_listened_to(p, &front) ||
			       sl_addr_family(&backend) == AF_UNSPEC);
		if (sl_policy_allows(p, i, true, &front, &backend))
			assert(r->may_sockmap);
	}
}

static void check_policy(const uint8_t *bytes, size_t n)
{
	_cleanup_(sl_policy_freep) struct sl_policy *p = NULL;
	_cleanup_(sl_policy_freep) struct sl_policy *again = NULL;
	_cleanup_fd_ int fd = -1, second = -1;
	int r;

	assert(sl_memfd_new("fuzz", bytes, n, &fd) == 0);
	r = sl_policy_unpack(fd, &p);
	assert(r == 0 || r == -EBADMSG);
	if (r < 0)
		return;
	assert(p->bpf_dir[0] == '/' && strlen(p->bpf_dir) < sizeof(p->bpf_dir));
	assert(p->port_from >= 1 && p->port_from <= p->port_to && p->max_flows >= 1);
	for (uint32_t i = 0; i < p->n_routes; i++)
		check_policy_route(p, i);
	for (uint32_t i = 0; i < p->n_interfaces; i++)
		assert(p->interfaces[i][0] && strlen(p->interfaces[i]) < SL_INTERFACE_NAME);
	assert(pack(p, &second) == 0 && sl_policy_unpack(second, &again) == 0);
	assert(again->n_routes == p->n_routes && again->n_targets == p->n_targets);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	uint8_t *copy;

	if (n < 2)
		return 0;
	copy = malloc(n - 2 ? n - 2 : 1);
	assert(copy);
	memcpy(copy, input + 2, n - 2);
	if (input[0] == 'p')
		check_policy(copy, n - 2);
	else
		check_message(copy, n - 2, input[1] % 8);
	free(copy);
	return 0;
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: malloc calloc realloc */
/* Every allocation of ours fails once, and many of the library's: it is told, and nothing is left.
 */
#include "tls_pair.h"

static bool armed;
static long fail_at; /* the allocation that fails; counted down while armed */
static long n_seen;

static bool fails(void)
{
	if (!armed)
		return false;
	n_seen++;
	return fail_at-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

static struct ident id;

static int set_up(void **state)
{
	(void)state;
	assert_int_equal(sl_tls_init(), 0);
	id = make_ident((struct wish){ .cn = "x", .names = "DNS:x.example,DNS:*.x.example" });
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	drop_ident(&id);
	return 0;
}

struct all {
	struct sl_cert_set *certs;
	struct sl_tls_trust *trust;
	struct sl_tls_tickets *tickets;
	struct sl_tls_server *server;
	struct sl_tls_backend *backend;
	struct sl_tls_target *target;
	struct sl_str why;
};

static int make_all(struct all *a)
{
	static const char *const alpn[] = { "h2" };
	struct sl_cert_source s = source_of("x", &id);
	struct sl_tls_ticket_key k = { .name = { 1 } };
	int r = sl_cert_set_new(&s, 1, time(NULL), NULL, NULL, &a->certs);

	if (r == 0)
		r = sl_tls_trust_new(id.pem, strlen(id.pem), &a->trust);
	if (r == 0)
		r = sl_tls_tickets_new(&k, 1, &a->tickets);
	if (r == 0)
		r = sl_tls_server_new(
			&(struct sl_tls_server_conf){ .alpn = alpn,
						      .n_alpn = 1,
						      .client_auth = SL_TLS_CLIENT_AUTH_OPTIONAL,
						      .client_ca = id.pem,
						      .client_ca_len = strlen(id.pem) },
			&a->why, &a->server);
	if (r == 0)
		r = sl_tls_backend_new(&(struct sl_tls_backend_conf){ .trust = a->trust,
								      .alpn = alpn,
								      .n_alpn = 1 },
				       &a->why, &a->backend);
	return r == 0 ? sl_tls_target_new(a->backend, "x.example", &a->target) : r;
}

static void drop_all(struct all *a)
{
	sl_tls_target_unref(a->target);
	sl_tls_backend_unref(a->backend);
	sl_tls_server_unref(a->server);
	sl_tls_tickets_unref(a->tickets);
	sl_tls_trust_unref(a->trust);
	sl_cert_set_unref(a->certs);
	sl_str_done(&a->why);
	ERR_clear_error();
}

static void making_things(void **state)
{
	int r = -1;
	long n;

	(void)state;
	for (n = 0; r != 0 && n < 100000; n++) {
		struct all a = { 0 };

		fail_at = n;
		armed = true;
		r = make_all(&a);
		armed = false;
		if (r != 0 && r != -ENOMEM && r != -EINVAL && r != -EBADMSG)
			fail_msg("allocation %ld: %d", n, r);
		drop_all(&a);
		if (fail_at >= 0)
			break; /* nothing failed: all were tried */
		r = -1;
		n += n > 400 ? 6 : 0;
	}
	assert_int_equal(r, 0);
	assert_true(n > 400);
}

/* One conversation; less than 0 where it failed. */
static int talk(struct pair *p)
{
	static unsigned char buf[9000];
	size_t n = 0;
	int c = SL_TLS_IN;
	int s = SL_TLS_IN;

	for (int i = 0; i < 40 && (c > 0 || s > 0) && c >= 0 && s >= 0; i++) {
		c = c > 0 ? sl_tls_stream_handshake(p->client.s, &p->scratch) : c;
		s = s > 0 ? sl_tls_stream_handshake(p->server.s, &p->scratch) : s;
	}
	if (c != 0 || s != 0)
		return -1;
	p->down.room = p->down.at + p->down.len + 3000; /* so that something is held */
	s = sl_tls_stream_write(p->server.s, &p->scratch, 1, buf, sizeof(buf), &n);
	if (s < 0)
		return -1;
	c = sl_tls_stream_read(p->client.s, &p->scratch, buf, sizeof(buf), &n);
	if (c >= 0)
		s = sl_tls_stream_flush(p->server.s);
	if (c >= 0 && s >= 0)
		c = sl_tls_stream_rekey(p->client.s, &p->scratch, true);
	if (c >= 0)
		s = sl_tls_stream_read(p->server.s, &p->scratch, buf, sizeof(buf), &n);
	return c < 0 || s < 0 ? -1 : 0;
}

static void conversations(void **state)
{
	struct all a = { 0 };
	unsigned n_told = 0;
	long n;

	(void)state;
	assert_int_equal(make_all(&a), 0);
	for (n = 0; n < 100000; n++) {
		struct pair p;
		bool all_tried;
		int r;

		open_pair(&p, a.server, a.certs, a.tickets, NULL, 0);
		fail_at = n;
		armed = true;
		r = sl_tls_target_connect(a.target, &memory_wire, &p.client, &p.client.s);
		if (r == 0)
			r = talk(&p);
		armed = false;
		all_tried = fail_at >= 0;
		n_told += r < 0;
		if (p.client.s && r < 0)
			assert_true(*sl_tls_stream_error(p.client.s) ||
				    *sl_tls_stream_error(p.server.s));
		close_pair(&p);
		if (all_tried) {
			assert_int_equal(r, 0);
			break;
		}
		n += n > 100 ? 6 : 0;
	}
	assert_true(n_told > 50);
	drop_all(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(making_things),
		cmocka_unit_test(conversations),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

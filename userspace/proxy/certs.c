/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/certs.h"

void sl_certs_init(struct sl_certs *certs)
{
	(void)pthread_mutex_init(&certs->tickets.lock, NULL);
}

void sl_certs_done(struct sl_certs *certs)
{
	sl_materials_done(&certs->materials);
	sl_tls_tickets_unref(certs->tickets.tickets);
	(void)pthread_mutex_destroy(&certs->tickets.lock);
}

void sl_certs_set_materials(struct sl_certs *certs, struct sl_materials *m)
{
	sl_materials_done(&certs->materials);
	certs->materials = *m;
	*m = (struct sl_materials){ 0 };
}

void sl_certs_set_tickets(struct sl_certs *certs, struct sl_tls_tickets *tickets)
{
	struct sl_tls_tickets *old;

	(void)pthread_mutex_lock(&certs->tickets.lock);
	old = certs->tickets.tickets;
	certs->tickets.tickets = sl_tls_tickets_ref(tickets);
	(void)pthread_mutex_unlock(&certs->tickets.lock);
	sl_tls_tickets_unref(old);
}

static void tell(const struct sl_cert_facts *f, struct sl_cert_view *view, sl_cert_fn fn, void *arg)
{
	view->label = f->label;
	view->subject = f->subject;
	view->issuer = f->issuer;
	view->names = f->names;
	view->n_names = f->n_names;
	view->not_before_s = f->not_before_s;
	view->not_after_s = f->not_after_s;
	view->staple_until_s = f->staple_until_s;
	view->key = f->key;
	view->fingerprint = f->fingerprint;
	view->n_chain = f->n_chain;
	view->is_default = f->is_default;
	fn(arg, view);
}

static void tell_set(const struct sl_cert_set *set, struct sl_cert_view *view, sl_cert_fn fn,
		     void *arg)
{
	for (size_t i = 0; set && i < sl_cert_set_count(set); i++)
		tell(sl_cert_set_facts(set, i), view, fn, arg);
}

void sl_certs_each(const struct sl_generation *g, sl_cert_fn fn, void *arg)
{
	for (size_t i = 0; i < g->conf->n_routes; i++) {
		const struct sl_secure *s = g->secure[i] ? g->secure[i]->now : NULL;
		struct sl_cert_view view = { .route = g->conf->routes[i].name };

		if (!s)
			continue;
		view.problem = s->problem ? s->problem : "";
		tell_set(s->certs, &view, fn, arg);
		view.is_backend = true;
		tell_set(s->backend_cert, &view, fn, arg);
		if (view.problem[0] && !s->certs && !s->backend_cert)
			tell(&(struct sl_cert_facts){ .label = "", .subject = "", .issuer = "" },
			     &view, fn, arg);
	}
}

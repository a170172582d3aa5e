/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_BUILD_H
#define SL_CONF_BUILD_H

#include "conf/keys.h"

/* An `accept_proxy` of one listener, for all of its ports. */
struct sl_proxy_setting {
	struct sl_proxy_setting *next; /* in sl_build.settings */
	struct sl_ip_set from;         /* owned */
	bool required;
	struct sl_mark mark;
};

/* A line of `listeners`: what its ports need beyond the defaults. */
struct sl_listener_entry {
	struct sl_port_spec ports;
	int backlog;
	bool is_used;                         /* some route listens there */
	const struct sl_proxy_setting *proxy; /* NULL: no PROXY header */
	size_t run; /* the last of the entries that follow on, with this address and setting */
};

/* A configuration on its way from the tree to the finished structure. */
struct sl_build {
	struct sl_arena arena;
	struct sl_report report;
	struct sl_conf *conf;           /* owned until the end */
	const struct sl_node *defaults; /* NULL: none in the files */
	const struct sl_node *global;   /* likewise */
	/* what routes begin with; its lists are conf->default_access, its texts and TLS are owned
	 */
	struct sl_conf_route fresh;
	struct sl_proxy_setting *settings; /* in the arena, but for the lists */
	struct sl_mark overload_at;
	struct sl_mark http_at;
	struct sl_mark hook_at; /* of global.packet; line 0: not written */
	struct sl_mark packet_ports_at;
	struct sl_listener_entry *listeners; /* owned; in file order until the listen set is made */
	size_t n_listeners;
};

/* Parts of a configuration from their nodes. -ENOMEM; what is wrong is reported. */
SL_MUST_CHECK int sl_build_ports(const struct sl_node *ports, struct sl_port_spec **ret,
				 size_t *ret_n);
SL_MUST_CHECK int sl_build_networks(struct sl_build *b, const struct sl_node *list,
				    const struct sl_path *path, struct sl_ip_set *ret);
/* What the table does not store of global.packet; `node` may be NULL. */
SL_MUST_CHECK int sl_build_packet(struct sl_build *b, const struct sl_node *node);
/* What is asked of the packet engine and cannot be done; of a route or of `defaults`. */
void sl_build_check_packet(struct sl_build *b, const struct sl_node *node,
			   const struct sl_path *path);
/* What the table does not store of global.nftables; `node` may be NULL. */
SL_MUST_CHECK int sl_build_nftables(struct sl_build *b, const struct sl_node *node);
/* What the kernel's NAT cannot do, or only it can; of a route or of `defaults`. */
void sl_build_check_nftables(struct sl_build *b, const struct sl_node *node,
			     const struct sl_path *path, const struct sl_conf_route *made);
/* The texts of a list, each made by `parse` or (NULL) copied; also on failure the caller's. */
SL_MUST_CHECK int sl_build_texts(const struct sl_node *list,
				 int (*parse)(const char *text, char *ret, char *why), char ***ret,
				 size_t *ret_n);
void sl_build_texts_done(char **texts, size_t n);
/* `tls` and `forward.tls` of a route or of `defaults`. */
SL_MUST_CHECK int sl_build_tls(struct sl_build *b, const struct sl_node *node,
			       const struct sl_path *path, struct sl_conf_route *route);
void sl_build_tls_done(struct sl_conf_route *route);
/* What does not go together with them, or does harm. */
void sl_build_check_tls(struct sl_build *b, const struct sl_node *node, const struct sl_path *path,
			const struct sl_conf_route *made);
/* Lists that are not written stay as they are. */
SL_MUST_CHECK int sl_build_access(struct sl_build *b, const struct sl_node *security,
				  const struct sl_path *path, struct sl_access_lists *access);
/* All routes: of the files' trees (NULL for what is no file) and of changes made at run time. */
SL_MUST_CHECK int sl_build_routes(struct sl_build *b, struct sl_node *const *roots);
/* Marks the targets that are drained at run time. */
SL_MUST_CHECK int sl_build_drain(struct sl_build *b);
/* `route` owns what it gets, also on failure: sl_build_route_done() frees all but inherited lists.
 */
SL_MUST_CHECK int sl_build_route(struct sl_build *b, const struct sl_node *node,
				 const struct sl_path *path, struct sl_conf_route *route);
void sl_build_route_done(struct sl_conf_route *route, const struct sl_access_lists *inherited);
/* What in `forward` excludes each other; of a route or of `defaults`. */
void sl_build_check_forward(struct sl_build *b, const struct sl_node *node,
			    const struct sl_path *path, const struct sl_conf_route *made);

/* What no single value shows: names used twice, routes that can never match, and so on. */
SL_MUST_CHECK int sl_conf_check(struct sl_build *b);

/* Warns of listeners among the source ports. */
void sl_conf_check_packet(struct sl_build *b);

/* Targets of routes that NAT carries, and ports that these share with what NAT would hide. */
SL_MUST_CHECK int sl_conf_check_nftables(struct sl_build *b);

/* Its second part, for configurations with such routes. */
SL_MUST_CHECK int sl_conf_check_nft_ports(struct sl_build *b);

/* Warns of routes that others hide altogether. */
SL_MUST_CHECK int sl_conf_check_reachable(struct sl_build *b);

/* Makes conf->listens of the enabled routes and conf->accept_proxies; warns of entries nobody uses.
 */
SL_MUST_CHECK int sl_conf_make_listens(struct sl_build *b);

/* Orders addresses: every address, then IPv4, then IPv6, each by value. */
int sl_compare_ip(const struct sl_addr *a, const struct sl_addr *b);

#endif

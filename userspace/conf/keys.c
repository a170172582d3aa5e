/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/keys.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define SECOND UINT64_C(1000)
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)
#define YEAR (366 * DAY)
#define MAX_COUNT UINT64_C(1000000000)

/* ---- formats ---- */

static bool is_made_of(const char *text, const char *more, size_t min, size_t max)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr(more, text[i]))
			return false;
	return n >= min && n <= max;
}

static bool is_plain(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

static bool is_name(const char *text)
{
	return is_made_of(text, "._-", 1, 64);
}

static bool is_account(const char *text)
{
	return is_made_of(text, "_-", 1, 32) && !isdigit((unsigned char)*text) && *text != '-';
}

static bool is_table(const char *text)
{
	return is_made_of(text, "_-", 1, 64) && isalpha((unsigned char)*text);
}

static bool is_path(const char *text)
{
	return text[0] == '/' && is_plain(text) && strlen(text) < 4096;
}

static bool is_log_target(const char *text)
{
	return strcmp(text, "stderr") == 0 || is_path(text);
}

static bool is_text(const char *text)
{
	return *text && is_plain(text) && strlen(text) < 8192;
}

static bool is_url_path(const char *text)
{
	return text[0] == '/' && is_text(text) && !strpbrk(text, " \t");
}

/* What asks for a path as it is, without patterns. */
static bool is_request_path(const char *text)
{
	for (const char *p = text; *p; p++)
		if (*p <= ' ' || (unsigned char)*p >= 0x7f)
			return false;
	return text[0] == '/' && strlen(text) < 4096;
}

static bool is_protocol(const char *text)
{
	return is_text(text) && strlen(text) <= 255 && !strpbrk(text, " \t,");
}

static bool is_suite(const char *name, size_t n)
{
	static const char *const suites[] = { "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
					      "TLS_CHACHA20_POLY1305_SHA256",
					      "TLS_AES_128_CCM_SHA256",
					      "TLS_AES_128_CCM_8_SHA256" };

	for (size_t i = 0; i < SL_ARRAY_LEN(suites); i++)
		if (strlen(suites[i]) == n && memcmp(suites[i], name, n) == 0)
			return true;
	return false;
}

/* Names of TLS 1.3 are few; of the others, and of words like "HIGH", the library knows more. */
static int explain_ciphers(const char *text, char why[SL_WHY_LEN])
{
	char buf[SL_QUOTE_LEN];

	if (strlen(text) > 4096)
		return sl_refuse(why, "longer than 4096 characters");
	for (const char *p = text;; p++) {
		size_t n = strcspn(p, ":");

		if (n == 0 || (p[n] && !p[n + 1]))
			return sl_refuse(why, "%s: a name is missing beside a ':'",
					 sl_quote(text, buf));
		for (size_t i = 0; i < n; i++)
			if (!isalnum((unsigned char)p[i]) && !strchr("_-+!@=.", p[i]))
				return sl_refuse(why,
						 "%s is not a list of names with ':' between them, "
						 "like ECDHE+AESGCM:TLS_AES_128_GCM_SHA256",
						 sl_quote(text, buf));
		if (n >= 4 && memcmp(p, "TLS_", 4) == 0 && !is_suite(p, n))
			return sl_refuse(why,
					 "'%.*s' is none of TLS 1.3, whose names begin with TLS_; "
					 "those of TLS 1.2 are written like "
					 "ECDHE-RSA-AES128-GCM-SHA256 here",
					 (int)(n < 100 ? n : 100), p);
		p += n;
		if (!*p)
			return 0;
	}
}

/* What a certificate can say and a client ask for: a host name or an address. */
static int explain_server_name(const char *text, char why[SL_WHY_LEN])
{
	struct sl_target_parts parts;
	char buf[SL_QUOTE_LEN];
	struct sl_addr a;

	if (sl_addr_parse_ip(text, &a) == 0)
		return 0;
	if (strchr(text, '*'))
		return sl_refuse(why, "%s is a pattern: one name is asked for",
				 sl_quote(text, buf));
	if (strchr(text, ':') || *text == '[' || sl_target_parse(text, &parts, why) < 0)
		return sl_refuse(why, "%s is not a name like backend.example.com, or an address",
				 sl_quote(text, buf));
	return 0;
}

static int explain_path_pattern(const char *text, char why[SL_WHY_LEN])
{
	const char *problem = NULL;
	char buf[SL_QUOTE_LEN];

	if (is_url_path(text))
		problem = sl_path_pattern_check(text);
	else
		problem = "it must begin with '/' and have no blanks";
	return problem ? sl_refuse(why, "%s is not a path like /api/:version/*: %s",
				   sl_quote(text, buf), problem)
		       : 0;
}

static int explain_domain(const char *text, char why[SL_WHY_LEN])
{
	char name[SL_NAME_MAX + 1];

	return sl_domain_parse(text, name, why);
}

static int explain_network(const char *text, char why[SL_WHY_LEN])
{
	struct sl_ip_pattern p;

	return sl_network_parse(text, &p, why);
}

/* Source ports: the proxy process may not use those below 1024. */
static int explain_source_ports(const char *text, char why[SL_WHY_LEN])
{
	struct sl_port_spec p;
	char buf[SL_QUOTE_LEN];

	if (sl_ports_parse(text, &p, why) < 0)
		return -EINVAL;
	if (sl_addr_family(&p.ip) != AF_UNSPEC)
		return sl_refuse(why, "%s is not a range of ports, like 40000-59999",
				 sl_quote(text, buf));
	if (p.from < 1024)
		return sl_refuse(why, "%s begins below 1024, which is not for source ports",
				 sl_quote(text, buf));
	if (p.to - p.from + 1 < SL_PACKET_PORTS_MIN)
		return sl_refuse(why, "%s has too few ports: at least %d are needed",
				 sl_quote(text, buf), SL_PACKET_PORTS_MIN);
	return 0;
}

/* As the kernel's dev_valid_name() (net/core/dev.c). */
static bool is_interface(const char *text)
{
	for (const char *p = text; *p; p++)
		if (*p <= ' ' || *p == 0x7f || *p == '/' || *p == ':')
			return false;
	return *text && strlen(text) < SL_INTERFACE_NAME && strcmp(text, ".") != 0 &&
	       strcmp(text, "..") != 0;
}

static bool is_bpf_dir(const char *text)
{
	return is_path(text) && strlen(text) < SL_BPF_DIR;
}

static bool is_url(const char *text)
{
	return strncmp(text, "https://", 8) == 0 && text[8] && is_text(text);
}

static bool is_email(const char *text)
{
	const char *at = strchr(text, '@');

	return at && at > text && at[1] && !strchr(at + 1, '@') && is_text(text) &&
	       !strpbrk(text, " \t");
}

static const struct sl_format name_format = { "a name of 1 to 64 letters, digits, '.', '_' and '-'",
					      "shop-1", "^[A-Za-z0-9._-]{1,64}$", is_name, NULL };
static const struct sl_format account_format = { "an account", "sluice",
						 "^[A-Za-z_][A-Za-z0-9_-]{0,31}$", is_account,
						 NULL };
static const struct sl_format table_format = { "a name of an nftables table", "sluice",
					       "^[A-Za-z][A-Za-z0-9_-]{0,63}$", is_table, NULL };
static const struct sl_format path_format = { "an absolute path", "/run/sluice", "^/", is_path,
					      NULL };
static const struct sl_format pem_format = { "an absolute path", "/etc/sluice/tls/shop.pem", "^/",
					     is_path, NULL };
static const struct sl_format log_format = { "stderr, none or an absolute path",
					     "/var/log/sluice/access.log", "^(stderr$|/)",
					     is_log_target, NULL };
static const struct sl_format text_format = { "a text without control characters", "text", "^.",
					      is_text, NULL };
static const struct sl_format url_path_format = { "a path that begins with '/'", "/api/*", "^/",
						  is_url_path, NULL };
static const struct sl_format request_path_format = {
	"a path that begins with '/' and has no blanks", "/health", "^/", is_request_path, NULL
};
static const struct sl_format protocol_format = { "a protocol's name of at most 255 characters",
						  "h2, or a list: [h2, http/1.1]", "^[^ ,]{1,255}$",
						  is_protocol, NULL };
static const struct sl_format path_pattern_format = { "a path with * and :param", "/api/*", "^/",
						      NULL, explain_path_pattern };
static const struct sl_format domain_format = { "a domain, also with *", "\"*.example.com\"",
						"^[A-Za-z0-9._*-]{1,254}$", NULL, explain_domain };
static const struct sl_format source_ports_format = { "a range of ports", "40000-59999",
						      "^[0-9]+-[0-9]+$", NULL,
						      explain_source_ports };
static const struct sl_format interface_format = { "a name of an interface", "eth0",
						   "^[^/: ]{1,15}$", is_interface, NULL };
static const struct sl_format bpf_dir_format = { "an absolute path of at most 255 characters",
						 "/sys/fs/bpf/sluice", "^/", is_bpf_dir, NULL };
static const struct sl_format network_format = { "an address, network, range or pattern",
						 "10.0.0.0/8", "^[0-9A-Fa-f.:*?/-]+$", NULL,
						 explain_network };
static const struct sl_format verify_format = { "system, none or an absolute path",
						"/etc/ssl/backends.pem", "^(system$|none$|/)",
						is_path, NULL };
static const struct sl_format server_name_format = { "a host name or an address",
						     "backend.example.com", "^[A-Za-z0-9._:-]+$",
						     NULL, explain_server_name };
static const struct sl_format ciphers_format = { "OpenSSL's names with ':' between them",
						 "ECDHE+AESGCM:TLS_AES_128_GCM_SHA256",
						 "^[A-Za-z0-9_+!@=.:-]+$", NULL, explain_ciphers };
static const struct sl_format url_format = { "a URL that begins with https://",
					     "https://acme.example.com/directory", "^https://.",
					     is_url, NULL };
static const struct sl_format email_format = { "a mail address", "ops@example.com", "^[^@]+@[^@]+$",
					       is_email, NULL };

/* ---- words ---- */

static const struct sl_word auto_words[] = { { "auto", 0, false }, { NULL, 0, false } };
static const struct sl_word none_words[] = { { "none", 0, false }, { NULL, 0, false } };
static const struct sl_word level_words[] = { { "error", SL_LOG_ERROR, false },
					      { "warn", SL_LOG_WARN, false },
					      { "info", SL_LOG_INFO, false },
					      { "debug", SL_LOG_DEBUG, false },
					      { NULL, 0, false } };
static const struct sl_word format_words[] = { { "text", 0, false },
					       { "json", 1, false },
					       { NULL, 0, false } };
static const struct sl_word hook_words[] = { { "auto", SL_HOOK_CHOICE_AUTO, false },
					     { "tc", SL_HOOK_CHOICE_TC, false },
					     { "xdp", SL_HOOK_CHOICE_XDP, false },
					     { "off", SL_HOOK_CHOICE_OFF, false },
					     { NULL, 0, false } };
static const struct sl_word enforce_words[] = { { "kernel", 1, false },
						{ "userspace", 0, false },
						{ NULL, 0, false } };
static const struct sl_word challenge_words[] = { { "http-01", 0, false },
						  { "tls-alpn-01", 1, false },
						  { NULL, 0, false } };
static const struct sl_word protocol_words[] = { { "tcp", 0, false },
						 { "udp", 1, false },
						 { NULL, 0, false } };
static const struct sl_word version_words[] = { { "1.2", 0, false },
						{ "1.3", 1, false },
						{ NULL, 0, false } };
static const struct sl_word client_auth_words[] = {
	{ "none", SL_CLIENT_AUTH_CHOICE_NONE, false },
	{ "optional", SL_CLIENT_AUTH_CHOICE_OPTIONAL, false },
	{ "required", SL_CLIENT_AUTH_CHOICE_REQUIRED, false },
	{ NULL, 0, false }
};
static const struct sl_word verify_words[] = { { "system", SL_VERIFY_CHOICE_SYSTEM, false },
					       { "none", SL_VERIFY_CHOICE_NONE, false },
					       { NULL, 0, false } };
static const struct sl_word offered_words[] = { { "1.0", SL_TLS_1_0, false },
						{ "1.1", SL_TLS_1_1, false },
						{ "1.2", SL_TLS_1_2, false },
						{ "1.3", SL_TLS_1_3, false },
						{ NULL, 0, false } };
static const struct sl_word engine_words[] = {
	{ "auto", SL_CHOICE_AUTO, false },         { "relay", SL_CHOICE_RELAY, false },
	{ "packet", SL_CHOICE_PACKET, false },     { "sockmap", SL_CHOICE_SOCKMAP, false },
	{ "nftables", SL_CHOICE_NFTABLES, false }, { NULL, 0, false }
};
static const struct sl_word tls_words[] = { { "passthrough", 0, false },
					    { "acme", 1, true },
					    { NULL, 0, false } };
static const struct sl_word preserve_words[] = { { "null", 0, false },
						 { "preserve", 1, false },
						 { NULL, 0, false } };
static const struct sl_word balance_words[] = { { "round_robin", SL_BALANCE_ROUND_ROBIN, false },
						{ "least_conn", SL_BALANCE_LEAST_CONN, false },
						{ "random", SL_BALANCE_RANDOM, false },
						{ "source_hash", SL_BALANCE_SOURCE_HASH, false },
						{ "maglev", SL_BALANCE_MAGLEV, false },
						{ NULL, 0, false } };
static const struct sl_word proxy_words[] = { { "none", SL_PH_SEND_NONE, false },
					      { "v1", SL_PH_SEND_V1, false },
					      { "v2", SL_PH_SEND_V2, false },
					      { NULL, 0, false } };
static const struct sl_word proxy_version_words[] = { { "v1", SL_PH_SEND_V1, false },
						      { "v2", SL_PH_SEND_V2, false },
						      { NULL, 0, false } };
static const struct sl_word keep_alive_words[] = { { "standard", SL_KEEP_ALIVE_STANDARD, false },
						   { "extended", SL_KEEP_ALIVE_EXTENDED, false },
						   { "immortal", SL_KEEP_ALIVE_IMMORTAL, false },
						   { NULL, 0, false } };
static const struct sl_word refuse_words[] = { { "reset", SL_REFUSE_CHOICE_RESET, false },
					       { "icmp", SL_REFUSE_CHOICE_ICMP, false },
					       { "drop", SL_REFUSE_CHOICE_DROP, false },
					       { NULL, 0, false } };
static const struct sl_word http_words[] = { { "h1", 0, false },
					     { "h2", 1, false },
					     { NULL, 0, false } };
static const struct sl_word reject_words[] = {
	{ "reset", 0, false }, { "close", 1, false }, { "drop", 2, false }, { NULL, 0, false }
};

/* ---- shapes of values ---- */

#define AT(type, field) .offset = offsetof(type, field), .size = sizeof(((type *)NULL)->field)
#define IN_GLOBAL(field) AT(struct sl_conf_global, field)
#define IN_ROUTE(field) AT(struct sl_conf_route, field)
#define IN_TARGET(field) AT(struct sl_conf_target, field)
#define IN_TLS(field) AT(struct sl_conf_tls, field)
#define IN_BACKEND(field) AT(struct sl_conf_backend_tls, field)
#define END                  \
	{                    \
		.name = NULL \
	}

#define BOOL(n, f, d) .name = n, .type = SL_KEY_BOOL, .flags = (f), .def = d
#define INT(n, f, d, lo, hi) \
	.name = n, .type = SL_KEY_INT, .flags = (f), .def = d, .min = (lo), .max = (hi)
#define DURATION(n, f, d, lo, hi) \
	.name = n, .type = SL_KEY_DURATION, .flags = (f), .def = d, .min = (lo), .max = (hi)
#define SIZE(n, f, d, lo, hi) \
	.name = n, .type = SL_KEY_SIZE, .flags = (f), .def = d, .min = (lo), .max = (hi)
#define RATE(n, f, d) .name = n, .type = SL_KEY_RATE, .flags = (f), .def = d
#define ENUM(n, f, d, w) .name = n, .type = SL_KEY_ENUM, .flags = (f), .def = d, .words = (w)
#define TEXT(n, f, d, fmt) .name = n, .type = SL_KEY_TEXT, .flags = (f), .def = d, .format = &(fmt)
#define OBJECT(n, f, k) .name = n, .type = SL_KEY_OBJECT, .flags = (f), .keys = (k)
#define LIST(n, f, i) .name = n, .type = SL_KEY_LIST, .flags = (f), .item = &(i)
#define ONE_OR_LIST(n, f, i) .name = n, .type = SL_KEY_ONE_OR_LIST, .flags = (f), .item = &(i)
#define MAP(n, f, i) .name = n, .type = SL_KEY_MAP, .flags = (f), .item = &(i)
#define LATER SL_KEY_LATER
#define REQUIRED SL_KEY_REQUIRED
#define WHOLE SL_KEY_WHOLE
#define APART SL_KEY_APART
#define OFF SL_KEY_OFF_IS_ZERO

static const struct sl_key text_item = { TEXT("text", 0, NULL, text_format) };
static const struct sl_key interface_item = { TEXT("interface", 0, NULL, interface_format),
					      .words = auto_words };
static const struct sl_key offload_item = { TEXT("interface", 0, NULL, interface_format) };
static const struct sl_key network_item = { TEXT("network", 0, NULL, network_format) };
static const struct sl_key domain_item = { TEXT("domain", 0, NULL, domain_format) };
static const struct sl_key offered_item = { ENUM("version", 0, NULL, offered_words) };
static const struct sl_key protocol_item = { TEXT("protocol", 0, NULL, protocol_format) };
static const struct sl_key file_item = { TEXT("file", 0, NULL, pem_format) };
static const struct sl_key file_or_null_item = { TEXT("file", 0, "null", pem_format) };
static const struct sl_key http_item = { ENUM("version", 0, NULL, http_words) };
static const struct sl_key ports_item = { .name = "ports", .type = SL_KEY_PORTS };

/* ---- global ---- */

static const struct sl_key overload_keys[] = {
	{ .name = "refuse_above",
	  .type = SL_KEY_PERCENT,
	  .def = "95%",
	  .min = 1,
	  .max = 100,
	  IN_GLOBAL(refuse_above_percent),
	  .help = "Share of max_connections above which new connections are refused." },
	{ .name = "resume_below",
	  .type = SL_KEY_PERCENT,
	  .def = "85%",
	  .min = 0,
	  .max = 100,
	  IN_GLOBAL(resume_below_percent),
	  .help = "Share below which connections are accepted again." },
	END
};

static const struct sl_key log_keys[] = {
	{ ENUM("level", 0, "info", level_words), IN_GLOBAL(log_level),
	  .help = "Least important messages that are written." },
	{ ENUM("format", 0, "text", format_words), IN_GLOBAL(log_json),
	  .help = "Form of messages and access lines." },
	{ TEXT("access", 0, "stderr", log_format), .words = none_words, IN_GLOBAL(access_log),
	  .help = "Where the line about each finished connection goes: stderr, a file, or none." },
	END
};

static const struct sl_key packet_keys[] = {
	{ ENUM("hook", 0, "auto", hook_words), IN_GLOBAL(packet.hook),
	  .help = "Where packets are rewritten; auto: tc; off: nowhere." },
	{ ONE_OR_LIST("interfaces", 0, interface_item), .def = "auto",
	  .help = "Interfaces whose packets may be rewritten; auto: all." },
	{ TEXT("ports", 0, "40000-59999", source_ports_format),
	  .help = "Source ports used towards targets." },
	{ INT("max_flows", 0, "262144", 1, 16777216), IN_GLOBAL(packet.max_flows),
	  .help = "Size of the flow table." },
	{ SIZE("after_bytes", 0, "64KiB", 0, UINT64_C(1) << 40), IN_GLOBAL(packet.after_bytes),
	  .help = "A connection is handed to the kernel once it has carried so much; 0: at once." },
	{ DURATION("after_age", 0, "1s", 0, DAY), IN_GLOBAL(packet.after_age_ms),
	  .help = "Or once it has lived so long; 0: at once." },
	END
};

static const struct sl_key sockmap_keys[] = {
	{ SIZE("backlog", 0, "1MiB", 4096, UINT64_C(1) << 30), IN_GLOBAL(sockmap.backlog),
	  .help = "Bytes that may wait in the kernel for a slow receiver." },
	{ SIZE("after_bytes", 0, "0", 0, UINT64_C(1) << 40), IN_GLOBAL(sockmap.after_bytes),
	  .help = "A connection is handed to the kernel once it has carried so much; 0: at once." },
	{ DURATION("after_age", 0, "0", 0, DAY), IN_GLOBAL(sockmap.after_age_ms),
	  .help = "Or once it has lived so long; 0: at once." },
	END
};

static const struct sl_key nftables_keys[] = {
	{ BOOL("keep_on_exit", 0, "false"), IN_GLOBAL(nftables.keep_on_exit),
	  .help = "Leave the rules when the daemon stops." },
	{ INT("mark_base", 0, "0", 0, SL_MARK_BASE_MAX), IN_GLOBAL(nftables.mark_base),
	  .help = "Connection marks above this are those of routes." },
	{ LIST("flow_offload", 0, offload_item),
	  .help = "Interfaces between which established flows take the kernel's short way." },
	END
};

static const struct sl_key global_security_keys[] = {
	{ ONE_OR_LIST("allow", 0, network_item),
	  .help = "Clients that may connect to any route; empty: all." },
	{ ONE_OR_LIST("deny", 0, network_item),
	  .help = "Clients that may not, whatever a route says; wins over allow." },
	{ TEXT("deny_file", 0, NULL, path_format), IN_GLOBAL(deny_file),
	  .help = "File with more to deny, one per line, read anew at each reload." },
	{ ENUM("enforce", 0, "kernel", enforce_words), IN_GLOBAL(enforce_in_kernel),
	  .help = "kernel: refuse before accept where possible, else as userspace does." },
	END
};

static const struct sl_key global_keys[] = {
	{ INT("workers", 0, "auto", 1, 1024), .words = auto_words, IN_GLOBAL(workers),
	  .help = "Number of event-loop threads; auto: one for each CPU." },
	{ TEXT("user", 0, "auto", account_format), .words = auto_words, IN_GLOBAL(user),
	  .help = "Identity of the proxy process; auto: 'sluice' if that account exists." },
	{ INT("max_connections", 0, "100000", 1, MAX_COUNT), IN_GLOBAL(max_connections),
	  .help = "Connections at one time, all routes together." },
	{ OBJECT("overload", 0, overload_keys), .help = "The circuit breaker." },
	{ TEXT("runtime_dir", 0, "/run/sluice", path_format), IN_GLOBAL(runtime_dir),
	  .help = "Directory of the control socket and the pid file." },
	{ TEXT("state_dir", 0, "/var/lib/sluice", path_format), IN_GLOBAL(state_dir),
	  .help = "Directory of what is kept over restarts." },
	{ TEXT("bpf_dir", 0, "/sys/fs/bpf/sluice", bpf_dir_format), IN_GLOBAL(bpf_dir),
	  .help = "Directory of pinned kernel objects." },
	{ TEXT("nft_table", 0, "sluice", table_format), IN_GLOBAL(nft_table),
	  .help = "Name of the nftables table (family inet)." },
	{ .name = "http",
	  .type = SL_KEY_ADDR,
	  .def = "127.0.0.1:9180",
	  .words = none_words,
	  IN_GLOBAL(http),
	  .help = "Address of /metrics, /healthz and /readyz; none: off." },
	{ OBJECT("log", 0, log_keys), .help = "Messages and access lines." },
	{ OBJECT("packet", 0, packet_keys), .help = "The packet engine." },
	{ OBJECT("sockmap", 0, sockmap_keys), .help = "The sockmap engine." },
	{ OBJECT("nftables", 0, nftables_keys), .help = "The nftables engine." },
	{ OBJECT("security", 0, global_security_keys), .help = "Rules for every route." },
	END
};

/* ---- listeners ---- */

static const struct sl_key accept_proxy_keys[] = {
	{ ONE_OR_LIST("from", REQUIRED, network_item),
	  .help = "Senders whose header is believed." },
	{ BOOL("required", 0, "true"),
	  .help = "true: refuse everybody else, and connections without the header." },
	END
};

static const struct sl_key listener_keys[] = {
	{ ONE_OR_LIST("ports", REQUIRED, ports_item),
	  .help = "Ports of routes that need more than the defaults." },
	{ OBJECT("accept_proxy", 0, accept_proxy_keys),
	  .help = "Connections begin with a PROXY header (version 1 or 2)." },
	{ INT("backlog", 0, "4096", 1, 65535), .help = "Connections that may wait to be accepted "
						       "(also bounded by net.core.somaxconn)." },
	END
};
static const struct sl_key listener_item = { OBJECT("listener", 0, listener_keys) };

/* ---- what routes have ---- */

static const struct sl_key timeouts_keys[] = {
	{ DURATION("proxy_header", OFF, "5s", 1, DAY), IN_ROUTE(timeouts.proxy_header),
	  .help = "Until the PROXY header is complete." },
	{ DURATION("first_data", OFF, "10s", 1, DAY), IN_ROUTE(timeouts.first_data),
	  .help = "Until the bytes that choose the route have come." },
	{ DURATION("handshake", OFF, "10s", 1, DAY), IN_ROUTE(timeouts.handshake),
	  .help = "For a TLS handshake." },
	{ DURATION("connect", 0, "30s", 1, DAY), IN_ROUTE(timeouts.connect),
	  .help = "For each attempt to connect to a target." },
	{ DURATION("idle", OFF, "4h", 1, YEAR), IN_ROUTE(timeouts.idle),
	  .help = "Silence in both directions after which a connection is closed." },
	{ DURATION("max_lifetime", OFF, "0", 1, YEAR), IN_ROUTE(timeouts.max_lifetime),
	  .help = "Age at which a connection is closed." },
	{ DURATION("close_grace", OFF, "5s", 1, DAY), IN_ROUTE(timeouts.close_grace),
	  .help = "Silence after one side has closed (half_open: false)." },
	{ DURATION("half_closed", OFF, "30m", 1, YEAR), IN_ROUTE(timeouts.half_closed),
	  .help = "Time one direction may stay open alone (half_open: true)," },
	{ DURATION("half_closed_idle", OFF, "10m", 1, YEAR), IN_ROUTE(timeouts.half_closed_idle),
	  .help = "and the silence that must follow before it is closed." },
	{ DURATION("drain", OFF, "30s", 1, DAY), IN_ROUTE(timeouts.drain),
	  .help = "Time connections get to end by themselves when the daemon stops." },
	{ DURATION("request_header", LATER | OFF, "10s", 1, DAY), IN_ROUTE(timeouts.request_header),
	  .help = "For the head of an HTTP request." },
	{ DURATION("request_body", LATER | OFF, "60s", 1, DAY), IN_ROUTE(timeouts.request_body),
	  .help = "Silence inside a request body." },
	{ DURATION("http_keep_alive", LATER | OFF, "75s", 1, DAY),
	  IN_ROUTE(timeouts.http_keep_alive), .help = "Silence between two requests." },
	END
};

static const struct sl_key basic_auth_keys[] = {
	{ TEXT("realm", 0, NULL, text_format), .help = "Shown to the user." },
	{ TEXT("users_file", REQUIRED, NULL, path_format), .help = "Names and password hashes." },
	END
};

static const struct sl_key security_keys[] = {
	{ ONE_OR_LIST("allow", 0, network_item),
	  .help = "Clients that may connect; empty: all. Replaces the list of `defaults`." },
	{ ONE_OR_LIST("deny", 0, network_item),
	  .help = "Clients that may not; wins over allow. Replaces the list of `defaults`." },
	{ INT("max_connections", 0, "0", 0, MAX_COUNT), IN_ROUTE(max_connections),
	  .help = "Connections at one time; 0: no limit." },
	{ INT("max_connections_per_ip", 0, "0", 0, MAX_COUNT), IN_ROUTE(max_connections_per_ip),
	  .help = "Connections at one time of one client address; 0: no limit." },
	{ RATE("new_connections_per_ip", 0, "0"),
	  .offset = offsetof(struct sl_conf_route, new_per_ip_per_minute),
	  .size = 2 * sizeof(uint64_t),
	  .help = "New connections of one client address, like 50/s or 600/m; 0: no limit." },
	{ RATE("new_connections", 0, "0"), IN_ROUTE(new_connections),
	  .help = "New connections of all clients, like 50/s or 600/m; 0: no limit; with engine "
		  "nftables only." },
	{ RATE("packets", 0, "0"), IN_ROUTE(packets),
	  .help = "Packets of all clients, not counting the first of each connection; those "
		  "above are dropped; 0: no limit; with engine nftables only." },
	{ ENUM("refuse", 0, "reset", refuse_words), IN_ROUTE(refuse),
	  .help = "What refused clients meet: RST (UDP: ICMP port unreachable), ICMP "
		  "administratively prohibited, or silence; with engine nftables only." },
	{ OBJECT("basic_auth", LATER, basic_auth_keys), .help = "HTTP basic authentication." },
	END
};
/* A rate is stored as two numbers. */
_Static_assert(offsetof(struct sl_conf_route, new_per_ip_burst) ==
		       offsetof(struct sl_conf_route, new_per_ip_per_minute) + sizeof(uint64_t),
	       "rate and burst stand side by side");
_Static_assert(sizeof(struct sl_conf_rate) == 2 * sizeof(uint64_t) &&
		       offsetof(struct sl_conf_rate, burst) == sizeof(uint64_t),
	       "likewise");

static const struct sl_key tls_acme_keys[] = {
	{ TEXT("email", 0, NULL, email_format), .help = "Contact given to the authority." },
	{ TEXT("directory", 0, NULL, url_format), .help = "The authority." },
	{ ENUM("challenge", 0, NULL, challenge_words), .help = "How control is proved." },
	{ DURATION("renew_before", 0, NULL, HOUR, YEAR), .help = "When to renew." },
	END
};

/* See conf/tls.c. */
static const struct sl_key tls_keys[] = {
	{ ONE_OR_LIST("cert", 0, file_item),
	  .help = "Certificate, then those of its issuers (PEM); of a list the client's name (SNI) "
		  "and kinds of key choose, the first is the default." },
	{ ONE_OR_LIST("key", 0, file_or_null_item),
	  .help = "Private key (PEM) of each; null, or no `key` at all: in the file of `cert`." },
	{ ONE_OR_LIST("ocsp", 0, file_or_null_item),
	  .help = "OCSP response (DER) sent along with each; null: none." },
	{ TEXT("client_ca", 0, NULL, pem_format), IN_TLS(client_ca),
	  .help = "Authorities (PEM) of the certificates that clients are asked for." },
	{ ENUM("client_auth", 0, NULL, client_auth_words), IN_TLS(client_auth),
	  .help = "With client_ca: required unless written; optional: one that is shown must be "
		  "good." },
	{ ENUM("min_version", 0, "1.2", version_words), IN_TLS(only_1_3),
	  .help = "Oldest TLS version." },
	{ ONE_OR_LIST("alpn", 0, protocol_item),
	  .help = "Protocols that are accepted, the best first; empty: the client's are not "
		  "answered." },
	{ TEXT("ciphers", 0, NULL, ciphers_format),
	  .help = "Ciphers in OpenSSL's words; those that begin with TLS_ are those of TLS 1.3." },
	{ OBJECT("acme", LATER, tls_acme_keys), .help = "Certificate by ACME." },
	END
};
static const struct sl_key tls_short = { ENUM("tls", 0, NULL, tls_words) };

static const struct sl_key health_keys[] = {
	{ DURATION("every", 0, "2s", 10, DAY), IN_ROUTE(health.every),
	  .help = "Between two checks of a target." },
	{ DURATION("timeout", 0, "1s", 10, DAY), IN_ROUTE(health.timeout),
	  .help = "For one check." },
	{ INT("fall", 0, "3", 1, 1000), IN_ROUTE(health.fall),
	  .help = "Failures in a row until a target counts as down." },
	{ INT("rise", 0, "2", 1, 1000), IN_ROUTE(health.rise),
	  .help = "Successes in a row until it counts as up." },
	{ TEXT("path", 0, NULL, request_path_format), IN_ROUTE(health.path),
	  .help = "HTTP path asked for (200 to 399 is good); null: connect only." },
	{ BOOL("tls", 0, "false"), IN_ROUTE(health.tls), .help = "Check through TLS." },
	{ DURATION("slow_start", OFF, "0s", 1, DAY), IN_ROUTE(health.slow_start),
	  .help = "Time until a target that came back has its full share." },
	END
};
static const struct sl_word health_words[] = { { "none", 0, false }, { NULL, 0, false } };
static const struct sl_key health_short = { ENUM("health", 0, NULL, health_words),
					    IN_ROUTE(health.enabled) };

static const struct sl_key send_proxy_keys[] = {
	{ ENUM("version", REQUIRED, NULL, proxy_version_words), IN_ROUTE(send_proxy.version),
	  .help = "Form of the header." },
	{ BOOL("crc32c", 0, "false"), IN_ROUTE(send_proxy.crc32c), .help = "v2: with a checksum." },
	{ BOOL("alpn", 0, "false"), IN_ROUTE(send_proxy.alpn),
	  .help = "v2: with the client's first protocol (ALPN)." },
	{ BOOL("authority", 0, "false"), IN_ROUTE(send_proxy.authority),
	  .help = "v2: with the name the client asked for (SNI)." },
	{ BOOL("unique_id", 0, "false"), IN_ROUTE(send_proxy.unique_id),
	  .help = "v2: with the connection's id." },
	{ BOOL("ssl", 0, "false"), IN_ROUTE(send_proxy.ssl),
	  .help = "v2: with version, cipher and certificate of the client's TLS, which ends "
		  "here." },
	END
};
static const struct sl_key send_proxy_short = { ENUM("send_proxy", 0, NULL, proxy_words),
						IN_ROUTE(send_proxy.version) };

static const struct sl_key forward_tls_keys[] = {
	{ TEXT("verify", 0, "system", verify_format), .words = verify_words,
	  .help = "Authorities by which the target's certificate is verified: those of the system, "
		  "or of a file (PEM); none: whoever answers is believed." },
	{ TEXT("server_name", 0, NULL, server_name_format), IN_BACKEND(server_name),
	  .help = "Name asked for (SNI) and verified; null: the host of the target's address." },
	{ TEXT("cert", 0, NULL, pem_format), IN_BACKEND(cert),
	  .help = "Own certificate, then those of its issuers (PEM), for targets that ask." },
	{ TEXT("key", 0, NULL, pem_format), IN_BACKEND(key),
	  .help = "Its private key (PEM); null: in the file of `cert`." },
	END
};
static const struct sl_word forward_tls_words[] = { { "none", 0, false }, { NULL, 0, false } };
static const struct sl_key forward_tls_short = { ENUM("tls", 0, NULL, forward_tls_words) };

static const struct sl_key target_keys[] = {
	{ .name = "address",
	  .type = SL_KEY_TARGET,
	  .flags = REQUIRED,
	  .help = "host:port; the host is a name or an address." },
	{ INT("weight", 0, "1", 0, 1000), IN_TARGET(weight),
	  .help = "Share among the targets; 0: no new connections." },
	{ BOOL("backup", 0, "false"), IN_TARGET(backup),
	  .help = "Only used when no other target is left." },
	END
};
static const struct sl_key target_short = { .name = "target", .type = SL_KEY_TARGET };
static const struct sl_key target_item = { OBJECT("target", 0, target_keys),
					   .item = &target_short };
static const struct sl_key targets_short = { ONE_OR_LIST("targets", REQUIRED, target_item) };

#define FORWARD_OPTIONS                                                                         \
	{ ENUM("port", 0, "null", preserve_words),                                              \
	  .help = "preserve: connect to the port the client connected to." },                   \
		{ ENUM("balance", 0, "round_robin", balance_words), IN_ROUTE(balance),          \
		  .help = "How a target is chosen." },                                          \
		{ OBJECT("health", 0, health_keys), .item = &health_short,                      \
		  IN_ROUTE(health.enabled),                                                     \
		  .help = "Active checks of each target; a mapping, also {}, turns them on." }, \
		{ OBJECT("send_proxy", WHOLE, send_proxy_keys), .item = &send_proxy_short,      \
		  .def = "none", .help = "PROXY header sent to the target first." },            \
		{ OBJECT("tls", APART, forward_tls_keys), .item = &forward_tls_short,           \
		  .help = "Encrypt towards the target; a mapping, also {}, turns it on." },     \
		{ BOOL("preserve_source", 0, "false"), IN_ROUTE(preserve_source),               \
		  .help = "The target sees the client's address; with engine nftables only." }, \
	{                                                                                       \
		INT("retries", 0, "2", 0, 10), IN_ROUTE(retries),                               \
			.help = "Further attempts after a failed connect, on the next target."  \
	}

static const struct sl_key forward_keys[] = { { ONE_OR_LIST("targets", REQUIRED, target_item),
						.help = "Where connections go; host:port each." },
					      FORWARD_OPTIONS,
					      END };
static const struct sl_key forward_defaults_keys[] = { FORWARD_OPTIONS, END };

/* ---- actions of later builds ---- */

static const struct sl_key redirect_keys[] = {
	{ TEXT("to", REQUIRED, NULL, text_format), .help = "URL; {host}, {uri} are filled in." },
	{ INT("status", 0, "308", 300, 399), .help = "HTTP status." },
	END
};

static const struct sl_key respond_keys[] = {
	{ INT("status", 0, "200", 200, 599), .help = "HTTP status." },
	{ TEXT("body", 0, NULL, text_format), .help = "Text of the answer." },
	{ MAP("headers", 0, text_item), .help = "Headers of the answer." },
	END
};

static const struct sl_key path_headers_keys[] = {
	{ MAP("set", 0, text_item), .help = "Headers set." },
	{ LIST("remove", 0, text_item), .help = "Headers removed." },
	END
};

static const struct sl_key http_path_keys[] = {
	{ TEXT("path", REQUIRED, NULL, url_path_format), .help = "Path; * and :param." },
	{ TEXT("strip_prefix", 0, NULL, url_path_format), .help = "Removed before forwarding." },
	{ BOOL("websocket", 0, "false"), .help = "Allow WebSocket upgrades." },
	{ OBJECT("headers", 0, path_headers_keys), .help = "Changes to headers." },
	{ OBJECT("forward", REQUIRED, forward_keys), .item = &targets_short,
	  .help = "Where requests go." },
	END
};
static const struct sl_key http_path_item = { OBJECT("path", 0, http_path_keys) };

static const struct sl_key http_keys[] = {
	{ LIST("versions", 0, http_item), .help = "HTTP versions." },
	{ BOOL("gzip", 0, "false"), .help = "Compress answers." },
	{ LIST("paths", REQUIRED, http_path_item), .help = "What is served, by path." },
	END
};

/* ---- routes ---- */

static const struct sl_key match_tls_keys[] = {
	{ ONE_OR_LIST("versions", 0, offered_item),
	  .help = "TLS versions, of which the client must offer one." },
	{ ONE_OR_LIST("alpn", 0, protocol_item),
	  .help = "Protocols, of which the client must offer one." },
	END
};

static const struct sl_key match_keys[] = {
	{ ONE_OR_LIST("ports", REQUIRED, ports_item),
	  .help = "Number, \"from-to\", \"address:port\", \"address:from-to\", or a list of "
		  "these." },
	{ ENUM("protocol", 0, "tcp", protocol_words), IN_ROUTE(is_udp),
	  .help = "Transport protocol; udp: with engine nftables only." },
	{ ONE_OR_LIST("domains", 0, domain_item),
	  .help = "Names the client asks for (SNI); \"*.x\", \"x.*\", \"a-*.x\" are patterns." },
	{ TEXT("path", 0, NULL, path_pattern_format), IN_ROUTE(path),
	  .help = "HTTP path; * and :param. No HTTP request is read by this build: such a route "
		  "matches nothing yet." },
	{ ONE_OR_LIST("clients", 0, network_item), .help = "Client addresses." },
	{ MAP("headers", LATER, text_item), .help = "HTTP headers and their values." },
	{ OBJECT("tls", 0, match_tls_keys), .help = "What the ClientHello offers." },
	END
};

#define ROUTE_OPTIONS(forward_flags, forward_item, forward_list)                                   \
	{ BOOL("enabled", 0, "true"), IN_ROUTE(enabled),                                           \
	  .help = "false: as if it were not here." },                                              \
		{ INT("priority", 0, "0", 0, 1000000), IN_ROUTE(priority),                         \
		  .help = "Higher wins before specificity." },                                     \
		{ ENUM("engine", 0, "auto", engine_words), IN_ROUTE(engine),                       \
		  .help = "What moves the bytes; auto: the best for each connection." },           \
		{ OBJECT("tls", APART, tls_keys), .item = &tls_short, .def = "passthrough",        \
		  .help = "TLS with clients ends here; passthrough: it is not touched." },         \
		{ OBJECT("forward", forward_flags, forward_list), .item = (forward_item),          \
		  .help = "Where connections go: \"host:port\", a list of these, or a mapping." }, \
		{ OBJECT("security", 0, security_keys),                                            \
		  .help = "Who may connect, and how much." },                                      \
		{ ENUM("keep_alive", 0, "standard", keep_alive_words), IN_ROUTE(keep_alive),       \
		  .help = "standard: timeouts.idle; extended: six times that; immortal: none." },  \
		{ BOOL("half_open", 0, "false"), IN_ROUTE(half_open),                              \
		  .help = "Keep one direction open for long after the other has closed." },        \
	{                                                                                          \
		OBJECT("timeouts", 0, timeouts_keys), .help = "Limits of time."                    \
	}

static const struct sl_key route_keys[] = {
	{ TEXT("name", REQUIRED, NULL, name_format), IN_ROUTE(name),
	  .help = "Unique; identifies the route in output and over reloads." },
	{ OBJECT("match", REQUIRED, match_keys), .help = "Which connections." },
	ROUTE_OPTIONS(0, &targets_short, forward_keys),
	{ OBJECT("redirect", LATER, redirect_keys), .help = "Answer with another URL." },
	{ OBJECT("respond", LATER, respond_keys), .help = "Answer with a fixed text." },
	{ ENUM("reject", LATER, NULL, reject_words), .help = "Refuse connections." },
	{ OBJECT("http", LATER, http_keys), .help = "Serve HTTP by path." },
	END
};
static const struct sl_key route_item = { OBJECT("route", 0, route_keys) };

static const struct sl_key defaults_keys[] = { ROUTE_OPTIONS(0, NULL, forward_defaults_keys), END };

/* ---- the file ---- */

static const struct sl_key acme_keys[] = {
	{ TEXT("email", LATER, NULL, email_format), .help = "Contact given to the authority." },
	{ TEXT("directory", LATER, "https://acme-v02.api.letsencrypt.org/directory", url_format),
	  .help = "The authority." },
	{ ENUM("challenge", LATER, "http-01", challenge_words), .help = "How control is proved." },
	{ DURATION("renew_before", LATER, "30d", HOUR, YEAR), .help = "When to renew." },
	END
};

static const struct sl_key root_keys[] = {
	{ INT("version", 0, NULL, 1, 1), .help = "Version of this format: 1." },
	{ OBJECT("global", 0, global_keys), .help = "The daemon as a whole." },
	{ LIST("listeners", 0, listener_item), .help = "Ports that need more than the defaults; "
						       "the ports themselves come from routes." },
	{ OBJECT("defaults", 0, defaults_keys), .help = "Values for keys that routes leave out." },
	{ OBJECT("acme", 0, acme_keys), .help = "Automatic certificates." },
	{ LIST("routes", 0, route_item), .help = "What is forwarded, and where to." },
	END
};

const struct sl_key sl_key_root = { OBJECT("configuration", 0, root_keys) };

const struct sl_key *sl_key_find(const struct sl_key *keys, const char *name)
{
	for (; keys && keys->name; keys++)
		if (strcmp(keys->name, name) == 0)
			return keys;
	return NULL;
}

const struct sl_key *sl_key_at(const char *name, ...)
{
	const struct sl_key *key = &sl_key_root;
	va_list ap;

	va_start(ap, name);
	for (; name; name = va_arg(ap, const char *))
		key = sl_key_find(key->keys ? key->keys : key->item->keys, name);
	va_end(ap);
	return key;
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/packet.h"
#include "accel/sockmap.h"
#include "base/log.h"
#include "base/num.h"
#include "broker/nat.h"
#include "conf/conf.h"
#include "daemon/broker_role.h"
#include "daemon/cert_store.h"
#include "daemon/deny.h"
#include "daemon/proxy_role.h"
#include "daemon/role.h"
#include "daemon/runtime.h"
#include "daemon/supervisor.h"

#define DEFAULT_CONFIG "/etc/sluice/sluice.yaml"
#define EXIT_USAGE 2

static const char usage[] =
	"usage: sluiced [-c FILE] [-t] [--single] [--purge]\n"
	"\n"
	"  -c, --config FILE  configuration (default " DEFAULT_CONFIG ", with conf.d/ beside it)\n"
	"  -t, --test         check the configuration and exit: 0 good, 78 bad\n"
	"      --single       all roles in one process, for debuggers\n"
	"      --purge        remove what a daemon that has died left in the kernel, and exit: "
	"its\n"
	"                     flows end\n"
	"      --version      print the version\n"
	"      --help         print this text\n"
	"\n"
	"Runs in the foreground. SIGHUP reloads, SIGUSR1 reopens log files, SIGTERM ends when the\n"
	"connections have ended, a second SIGTERM at once.\n";

enum action {
	ACTION_RUN = 0,
	ACTION_TEST,
	ACTION_PURGE,
	ACTION_VERSION,
	ACTION_HELP,
};

enum {
	OPTION_SINGLE = 256,
	OPTION_PURGE,
	OPTION_VERSION,
	OPTION_HELP,
	OPTION_RESUME,
};

static int parse(int argc, char **argv, struct sl_daemon_options *ret, enum action *ret_action)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "test", no_argument, NULL, 't' },
		{ "single", no_argument, NULL, OPTION_SINGLE },
		{ "purge", no_argument, NULL, OPTION_PURGE },
		{ "version", no_argument, NULL, OPTION_VERSION },
		{ "help", no_argument, NULL, OPTION_HELP },
		{ "resume", required_argument, NULL, OPTION_RESUME }, /* internal: an upgrade */
		{ 0 },
	};
	uint64_t fd;
	int c;

	while ((c = getopt_long(argc, argv, "c:th", options, NULL)) != -1) {
		if (c == 'c')
			ret->config_path = optarg;
		else if (c == 't')
			*ret_action = ACTION_TEST;
		else if (c == OPTION_SINGLE)
			ret->is_single = true;
		else if (c == OPTION_PURGE)
			*ret_action = ACTION_PURGE;
		else if (c == OPTION_VERSION)
			*ret_action = ACTION_VERSION;
		else if (c == OPTION_HELP || c == 'h')
			*ret_action = ACTION_HELP;
		else if (c == OPTION_RESUME && sl_num_parse(optarg, 3, 1u << 30, &fd) == 0)
			ret->resume_fd = (int)fd;
		else
			return -EINVAL;
	}
	if (optind == argc)
		return 0;
	(void)fprintf(stderr,
		      "sluiced: unexpected argument '%s' (a configuration is named with -c)\n",
		      argv[optind]);
	return -EINVAL;
}

static int read_config(const char *path, bool with_files, struct sl_conf **ret)
{
	_cleanup_(sl_conf_freep) struct sl_conf *conf = NULL;
	struct sl_conf_sources sources = { 0 };
	struct sl_diags diags = { 0 };
	int r = sl_conf_sources_load(path, &sources, &diags);

	if (r == 0)
		r = sl_conf_build(&sources, &conf, &diags);
	if (r == 0 && with_files)
		r = sl_deny_list_check(conf->global.deny_file, &diags);
	if (r == 0 && with_files)
		r = sl_cert_store_check(conf, &sources, &diags);
	if (diags.text.len > 0)
		(void)fwrite(diags.text.p, 1, diags.text.len, stderr);
	sl_conf_sources_done(&sources);
	sl_diags_done(&diags);
	if (r == 0)
		*ret = SL_TAKE_PTR(conf);
	return r;
}

static int test_config(const char *path)
{
	_cleanup_(sl_conf_freep) struct sl_conf *conf = NULL;

	if (read_config(path, true, &conf) < 0)
		return SL_EXIT_CONFIG;
	(void)printf("%s: %zu route%s, no errors\n", path, conf->n_routes,
		     conf->n_routes == 1 ? "" : "s");
	return 0;
}

static int purge(const char *path)
{
	_cleanup_(sl_conf_freep) struct sl_conf *conf = NULL;
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	_cleanup_fd_ int lock = -1;
	int nat, r;

	if (read_config(path, false, &conf) < 0)
		return SL_EXIT_CONFIG;
	r = sl_runtime_lock(conf->global.runtime_dir, &lock);
	if (r < 0)
		return 1;
	r = sl_sockmap_purge(conf->global.bpf_dir, &report);
	if (r == 0)
		r = sl_packet_purge(conf->global.bpf_dir, &report);
	if (r < 0)
		(void)sl_err(r, "cannot remove everything of %s", conf->global.bpf_dir);
	nat = sl_nat_purge(conf->global.nft_table, &report);
	if (nat < 0)
		(void)sl_err(nat, "cannot remove table inet %s", conf->global.nft_table);
	(void)fputs(sl_str_text(&report), stdout);
	if (r == 0 && nat == 0 && report.len == 0)
		(void)printf("nothing to remove in %s, no table inet %s\n", conf->global.bpf_dir,
			     conf->global.nft_table);
	return r < 0 || nat < 0;
}

static int run(int argc, char **argv)
{
	struct sl_daemon_options options = { .config_path = DEFAULT_CONFIG, .resume_fd = -1 };
	enum action action = ACTION_RUN;

	options.program = argc > 0 ? argv[0] : "sluiced";
	if (parse(argc, argv, &options, &action) < 0) {
		(void)fputs(usage, stderr);
		return EXIT_USAGE;
	}
	switch (action) {
	case ACTION_TEST:
		return test_config(options.config_path);
	case ACTION_PURGE:
		return purge(options.config_path);
	case ACTION_VERSION:
		(void)puts("sluiced " SL_VERSION);
		return 0;
	case ACTION_HELP:
		(void)fputs(usage, stdout);
		return 0;
	case ACTION_RUN:
		break;
	}
	return sl_supervisor_run(&options);
}

/* Descriptors 0 to 2 must be something, or the first sockets would take their place. */
static int fill_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -errno;
	(void)close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	int code;

	if (argc > 0 && strcmp(argv[0], SL_PROXY_ARGV0) == 0)
		code = sl_proxy_role_run(SL_ROLE_CHANNEL_FD);
	else if (argc > 0 && strcmp(argv[0], SL_BROKER_ARGV0) == 0)
		code = sl_broker_role_run(SL_ROLE_CHANNEL_FD);
	else if (fill_standard_fds() < 0)
		code = 1;
	else
		code = run(argc, argv);
	exit(code);
}

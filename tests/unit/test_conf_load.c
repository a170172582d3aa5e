/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct lab {
	char dir[64];
};

static int set_up(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	if (!lab)
		return -1;
	strcpy(lab->dir, "/tmp/sl-conf-XXXXXX");
	*state = lab;
	return mkdtemp(lab->dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	struct lab *lab = *state;
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf -- '%s'", lab->dir);
	(void)!system(command);
	free(lab);
	return 0;
}

static const char *path_in(const struct lab *lab, const char *name)
{
	static char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", lab->dir, name);
	return path;
}

static void put(const struct lab *lab, const char *name, const char *text, size_t n)
{
	int fd = open(path_in(lab, name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), (ssize_t)n);
	assert_int_equal(close(fd), 0);
}

static void files_in_name_order(void **state)
{
	static const char *const names[] = { "conf.d/b.yaml",  "conf.d/10.yaml", "conf.d/a.yml",
					     "conf.d/.c.yaml", "conf.d/9.yaml",  "conf.d/.yaml" };
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	_cleanup_(sl_diags_done) struct sl_diags d = { 0 };
	struct lab *lab = *state;

	put(lab, "main.yaml", "version: 1\0\n", 12);
	assert_int_equal(mkdir(path_in(lab, "conf.d"), 0700), 0);
	for (size_t i = 0; i < SL_ARRAY_LEN(names); i++)
		put(lab, names[i], names[i], strlen(names[i]));
	assert_int_equal(sl_conf_sources_load(path_in(lab, "main.yaml"), &s, &d), 0);
	assert_int_equal(d.n_errors, 0);
	assert_int_equal(s.n, 4);
	assert_string_equal(s.item[0].name, path_in(lab, "main.yaml"));
	assert_int_equal(s.item[0].len, 12);
	assert_memory_equal(s.item[0].text, "version: 1\0\n", 13);
	assert_string_equal(s.item[1].text, "conf.d/10.yaml");
	assert_string_equal(s.item[1].name, path_in(lab, "conf.d/10.yaml"));
	assert_string_equal(s.item[2].text, "conf.d/9.yaml");
	assert_string_equal(s.item[3].text, "conf.d/b.yaml");
}

static void an_empty_file_has_a_text(void **state)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	_cleanup_(sl_diags_done) struct sl_diags d = { 0 };
	struct lab *lab = *state;

	put(lab, "main.yaml", "", 0);
	assert_int_equal(sl_conf_sources_load(path_in(lab, "main.yaml"), &s, &d), 0);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.item[0].len, 0);
	assert_string_equal(s.item[0].text, "");
}

static void check_refused(const char *path, int want, const char *text)
{
	struct sl_conf_sources s = { .n = 77 };
	_cleanup_(sl_diags_done) struct sl_diags d = { 0 };

	assert_int_equal(sl_conf_sources_load(path, &s, &d), want);
	assert_int_equal(s.n, 77);
	assert_int_equal(d.n_errors, 1);
	if (!strstr(sl_str_text(&d.text), text))
		fail_msg("want %s, got %s", text, sl_str_text(&d.text));
}

static void unreadable_files_are_named(void **state)
{
	struct lab *lab = *state;

	check_refused(path_in(lab, "nosuch"), -ENOENT, "nosuch: error: there is no such file");
	check_refused(lab->dir, -EISDIR, ": error: this is a directory, a file is expected");
	put(lab, "main.yaml", "version: 1\n", 11);
	assert_int_equal(truncate(path_in(lab, "main.yaml"), (16 << 20) + 1), 0);
	check_refused(path_in(lab, "main.yaml"), -EFBIG, "main.yaml: error: larger than 16 MiB");
	check_refused("/dev/zero", -EFBIG, "/dev/zero: error: larger than 16 MiB");
}

static void unreadable_neighbours_are_named(void **state)
{
	struct lab *lab = *state;
	char main_path[128];

	strcpy(main_path, path_in(lab, "main.yaml"));
	put(lab, "main.yaml", "version: 1\n", 11);
	put(lab, "conf.d", "", 0);
	check_refused(main_path, -ENOTDIR, "conf.d: error: cannot be read: Not a directory");
	assert_int_equal(unlink(path_in(lab, "conf.d")), 0);
	assert_int_equal(mkdir(path_in(lab, "conf.d"), 0700), 0);
	assert_int_equal(symlink("nowhere", path_in(lab, "conf.d/a.yaml")), 0);
	check_refused(main_path, -ENOENT, "conf.d/a.yaml: error: there is no such file");
	assert_int_equal(unlink(path_in(lab, "conf.d/a.yaml")), 0);
	assert_int_equal(mkfifo(path_in(lab, "conf.d/a.yaml"), 0600), 0);
	check_refused(main_path, -ENXIO, "conf.d/a.yaml: error: this is a socket or a device");
}

/* What a shell's <(...) and a supervisor's memfd give. */
static void a_descriptor_has_no_neighbours(void **state)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	_cleanup_(sl_diags_done) struct sl_diags d = { 0 };
	char path[64];
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(write(fd[1], "version: 1\n", 11), 11);
	assert_int_equal(close(fd[1]), 0);
	(void)snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
	assert_int_equal(sl_conf_sources_load(path, &s, &d), 0);
	assert_int_equal(s.n, 1);
	assert_string_equal(s.item[0].text, "version: 1\n");
	assert_int_equal(close(fd[0]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(files_in_name_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_empty_file_has_a_text, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unreadable_files_are_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unreadable_neighbours_are_named, set_up, tear_down),
		cmocka_unit_test(a_descriptor_has_no_neighbours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a proxy process may send as a change, what lies in state_dir/changes, and the list both lead
 * to: the first byte says which. What is accepted must come out the same after another round.
 */
#include <assert.h>

#include "../../userspace/ctl/changes.c"
#undef VERSION
#define fill changes_fill
#define done changes_done
#define copy overlay_copy
#define write_all overlay_write_all
#define read_all overlay_read_all
#include "../../userspace/daemon/overlay.c"
#undef write_all
#undef read_all
#include "../../userspace/daemon/bundle.c"

static void check_change(const uint8_t *bytes, size_t n)
{
	_cleanup_(sl_overlay_change_done) struct sl_overlay_change c = { 0 };
	_cleanup_(sl_str_done) struct sl_str again = { 0 };
	struct sl_ctl_change asked;

	if (sl_overlay_decode(bytes, n, &c) < 0)
		return;
	asked = (struct sl_ctl_change){ .kind = c.kind,
					.undo = c.undo,
					.keep = c.keep,
					.subject = c.subject,
					.text = { c.text, c.len } };
	sl_overlay_encode(&asked, &again);
	assert(again.len == n && memcmp(again.p, bytes, n) == 0);
	/* a strict prefix is never a change */
	for (size_t cut = 0; cut < n && cut < 200; cut++) {
		struct sl_overlay_change none = { 0 };

		assert(sl_overlay_decode(bytes, cut, &none) == -EBADMSG);
	}
}

static void check_document(const uint8_t *bytes, size_t n)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources again = { 0 };
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	if (sl_changes_read((struct sl_slice){ (const char *)bytes, n }, &s, &why) < 0) {
		assert(why.len > 0);
		return;
	}
	for (size_t i = 0; i < s.n; i++)
		assert(sl_changes_fit(s.item[i].kind, s.item[i].subject, s.item[i].len));
	sl_changes_write(&text, &s, false);
	assert(sl_changes_read((struct sl_slice){ text.p, text.len }, &again, &why) == 0);
	assert(again.n == s.n && sl_overlay_keeps_same(&s, &again));
}

/* One operation per three bytes, on four routes and four targets. */
static void check_list(const uint8_t *bytes, size_t n)
{
	static const char *const names[] = { "a", "b", "c", "" };
	static const char *const texts[] = { "x:1", "x:2", "x:3", "x:4" };
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };

	for (; n >= 3 && s.n < 1000; bytes += 3, n -= 3) {
		struct sl_overlay_change c = { .kind = (enum sl_source_kind)(bytes[0] %
									     SL_SOURCE_KIND_COUNT_),
					       .keep = bytes[0] & 0x80,
					       .subject = (char *)names[bytes[1] % 4],
					       .text = (char *)"" };
		size_t at;

		if (c.kind == SL_SOURCE_ROUTE || c.kind == SL_SOURCE_DRAIN)
			c.text = (char *)texts[bytes[2] % 4];
		c.len = strlen(c.text);
		(void)sl_overlay_drop(&s, &c, &at);
		if (!(bytes[0] & 0x40) && sl_changes_fit(c.kind, c.subject, c.len))
			assert(sl_overlay_put(&s, &c, at) == 0);
		assert(s.n <= 3 * 2 + 4 * 4); /* compact */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	if (n == 0)
		return 0;
	if (bytes[0] == 'C')
		check_change(bytes + 1, n - 1);
	else if (bytes[0] == 'L')
		check_list(bytes + 1, n - 1);
	else
		check_document(bytes, n);
	return 0;
}

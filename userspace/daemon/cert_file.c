/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/cert_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a file that is being written to, until it is the same before and after. */
#define TRIES 3
#define OTHERS (S_IROTH | S_IWOTH | S_IXOTH)

static int64_t ns_of(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct sl_cert_file_id id_of(const struct stat *st)
{
	return (struct sl_cert_file_id){ .dev = st->st_dev,
					 .ino = st->st_ino,
					 .mode = st->st_mode,
					 .size = st->st_size,
					 .mtime_ns = ns_of(st->st_mtim),
					 .ctime_ns = ns_of(st->st_ctim) };
}

struct sl_cert_file_id sl_cert_file_look(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? (struct sl_cert_file_id){ .err = -errno } : id_of(&st);
}

bool sl_cert_file_is_same(const struct sl_cert_file_id *a, const struct sl_cert_file_id *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->mode == b->mode && a->size == b->size &&
	       a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns && a->err == b->err;
}

void sl_cert_file_done(struct sl_cert_file *file)
{
	if (file->bytes)
		explicit_bzero(file->bytes, file->len);
	free(file->bytes);
	file->bytes = NULL;
	file->len = 0;
}

static int refuse_errno(int err, struct sl_str *why)
{
	if (err == -ENOENT)
		sl_str_adds(why, "there is no such file");
	else if (err == -EACCES || err == -EPERM)
		sl_str_adds(why, "no permission to read it");
	else
		sl_str_addf(why, "cannot be read: %s", strerrordesc_np(-err));
	return err == -EPERM ? -EACCES : err;
}

static int look_at(int fd, struct stat *ret, struct sl_str *why)
{
	if (fstat(fd, ret) < 0)
		return refuse_errno(-errno, why);
	if (!S_ISREG(ret->st_mode)) {
		sl_str_adds(why, "is no regular file");
		return -EINVAL;
	}
	if (ret->st_size > SL_CERT_FILE_MAX) {
		sl_str_adds(why, "is larger than 1 MiB");
		return -EFBIG;
	}
	return 0;
}

/* As many bytes as there were, or as there are now if those are fewer. */
static int read_bytes(int fd, size_t n, struct sl_cert_file *file)
{
	size_t len = 0;

	file->bytes = malloc(n + 1);
	if (!file->bytes)
		return -ENOMEM;
	while (len < n) {
		ssize_t r = pread(fd, file->bytes + len, n - len, (off_t)len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && len == 0)
			free(SL_TAKE_PTR(file->bytes));
		file->len = len;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		len += (size_t)r;
	}
	file->bytes[len] = '\0';
	file->len = len;
	return 0;
}

/*
 * Where a key may be, but need not: `key` may have been forgotten, or may name a certificate, and
 * neither is a secret.
 */
static int refuse_open_key(const struct stat *st, const struct sl_cert_file *file,
			   struct sl_str *why)
{
	static const char end[] = "PRIVATE KEY-----";

	if (!(st->st_mode & OTHERS) || !memmem(file->bytes, file->len, end, strlen(end)))
		return 0;
	sl_str_addf(why,
		    "holds a private key, and others may read it (mode %04o): forbid it by "
		    "chmod o=, and think of a new key",
		    (unsigned)(st->st_mode & 07777));
	return -EINVAL;
}

static int read_once(int fd, bool is_key, struct sl_cert_file *ret, struct sl_str *why)
{
	struct sl_cert_file_id after;
	struct stat st = { 0 };
	int r = look_at(fd, &st, why);

	ret->id = id_of(&st);
	if (r < 0)
		return r;
	r = read_bytes(fd, (size_t)st.st_size, ret);
	if (r < 0)
		return refuse_errno(r, why);
	if (fstat(fd, &st) < 0)
		return refuse_errno(-errno, why);
	after = id_of(&st);
	if (!sl_cert_file_is_same(&ret->id, &after))
		return -EAGAIN;
	return is_key ? refuse_open_key(&st, ret, why) : 0;
}

int sl_cert_file_read(const char *path, bool is_key, struct sl_cert_file *ret, struct sl_str *why)
{
	/* Not blocking: a pipe nobody writes to must not stop the supervisor. */
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct sl_cert_file file = { 0 };
	int r = -EAGAIN;

	if (fd < 0) {
		r = refuse_errno(-errno, why);
		ret->id = sl_cert_file_look(path);
		return r;
	}
	for (int i = 0; r == -EAGAIN && i < TRIES; i++) {
		sl_cert_file_done(&file);
		r = read_once(fd, is_key, &file, why);
	}
	if (r == -EAGAIN)
		sl_str_adds(why, "is being written to");
	if (r < 0)
		sl_cert_file_done(&file);
	*ret = file;
	return r;
}

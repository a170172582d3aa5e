/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/memfd.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int sl_write_all(int fd, const void *bytes, size_t n)
{
	const char *p = bytes;

	while (n > 0) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

int sl_memfd_new(const char *name, const void *bytes, size_t n, int *ret_fd)
{
	_cleanup_fd_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return -errno;
	r = sl_write_all(fd, bytes, n);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, SL_SEALS) < 0)
		return -errno;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

static int read_at(int fd, char *p, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = pread(fd, p + done, n - done, (off_t)done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -EBADMSG;
		done += (size_t)r;
	}
	return 0;
}

int sl_memfd_read(int fd, size_t max, char **ret, size_t *ret_len)
{
	_cleanup_free_ char *p = NULL;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	int r;

	if (seals < 0 || (seals & SL_SEALS) != SL_SEALS)
		return -EPERM;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size > max)
		return -EFBIG;
	p = malloc((size_t)st.st_size + 1);
	if (!p)
		return -ENOMEM;
	r = read_at(fd, p, (size_t)st.st_size);
	if (r < 0)
		return r;
	p[st.st_size] = '\0';
	*ret = SL_TAKE_PTR(p);
	*ret_len = (size_t)st.st_size;
	return 0;
}

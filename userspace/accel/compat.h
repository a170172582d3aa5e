/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_COMPAT_H
#define SL_ACCEL_COMPAT_H

#include <bpf/bpf.h>

/*
 * What the kernel may know although the headers and the libbpf of Debian 12 (1.1) do not:
 * tcx links, Linux 6.6. Values are those of include/uapi/linux/bpf.h.
 */
#define SL_BPF_TCX_INGRESS ((enum bpf_attach_type)46)
#define SL_BPF_LINK_TYPE_TCX 11

/* An older kernel answers EINVAL. */
static inline int sl_compat_tcx_attach(int prog_fd, int ifindex)
{
	return bpf_link_create(prog_fd, ifindex, SL_BPF_TCX_INGRESS, NULL);
}

/* 0 once the device is gone. bpf_link_info.tcx begins as .netns does: with 32 bits. */
static inline unsigned sl_compat_tcx_ifindex(const struct bpf_link_info *info)
{
	return info->netns.netns_ino;
}

#endif

/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_KERNEL_H
#define SL_BPF_PACKET_KERNEL_H

/*
 * Of the kernel's own structures the fields that are read, in any order: the loader puts in
 * where the running kernel has them. No copy of a whole kernel's types is needed to build.
 */
#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net_device {
	int ifindex;
};

struct dst_entry {
	struct net_device *dev;
	short obsolete;
};

struct sock_common {
	unsigned char skc_state;
	struct {
		__s64 counter;
	} skc_cookie;
};

struct sock {
	struct sock_common __sk_common;
	struct {
		int len;
	} sk_backlog;
	struct dst_entry *sk_dst_cache;
	int sk_rx_dst_ifindex;
	int sk_wmem_queued;
	int sk_sndbuf;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct rb_node;

struct rb_root {
	struct rb_node *rb_node;
};

struct tcp_options_received {
	__u32 ts_recent;
	__u32 rcv_tsecr;
};

struct tcp_md5sig_info;
struct tcp_ao_info;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 rcv_wup;
	__u32 rcv_wnd;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
	__u16 urg_data;
	struct tcp_options_received rx_opt;
	struct rb_root out_of_order_queue;
	struct tcp_md5sig_info *md5sig_info; /* CONFIG_TCP_MD5SIG */
	struct tcp_ao_info *ao_info;         /* CONFIG_TCP_AO, since 6.7 */
};

#pragma clang attribute pop

#endif

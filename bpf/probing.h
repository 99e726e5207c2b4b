/* SPDX-License-Identifier: GPL-2.0 */
/* Reaching out that no connect tells of: packets of ping and raw sockets, and tries that came to nothing. */
#ifndef KS_PROBING_H
#define KS_PROBING_H

#include "maker.h"
#include <bpf/bpf_endian.h>

#define SOCK_RAW 3
#ifndef AF_INET
#define AF_INET 2
#endif
#define AF_INET6 10
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58
#define ECHO_REQUEST 8
#define ECHO_REQUEST_V6 128

/* Who made the socket, as far as that was noted: packets and answers come while quite another task runs. */
static __always_inline void fill_maker(struct socket_event *e, struct workload *w, enum event_kind kind,
				       struct wire_maker *maker)
{
	e->header.time_ns = bpf_ktime_get_ns();
	e->header.workload = w->cgroup_id;
	e->header.cgroup_id = w->cgroup_id;
	e->header.kind = kind;
	if (!maker)
		return;
	e->header.cgroup_id = maker->cgroup_id ? maker->cgroup_id : w->cgroup_id;
	e->header.pid = maker->pid;
	e->header.start_ticks = maker->program.start_ticks;
	e->uid = maker->uid;
	__builtin_memcpy(e->comm, maker->comm, sizeof(e->comm));
}

/* Was this address tried by this workload just now? A flood of packets must not be a flood of events. */
static __always_inline bool probed_lately(struct socket_event *e, u32 slot)
{
	struct sendmsg_key key = {.pid = slot | 0x80000000u, .port = e->port, .family = e->family};
	u64 *last;

	__builtin_memcpy(key.address, e->address, sizeof(key.address));
	last = bpf_map_lookup_elem(&sendmsg_seen, &key);
	if (last && e->header.time_ns - *last < SENDMSG_QUIET_NS)
		return true;
	bpf_map_update_elem(&sendmsg_seen, &key, &e->header.time_ns, BPF_ANY);
	return false;
}

/* Addresses and, of a packet that begins something, the port. False: nothing that is a try (an answer, an error). */
static __always_inline bool find_target(struct __sk_buff *skb, struct socket_event *e)
{
	u8 h[40] = {}, t[14] = {};
	u32 at = 40;

	if (bpf_skb_load_bytes(skb, 0, h, 20))
		return false;
	if (h[0] >> 4 == 4) {
		e->family = AF_INET;
		e->protocol = h[9];
		__builtin_memcpy(e->address, h + 16, 4);
		at = (h[0] & 15) * 4;
	} else {
		if (bpf_skb_load_bytes(skb, 0, h, 40))
			return false;
		e->family = AF_INET6;
		e->protocol = h[6];
		__builtin_memcpy(e->address, h + 24, 16);
	}
	if (bpf_skb_load_bytes(skb, at, t, 4))
		return true; /* too short to say: an address was sent to */
	if (e->protocol == PROTOCOL_ICMP)
		return t[0] == ECHO_REQUEST || t[0] == 13 || t[0] == 15 || t[0] == 17; /* timestamp, information, mask */
	if (e->protocol == PROTOCOL_ICMPV6)
		return t[0] == ECHO_REQUEST_V6;
	if (e->protocol == PROTOCOL_TCP || e->protocol == PROTOCOL_UDP)
		e->port = t[2] << 8 | t[3];
	return true;
}

/* A function of its own, for the stack that it needs: there is little left under the judging of packets. */
__weak __noinline int tell_raw_packet(struct __sk_buff *skb, u32 slot)
{
	struct workload *w = workload_at(slot);
	struct bpf_sock *sk = skb->sk;
	struct socket_event e = {};

	if (!w || !sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || !find_target(skb, &e))
		return 0;
	fill_maker(&e, w, EVENT_CONNECT, bpf_sk_storage_get(&wire_makers, sk, NULL, 0));
	e.operation = OPERATION_PACKET;
	if (!probed_lately(&e, slot))
		send_flow(slot, &e, sizeof(e));
	return 0;
}

/* A packet that no connect or sendmsg has told of: of a ping socket, or of a raw one. */
static __always_inline void note_raw_packet(struct __sk_buff *skb, u32 slot)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (sk && (sk->type == SOCK_RAW || sk->protocol == PROTOCOL_ICMP || sk->protocol == PROTOCOL_ICMPV6))
		tell_raw_packet(skb, slot);
}

/* A connection that was tried and did not come about: refused, unreachable, timed out, or given up. */
static __always_inline void note_unanswered(struct bpf_sock_ops *ctx, struct workload *w, u32 slot)
{
	struct socket_event e = {};
	u32 *word = (u32 *)e.address;
	struct bpf_sock *sk = ctx->sk;

	fill_maker(&e, w, EVENT_UNANSWERED, sk ? bpf_sk_storage_get(&wire_makers, sk, NULL, 0) : NULL);
	e.family = ctx->family;
	e.protocol = PROTOCOL_TCP;
	e.port = bpf_ntohl(ctx->remote_port);
	e.operation = OPERATION_CONNECT;
	if (e.family == AF_INET) {
		word[0] = ctx->remote_ip4;
	} else {
		word[0] = ctx->remote_ip6[0];
		word[1] = ctx->remote_ip6[1];
		word[2] = ctx->remote_ip6[2];
		word[3] = ctx->remote_ip6[3];
	}
	send_flow(slot, &e, sizeof(e));
}

#endif

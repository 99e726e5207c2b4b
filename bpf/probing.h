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

/* The networks that fan-out is counted in, but for those kept for documents. The twin of is_internal in killswitch/detect/reach.py. */
static __always_inline bool is_internal(const u8 *a, u8 family)
{
	if (family == AF_INET)
		return a[0] == 10 || (a[0] == 172 && (a[1] & 0xf0) == 16) || (a[0] == 192 && a[1] == 168) ||
		       (a[0] == 169 && a[1] == 254) || (a[0] == 100 && (a[1] & 0xc0) == 64) ||
		       (a[0] == 198 && (a[1] & 0xfe) == 18) || a[0] >= 240;
	return (a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80);
}

static __always_inline void fill_asked(struct sendmsg_key *key, struct socket_event *e, u32 slot)
{
	__builtin_memcpy(key->address, e->address, sizeof(key->address));
	key->pid = slot;
	key->port = e->port;
	key->family = e->family;
}

/* A datagram to the inside was told of: when one comes back, that is told as well. */
static __always_inline void note_asked(struct socket_event *e, u32 slot)
{
	struct sendmsg_key key = {};

	if (e->protocol != PROTOCOL_UDP || !is_internal(e->address, e->family))
		return;
	fill_asked(&key, e, slot);
	bpf_map_update_elem(&asked, &key, &e->header.time_ns, BPF_ANY);
}

/* A function of its own, for the stack that it needs. */
__weak __noinline int tell_answer(struct __sk_buff *skb, u32 slot)
{
	struct workload *w = workload_at(slot);
	struct bpf_sock *sk = skb->sk;
	struct socket_event e = {};
	struct sendmsg_key key = {};
	u8 h[24] = {}, t[2] = {};
	u32 at = 40;

	if (!w || !sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || bpf_skb_load_bytes(skb, 0, h, sizeof(h)))
		return 0;
	if (h[0] >> 4 == 4) {
		e.family = AF_INET;
		__builtin_memcpy(e.address, h + 12, 4);
		at = (h[0] & 15) * 4;
	} else {
		e.family = AF_INET6;
		__builtin_memcpy(e.address, h + 8, 16);
	}
	if (!is_internal(e.address, e.family) || bpf_skb_load_bytes(skb, at, t, sizeof(t)))
		return 0;
	e.protocol = PROTOCOL_UDP;
	e.port = t[0] << 8 | t[1];
	fill_asked(&key, &e, slot);
	if (!bpf_map_lookup_elem(&asked, &key))
		return 0;
	bpf_map_delete_elem(&asked, &key);
	fill_maker(&e, w, EVENT_ANSWERED, bpf_sk_storage_get(&wire_makers, sk, NULL, 0));
	e.operation = OPERATION_SENDMSG;
	send_flow(slot, &e, sizeof(e));
	return 0;
}

/* A datagram that comes in from where one was sent to. */
static __always_inline void note_answer(struct __sk_buff *skb, u32 slot)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (sk && sk->protocol == PROTOCOL_UDP)
		tell_answer(skb, slot);
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

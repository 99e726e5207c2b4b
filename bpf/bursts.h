/* SPDX-License-Identifier: GPL-2.0 */
/* What goes over each connection that a workload has made: bytes each way, and its last bursts. A burst is payload one way,
 * until some goes the other way, nothing comes for a while, or it has lasted long. Counted in the packet's path, read by
 * user space now and then: no event a packet.
 *
 * Each direction writes its own half, so no lock: a burst that two CPUs count at one time may lose a packet. */
#ifndef KS_BURSTS_H
#define KS_BURSTS_H

#include "traffic.h"
#include "wire.h"

#define BURST_GAP_NS 10000000ull
#define BURST_SPAN_NS 100000000ull
#define IPPROTO_UDP 17
#define TCP_FIN 0x01
#define TCP_RST 0x04
#define WINDOW_MOST (1 << 26) /* bytes that may lie ahead of what is awaited: more than a window is, by far */

/* The addresses as they came to be: a connection to 0.0.0.0 is one to this host. */
static __always_inline void note_ends(struct __sk_buff *skb, struct traffic *t)
{
	u32 *local = (u32 *)t->local, *remote = (u32 *)t->remote;
	struct bpf_sock *sk = skb->sk;

	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	if (!sk || !sk->src_port)
		return;
	t->local_port = sk->src_port;
	if (t->family == AF_INET) {
		local[0] = sk->src_ip4;
		if (sk->dst_port)
			remote[0] = sk->dst_ip4;
		return;
	}
	local[0] = sk->src_ip6[0];
	local[1] = sk->src_ip6[1];
	local[2] = sk->src_ip6[2];
	local[3] = sk->src_ip6[3];
	if (sk->dst_port) {
		remote[0] = sk->dst_ip6[0];
		remote[1] = sk->dst_ip6[1];
		remote[2] = sk->dst_ip6[2];
		remote[3] = sk->dst_ip6[3];
	}
}

/* Which byte the connection waits for from the far side. Anybody may send it segments, and it refuses those that do not fit:
 * their numbers must not be believed here. False while there is no such byte: it has not been answered yet. */
static __always_inline bool awaited(struct __sk_buff *skb, u32 *seq)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp;

	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	if (!sk || sk->state == BPF_TCP_SYN_SENT)
		return false;
	tcp = bpf_tcp_sock(sk);
	if (!tcp)
		return false;
	*seq = tcp->rcv_nxt;
	return true;
}

/* Payload that has not been counted before. Notes how the connection ends. */
static __always_inline u32 fresh_payload(struct __sk_buff *skb, struct traffic *t, struct traffic_way *way, u32 direction)
{
	u8 protocol = 0, h[16];
	u32 at = first_header(skb, &protocol), seq, end, len, start, next = 0;
	bool known;
	s32 ahead;

	if (!at || protocol != t->protocol)
		return 0;
	if (protocol == IPPROTO_UDP)
		return skb->len > at + 8 ? skb->len - at - 8 : 0;
	if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, at, h, sizeof(h)))
		return 0;
	seq = (u32)h[4] << 24 | (u32)h[5] << 16 | (u32)h[6] << 8 | h[7];
	start = at + (h[12] >> 4) * 4;
	len = skb->len > start ? skb->len - start : 0;
	end = seq + len;
	known = direction == WIRE_RECEIVED && awaited(skb, &next);
	if (known && ((s32)(seq - next) > WINDOW_MOST || (s32)(next - seq) > WINDOW_MOST))
		return 0;
	if (h[13] & TCP_RST && (!known || seq == next))
		t->reset = 1;
	if (h[13] & TCP_FIN)
		way->finished = 1;
	if (!len)
		return 0;
	if (known) { /* what comes out of order is counted as it comes */
		ahead = end - next;
	} else {
		ahead = end - way->next_seq;
		if (!way->bytes)
			ahead = len;
	}
	if (ahead <= 0)
		return 0; /* sent, or come, again */
	if ((u32)ahead < len)
		len = ahead;
	way->next_seq = end;
	return len;
}

/* `direction` is a constant. */
static __always_inline void note_traffic(struct __sk_buff *skb, u32 direction)
{
	u64 cookie = bpf_get_socket_cookie(skb), now;
	struct traffic *t = bpf_map_lookup_elem(&traffic, &cookie);
	struct traffic_way *way, *other;
	struct traffic_burst *burst;
	u32 len;

	if (!t)
		return;
	way = &t->way[direction];
	other = &t->way[!direction];
	if (!t->local_port)
		note_ends(skb, t);
	len = fresh_payload(skb, t, way, direction);
	if (!len && !t->reset && !way->finished)
		return;
	now = bpf_ktime_get_ns();
	t->last_ns = now;
	mark_activity(now);
	if (!len)
		return;
	burst = &way->burst[(way->bursts - 1) & (TRAFFIC_BURSTS - 1)];
	if (!way->bursts || now - way->last_ns > BURST_GAP_NS || other->last_ns > way->last_ns ||
	    now - burst->began_ns > BURST_SPAN_NS) {
		burst = &way->burst[way->bursts & (TRAFFIC_BURSTS - 1)];
		burst->began_ns = now;
		burst->bytes = 0;
		burst->packets = 0;
		way->bursts++;
	}
	burst->bytes += len;
	burst->packets++;
	burst->span_us = (now - burst->began_ns) / 1000;
	way->bytes += len;
	way->last_ns = now;
}

#endif

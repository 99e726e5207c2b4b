/* SPDX-License-Identifier: GPL-2.0 */
/* Whose a packet is, and where its bytes lie. */
#ifndef KS_FLOW_H
#define KS_FLOW_H

#include "maker.h"
#include <bpf/bpf_endian.h>

#define ACCEPTS 0x8000 /* in a next-state entry: the state that it names accepts something */
#define NO_CLAUSE (-1)
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define TCP_SYN 0x02
#define UDP_HEADER 8
#define IPV6_EXTENSIONS 6 /* more than a packet may honestly have */

/* Bits of a flow that are set here and not by the tables: killswitch/commands.py names them. */
#define BIT_OUTBOUND 4
#define BIT_UDP 5
#define BIT_DNS 6
#define BIT_TLS 7

/* Where a TCP segment's bytes lie in the packet. */
struct segment {
	u32 at;
	u32 len;
	u32 seq; /* of the first byte */
	u8 syn;
};

/* The socket of a packet. The verifier looks at global functions by themselves, and those take no pointer but the
 * packet: so each finds its socket and what is known of it anew. */
static __always_inline struct bpf_sock *socket_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	return sk ? bpf_sk_fullsock(sk) : NULL;
}

static __always_inline struct wire_flow *flow_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = socket_of(skb);

	return sk ? bpf_sk_storage_get(&wire_flows, sk, NULL, 0) : NULL;
}

/* n, which is 1..limit (a power of two), in a form that says so. The compiler knows it and would leave it out; verifiers
 * before 6.12 learn nothing from a comparison with 0, and refuse a size that might be 0. */
static __always_inline u32 at_least_one(u32 n, u32 limit)
{
	n -= 1;
	barrier_var(n);
	return (n & (limit - 1)) + 1;
}

static __always_inline u32 first_header(struct __sk_buff *skb, u8 *protocol)
{
	u8 h[20], next[2];
	u32 at;

	if (bpf_skb_load_bytes(skb, 0, h, 20))
		return 0;
	if (h[0] >> 4 == 4) {
		*protocol = (h[6] & 0x1f) | h[7] ? 0 : h[9]; /* a later fragment has no header */
		return (h[0] & 15) * 4;
	}
	*protocol = h[6];
	at = 40;
	for (int i = 0; i < IPV6_EXTENSIONS; i++) {
		if (*protocol != 0 && *protocol != 43 && *protocol != 60) /* hop-by-hop, routing, destination */
			break;
		if (bpf_skb_load_bytes(skb, at, next, 2))
			return 0;
		*protocol = next[0];
		at += (next[1] + 1) * 8;
	}
	return at;
}

static __always_inline bool find_segment(struct __sk_buff *skb, struct segment *found)
{
	u8 protocol = 0, h[20];
	u32 at = first_header(skb, &protocol);

	if (!at || protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, at, h, sizeof(h)))
		return false;
	found->syn = h[13] & TCP_SYN;
	found->seq = ((u32)h[4] << 24 | (u32)h[5] << 16 | (u32)h[6] << 8 | h[7]) + !!found->syn;
	found->at = at + (h[12] >> 4) * 4;
	found->len = skb->len > found->at ? skb->len - found->at : 0;
	return true;
}

/* Where a datagram's bytes begin, 0 = there are none. */
static __always_inline u32 find_datagram(struct __sk_buff *skb)
{
	u8 protocol = 0;
	u32 at = first_header(skb, &protocol);

	if (!at || protocol != IPPROTO_UDP || skb->len <= at + UDP_HEADER)
		return 0;
	return at + UDP_HEADER;
}

/* The next state, without what it accepts. State 0 is dead. `base`: the half in force. */
static __always_inline u32 next_state(u32 base, u32 state, u8 byte)
{
	u32 key = base + state;
	struct dfa_row *row = bpf_map_lookup_elem(&dfa_rows, &key);

	return row ? row->next[byte] & (ACCEPTS - 1) : 0;
}

/* What a state accepts. */
static __always_inline void add_accepted(struct predicate_set *bits, u32 base, u32 state)
{
	u32 key = base + (state & (ACCEPTS - 1));
	struct predicate_set *accepted = bpf_map_lookup_elem(&dfa_accepts, &key);

	for (int w = 0; accepted && w < PREDICATE_WORDS; w++)
		bits->word[w] |= accepted->word[w];
}

#endif

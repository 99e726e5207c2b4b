/* SPDX-License-Identifier: GPL-2.0 */
/* The first bytes of a flow, judged before they go through: walked through the policy's table as they come, however they
 * are cut into segments. Only so many of each direction; after that a flag says that it is done.
 *
 * No buffer a CPU here: a packet program may be interrupted by the next. What is kept of a TCP flow lies in the socket's
 * own storage, where the socket's lock lets one sender at a time write. (And not on the stack: the verifier tells states
 * apart by what lies there, and would not come to an end.) */
#ifndef KS_WIRE_H
#define KS_WIRE_H

#include "datagram.h"

/* At most WIRE_CHUNK bytes of the packet. `base`: the half in force. */
__attribute__((noinline)) int walk_chunk(struct __sk_buff *skb, u32 at, u32 len, u32 base, u32 direction)
{
	struct wire_flow *flow = flow_of(skb);
	struct wire_walk *walk;
	u32 state;

	if (!flow || direction >= WIRE_DIRECTIONS)
		return 0;
	walk = &flow->walk[direction];
	if (len > WIRE_CHUNK)
		len = WIRE_CHUNK;
	if (!len || bpf_skb_load_bytes(skb, at, walk->chunk, at_least_one(len, WIRE_CHUNK)))
		return 0;
	state = walk->state;
	for (u32 i = 0; i < WIRE_CHUNK; i++) {
		struct predicate_set *accepted;
		struct dfa_row *row;
		u32 key = base + state;
		u16 next;

		if (i >= len)
			break;
		row = bpf_map_lookup_elem(&dfa_rows, &key);
		if (!row)
			break;
		next = row->next[walk->chunk[i]];
		state = next & (ACCEPTS - 1);
		if (next & ACCEPTS) {
			key = base + state;
			accepted = bpf_map_lookup_elem(&dfa_accepts, &key);
			for (int w = 0; accepted && w < PREDICATE_WORDS; w++)
				walk->bits.word[w] |= accepted->word[w];
		}
		if (!state)
			break;
	}
	walk->state = state;
	return 0;
}

/* Does the flow begin here, that way, as far as it is watched? Who sends does so in order, so what is seen first is the first.
 * What is received may come out of order. A socket that is older than the watching is taken over at its next byte. */
static __always_inline bool begins(struct bpf_sock *sk, struct segment *s, u32 direction)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	return tcp && (direction == WIRE_SENT || s->seq == tcp->rcv_nxt);
}

/* Something went that way before: of the connection, a SYN counts as a byte. */
static __always_inline bool has_begun(struct bpf_sock *sk, u32 direction)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	return tcp && (direction == WIRE_SENT ? tcp->bytes_acked > 1 : tcp->bytes_received > 0);
}

/* Cuts off what has been walked before. False when there is a gap: the bytes before these are not yet here. */
static __always_inline bool take_up(struct wire_walk *walk, struct segment *s)
{
	s32 ahead = s->seq - walk->next_seq;
	u32 known;

	if (ahead > 0)
		return false;
	known = -ahead;
	if (known > s->len)
		known = s->len;
	s->at += known;
	s->len -= known;
	s->seq += known;
	return true;
}

static __always_inline void keep(struct __sk_buff *skb, struct wire_flow *flow, u32 direction, u32 at, u32 n)
{
	u32 from = flow->walk[direction].walked;

	if (from >= WIRE_KEPT)
		return;
	if (n > WIRE_KEPT - from)
		n = WIRE_KEPT - from;
	barrier_var(from); /* as in at_least_one */
	from &= WIRE_KEPT - 1;
	if (n)
		bpf_skb_load_bytes(skb, at, &flow->kept[direction][from], at_least_one(n, WIRE_KEPT));
}

/* Walks what the segment brings. */
static __always_inline void walk_segment(struct __sk_buff *skb, struct wire_flow *flow, struct segment *s, u32 base,
					 u32 direction)
{
	struct wire_walk *walk = &flow->walk[direction];
	u32 len = s->len;

	if (!walk->over) {
		if (len > WIRE_WINDOW - walk->walked)
			len = WIRE_WINDOW - walk->walked;
		for (u32 from = 0; from < WIRE_WINDOW; from += WIRE_CHUNK) {
			if (from >= len || !walk->state)
				break;
			walk_chunk(skb, s->at + from, len - from, base, direction);
		}
		keep(skb, flow, direction, s->at, len);
		walk->walked += len;
		walk->over = walk->walked >= WIRE_WINDOW || !walk->state;
	}
	if (direction == WIRE_SENT)
		follow_names(skb, s->at, s->len, base);
	walk->next_seq = s->seq + s->len;
	walk->done = walk->over && (direction != WIRE_SENT || flow->names.over);
}

/* The first byte of the flow that is seen that way. False when one before it is still to come. */
static __always_inline bool begin(struct bpf_sock *sk, struct wire_flow *flow, struct policy_meta *meta, struct segment *s,
				  u32 slot, u32 direction)
{
	struct wire_walk *walk = &flow->walk[direction];

	if (!begins(sk, s, direction))
		return false;
	if (has_begun(sk, direction))
		count_loss(slot, LOST_WIRE_UNJUDGED); /* the bytes before */
	walk->begun = 1;
	walk->next_seq = s->seq;
	walk->state = direction == WIRE_SENT ? meta->start_sent : meta->start_received;
	walk->over = !walk->state;
	if (direction == WIRE_SENT) {
		flow->names.start = meta->start_host;
		flow->names.over = !(meta->start_host | (meta->told_bits.word[0] & (1 << BIT_DNS | 1 << BIT_TLS)));
	}
	walk->done = walk->over && (direction != WIRE_SENT || flow->names.over);
	if (!flow->generation)
		flow->generation = meta->generation;
	return true;
}

/* Whether the segment may go through. `direction` is a constant. */
static __always_inline bool judge_segment(struct __sk_buff *skb, struct bpf_sock *sk, struct policy_meta *meta, u32 half,
					  u32 slot, u32 direction)
{
	struct wire_flow *flow = bpf_sk_storage_get(&wire_flows, sk, NULL, 0);
	struct predicate_set *sent, *received;
	struct segment s = {};
	struct wire_walk *walk;
	u64 before[PREDICATE_WORDS], fresh = 0;
	u32 acts;

	if (flow) {
		if (flow->denied)
			return false;
		if (flow->walk[direction].done)
			return true;
	}
	if (!find_segment(skb, &s) || !s.len)
		return true;
	skb->cb[CB_ENTERED] = bpf_ktime_get_ns();
	if (!flow)
		flow = bpf_sk_storage_get(&wire_flows, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!flow) {
		count_loss(slot, LOST_WIRE_UNJUDGED);
		return true;
	}
	walk = &flow->walk[direction];
	if ((!walk->begun && !begin(sk, flow, meta, &s, slot, direction)) ||
	    flow->generation != meta->generation) { /* its states are of tables that are gone */
		walk->done = 1;
		count_loss(slot, LOST_WIRE_UNJUDGED);
		return true;
	}
	if (walk->done)
		return true;
	if (!take_up(walk, &s))
		return false; /* it comes again, after the bytes before it */
	if (!s.len)
		return true;
	for (int i = 0; i < PREDICATE_WORDS; i++)
		before[i] = walk->bits.word[i];
	walk_segment(skb, flow, &s, half * MAX_STATES, direction);
	if (direction == WIRE_SENT && flow->names.unread) {
		flow->names.unread = 0;
		if (flow->names.kind == NAME_SERVER || bpf_ntohs(sk->dst_port) == DNS_PORT) /* else it is just no query */
			count_loss(slot, LOST_WIRE_UNJUDGED);
	}
	for (int i = 0; i < PREDICATE_WORDS; i++)
		fresh |= walk->bits.word[i] & ~before[i] & meta->told_bits.word[i];
	if (!fresh)
		return true;
	sent = &flow->walk[WIRE_SENT].bits;
	received = &flow->walk[WIRE_RECEIVED].bits;
	skb->cb[CB_KIND] = (direction == WIRE_RECEIVED ? KIND_RECEIVED : 0) | (half ? KIND_HALF : 0);
	acts = decide_flow(skb, sent->word[0] | received->word[0], sent->word[1] | received->word[1],
			   sent->word[2] | received->word[2], sent->word[3] | received->word[3]);
	if (acts & DONE_DENIED)
		flow->denied = 1;
	return !acts;
}

static __always_inline bool judge_datagram(struct __sk_buff *skb, struct policy_meta *meta, u32 half, u32 slot, u32 direction)
{
	u32 kind = KIND_DATAGRAM | (half ? KIND_HALF : 0), at = find_datagram(skb);

	if (!at)
		return true;
	skb->cb[CB_ENTERED] = bpf_ktime_get_ns();
	if (direction == WIRE_RECEIVED)
		return !meta->start_received || !judge_text(skb, at, kind | KIND_RECEIVED, slot);
	if (meta->start_sent && judge_text(skb, at, kind, slot))
		return false;
	return !judge_query(skb, at, kind, slot);
}

/* `direction` is a constant. */
static __always_inline bool judge_packet(struct __sk_buff *skb, u32 direction)
{
	struct policy_meta *meta;
	struct bpf_sock *sk;
	u32 half, slot;

	meta = policy_in_force(&half);
	if (!wire_is_judged(meta))
		return true;
	sk = socket_of(skb);
	if (!sk)
		return true;
	if (!attached_workload(&slot))
		return false;
	if (sk->protocol == IPPROTO_UDP)
		return judge_datagram(skb, meta, half, slot, direction);
	if (sk->protocol != IPPROTO_TCP || sk->state == BPF_TCP_LISTEN)
		return true;
	return judge_segment(skb, sk, meta, half, slot, direction);
}

/* Whether the packet may go through. Functions of their own: or what a program does after it would be verified for each of
 * the ways through it. */
__attribute__((noinline)) int may_leave(struct __sk_buff *skb)
{
	return judge_packet(skb, WIRE_SENT);
}

__attribute__((noinline)) int may_enter(struct __sk_buff *skb)
{
	return judge_packet(skb, WIRE_RECEIVED);
}

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* The first bytes of a flow, judged before they go through: walked through the policy's table as they come, however they
 * are cut into segments. Only so many of each direction; after that a flag says that it is done.
 *
 * No buffer a CPU here: a packet program may be interrupted by the next. All lies in the socket's own storage, where the
 * socket's lock lets one sender at a time write. (And not on the stack: the verifier tells states apart by what lies there,
 * and would not come to an end.) */
#ifndef KS_WIRE_H
#define KS_WIRE_H

#include "maker.h"
#include <bpf/bpf_endian.h>

#define ACCEPTS 0x8000 /* in a next-state entry: the state that it names accepts something */
#define NO_CLAUSE (-1)
#define AF_INET 2
#define IPPROTO_TCP 6
#define TCP_SYN 0x02
#define IPV6_EXTENSIONS 6 /* more than a packet may honestly have */

/* Where a TCP segment's bytes lie in the packet. */
struct segment {
	u32 at;
	u32 len;
	u32 seq; /* of the first byte */
	u8 syn;
};

/* The flow of a packet; NULL when it belongs to no TCP connection. The verifier looks at global functions by themselves,
 * and those take no pointer but the packet: so each finds its flow anew. */
static __always_inline struct bpf_sock *socket_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->protocol == IPPROTO_TCP && sk->state != BPF_TCP_LISTEN ? sk : NULL;
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
	u8 h[40] = {}, next[2];
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

/* The first enforcing clause of the wire that holds, and what all of them want. */
__attribute__((noinline)) int decide_wire(struct __sk_buff *skb, u32 half, u64 policies, u32 direction)
{
	struct wire_flow *flow = flow_of(skb);
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct wire_walk *walk;

	if (!flow || !meta || direction >= WIRE_DIRECTIONS)
		return 0;
	walk = &flow->walk[direction];
	walk->clause = NO_CLAUSE;
	walk->sever = 0;
	walk->deny = 0;
	walk->known = flow->maker.generation == meta->generation;
	for (int i = 0; i < PREDICATE_WORDS; i++) {
		u64 program = ~meta->wire_bits.word[i];

		walk->judged.word[i] = flow->walk[WIRE_SENT].bits.word[i] | flow->walk[WIRE_RECEIVED].bits.word[i];
		if (walk->known)
			walk->judged.word[i] |= flow->maker.bits.word[i] & program;
		walk->unknown.word[i] = walk->known ? 0 : program;
	}
	for (u32 i = 0; i < MAX_CLAUSES; i++) {
		u32 key = half * MAX_CLAUSES + meta->n_clauses + i;
		u64 differs = 0; /* or needs what is not known: then the daemon judges it */
		struct clause *c;

		if (i >= meta->n_wire_clauses)
			break;
		c = bpf_map_lookup_elem(&clauses, &key);
		if (!c)
			break;
		if (!(c->deny | c->sever) || !(policies >> (c->policy & 63) & 1))
			continue;
		for (int w = 0; w < PREDICATE_WORDS; w++) {
			differs |= (walk->judged.word[w] & c->mask.word[w]) ^ c->value.word[w];
			differs |= walk->unknown.word[w] & c->mask.word[w];
		}
		if (differs)
			continue;
		if (walk->clause == NO_CLAUSE)
			walk->clause = i;
		walk->deny |= c->deny;
		walk->sever |= c->sever;
	}
	return 0;
}

/* Is this the flow's first byte that way? Sockets may be older than the watching. */
static __always_inline bool is_first(struct bpf_sock *sk, struct segment *s, u32 direction)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	if (!tcp)
		return false;
	if (direction == WIRE_RECEIVED)
		return tcp->bytes_received == 0 && s->seq == tcp->rcv_nxt;
	/* Who connects has had its SYN acknowledged, which counts as a byte; a SYN may bring bytes with it. */
	return tcp->bytes_acked <= 1 && s->seq == tcp->snd_una + !!s->syn;
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

static __always_inline void keep(struct __sk_buff *skb, struct wire_flow *flow, u32 direction, struct segment *s)
{
	u32 from = flow->walk[direction].walked, n = s->len;

	if (from >= WIRE_KEPT)
		return;
	if (n > WIRE_KEPT - from)
		n = WIRE_KEPT - from;
	barrier_var(from); /* as in at_least_one */
	from &= WIRE_KEPT - 1;
	if (n)
		bpf_skb_load_bytes(skb, s->at, &flow->kept[direction][from], at_least_one(n, WIRE_KEPT));
}

static __always_inline u8 kept_len(struct wire_walk *walk)
{
	return walk->walked > WIRE_KEPT ? WIRE_KEPT : walk->walked;
}

static __always_inline void tell_wire(struct bpf_sock *sk, struct wire_flow *flow, u64 workload, u32 slot, u32 direction,
				      u64 entered)
{
	struct wire_walk *walk = &flow->walk[direction];
	struct wire_event *e = bpf_ringbuf_reserve(&exec_ring, sizeof(*e), 0);
	u32 *word;

	if (!e) {
		count_loss(slot, LOST_EXEC_RING_FULL);
		return;
	}
	*e = (struct wire_event){};
	e->header = (struct event_header){.time_ns = entered, .workload = workload, .cgroup_id = flow->cgroup_id,
		.start_ticks = flow->maker.start_ticks, .pid = flow->pid, .kind = EVENT_WIRE};
	for (int i = 0; i < PREDICATE_WORDS; i++)
		e->predicates[i] = walk->judged.word[i];
	word = (u32 *)e->address;
	if (sk->family == AF_INET) {
		word[0] = sk->dst_ip4;
	} else {
		word[0] = sk->dst_ip6[0];
		word[1] = sk->dst_ip6[1];
		word[2] = sk->dst_ip6[2];
		word[3] = sk->dst_ip6[3];
	}
	__builtin_memcpy(e->comm, flow->comm, sizeof(e->comm));
	e->uid = flow->uid;
	e->clause = walk->clause;
	e->generation = flow->generation;
	e->port = bpf_ntohs(sk->dst_port);
	e->family = sk->family;
	e->protocol = sk->protocol;
	e->direction = direction;
	e->done = (walk->sever ? DONE_SEVERED : 0) | (walk->deny ? DONE_DENIED : 0);
	e->maker_known = walk->known;
	e->sent_len = kept_len(&flow->walk[WIRE_SENT]);
	e->received_len = kept_len(&flow->walk[WIRE_RECEIVED]);
	__builtin_memcpy(e->sent, flow->kept[WIRE_SENT], sizeof(e->sent));
	__builtin_memcpy(e->received, flow->kept[WIRE_RECEIVED], sizeof(e->received));
	e->verdict_ns = bpf_ktime_get_ns() - entered;
	bpf_ringbuf_submit(e, 0);
}

/* Walks what the segment brings. True when it has met a predicate that the flow had not met before. */
static __always_inline bool walk_segment(struct __sk_buff *skb, struct wire_flow *flow, struct segment *s, u32 base,
					 u32 direction)
{
	struct wire_walk *walk = &flow->walk[direction];
	struct predicate_set before = walk->bits;
	u32 len = s->len;
	u64 fresh = 0;

	if (len > WIRE_WINDOW - walk->walked)
		len = WIRE_WINDOW - walk->walked;
	for (u32 from = 0; from < WIRE_WINDOW; from += WIRE_CHUNK) {
		if (from >= len || !walk->state)
			break;
		walk_chunk(skb, s->at + from, len - from, base, direction);
	}
	s->len = len;
	keep(skb, flow, direction, s);
	for (int w = 0; w < PREDICATE_WORDS; w++)
		fresh |= walk->bits.word[w] & ~before.word[w];
	walk->walked += len;
	walk->next_seq = s->seq + len;
	walk->done = walk->walked >= WIRE_WINDOW || !walk->state;
	return fresh != 0;
}

/* Whether the packet may go through. `direction` is a constant. */
static __always_inline bool judge_packet(struct __sk_buff *skb, struct workload *w, u32 slot, u32 direction)
{
	struct policy_meta *meta;
	struct wire_flow *flow;
	struct wire_walk *walk;
	struct segment s = {};
	struct bpf_sock *sk;
	u64 entered;
	u32 half;

	meta = policy_in_force(&half);
	if (!wire_is_judged(meta))
		return true;
	sk = socket_of(skb);
	if (!sk)
		return true;
	flow = bpf_sk_storage_get(&wire_flows, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!flow) {
		count_loss(slot, LOST_WIRE_UNJUDGED);
		return true;
	}
	if (flow->denied)
		return false;
	walk = &flow->walk[direction];
	if (walk->done || !find_segment(skb, &s) || !s.len)
		return true;
	entered = bpf_ktime_get_ns();
	if (!walk->begun) {
		if (!is_first(sk, &s, direction)) {
			walk->done = 1;
			count_loss(slot, LOST_WIRE_UNJUDGED);
			return true;
		}
		walk->begun = 1;
		walk->next_seq = s.seq;
		walk->state = direction == WIRE_SENT ? meta->start_sent : meta->start_received;
		walk->done = !walk->state;
		if (!flow->generation)
			flow->generation = meta->generation;
	}
	if (flow->generation != meta->generation) { /* its states are of tables that are gone */
		walk->done = 1;
		count_loss(slot, LOST_WIRE_UNJUDGED);
		return true;
	}
	if (!take_up(walk, &s))
		return false; /* it comes again, after the bytes before it */
	if (!s.len || !walk_segment(skb, flow, &s, half * MAX_STATES, direction))
		return true;
	decide_wire(skb, half, w->policies, direction);
	if (walk->sever)
		w->severed = 1;
	if (walk->deny)
		flow->denied = 1;
	tell_wire(sk, flow, w->cgroup_id, slot, direction, entered);
	return !(walk->sever | walk->deny);
}

#endif

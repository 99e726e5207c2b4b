/* SPDX-License-Identifier: GPL-2.0 */
/* The verdict about a flow that has met something, and its event. */
#ifndef KS_VERDICT_H
#define KS_VERDICT_H

#include "flow.h"
#include "restraint.h"

#define TOLD_EVERY_NS 50000000ull /* a socket's datagrams are events no more often than that */

/* What goes between the functions about a packet lies in its control block, which is the program's own for as long as it
 * runs, on this packet: 5.10's verifier lets a global function take no pointer but the packet. */
#define CB_KIND 0    /* KIND_...; and where a datagram's bytes begin */
#define CB_ENTERED 1 /* when judging began: the clock's lower half */
#define CB_NAME 2    /* where a datagram has the name that it asks for; 0 = it asks for none */
#define CB_CLAUSE 3  /* the first enforcing clause of the wire that holds */
#define CB_ACTS 4    /* DONE_... that all of them want */
#define KIND_AT 8 /* shift */
#define KIND_RECEIVED 1
#define KIND_HALF 2
#define KIND_DATAGRAM 4
#define KIND_KNOWN 8 /* the tables in force have judged the program that made the socket */

/* The far side's address as it is in the packet: 4 or 16 bytes of it, and where they go. */
static __always_inline bool load_address(struct __sk_buff *skb, u8 *address, bool received, bool *four)
{
	u8 version;

	if (bpf_skb_load_bytes(skb, 0, &version, 1))
		return false;
	*four = version >> 4 == 4;
	if (*four)
		return !bpf_skb_load_bytes(skb, received ? 12 : 16, address, 4);
	return !bpf_skb_load_bytes(skb, received ? 8 : 24, address, 16);
}

static __always_inline u16 load_port(struct __sk_buff *skb, struct bpf_sock *sk, u32 kind)
{
	u8 port[2] = {};

	if (!(kind & KIND_DATAGRAM))
		return bpf_ntohs(sk->dst_port);
	bpf_skb_load_bytes(skb, (kind >> KIND_AT) - UDP_HEADER + (kind & KIND_RECEIVED ? 0 : 2), port, 2);
	return (u16)port[0] << 8 | port[1];
}

/* Walks the far side's address and port. Both automata report at their end alone: gives the states there, the address's
 * in the upper half, 0 = nothing is said of it. */
__attribute__((noinline)) int walk_place(struct __sk_buff *skb)
{
	u32 kind = skb->cb[CB_KIND], half = !!(kind & KIND_HALF), state, found, port;
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct bpf_sock *sk = socket_of(skb);
	u8 address[16] = {};
	bool four = false;

	if (!meta || !sk || !load_address(skb, address, kind & KIND_RECEIVED, &four))
		return 0;
	state = four ? meta->start_address4 : meta->start_address6;
	for (u32 i = 0; i < sizeof(address); i++) {
		if (!state || (four && i >= 4))
			break;
		state = next_state(half * MAX_STATES, state, address[i]);
	}
	found = state << 16;
	port = load_port(skb, sk, kind);
	state = meta->start_port;
	if (state)
		state = next_state(half * MAX_STATES, state, port >> 8 & 0xff);
	if (state)
		state = next_state(half * MAX_STATES, state, port & 0xff);
	return found | state;
}

static __always_inline u8 kept_len(struct wire_walk *walk)
{
	return walk->walked > WIRE_KEPT ? WIRE_KEPT : walk->walked;
}

static __always_inline void tell_flow(struct wire_event *e, struct wire_flow *flow)
{
	struct name_parser *p = &flow->names;

	e->sent_len = kept_len(&flow->walk[WIRE_SENT]);
	e->received_len = kept_len(&flow->walk[WIRE_RECEIVED]);
	__builtin_memcpy(e->sent, flow->kept[WIRE_SENT], sizeof(e->sent));
	__builtin_memcpy(e->received, flow->kept[WIRE_RECEIVED], sizeof(e->received));
	if (!p->name_len)
		return;
	e->name_kind = p->kind;
	e->name_len = p->name_len;
	__builtin_memcpy(e->name, p->name, sizeof(e->name));
}

static __always_inline void tell_datagram(struct wire_event *e, struct __sk_buff *skb, bool received)
{
	u32 at = skb->cb[CB_KIND] >> KIND_AT, name = skb->cb[CB_NAME], n = skb->len - at;
	u8 *to = received ? e->received : e->sent;

	n = n > WIRE_KEPT ? WIRE_KEPT : n;
	if (!n || bpf_skb_load_bytes(skb, at, to, at_least_one(n, WIRE_KEPT)))
		return;
	if (received)
		e->received_len = n;
	else
		e->sent_len = n;
	n = skb->len - name;
	n = n > WIRE_NAME - 1 ? WIRE_NAME - 1 : n;
	if (!name || name >= skb->len || bpf_skb_load_bytes(skb, name, e->name, at_least_one(n, WIRE_NAME)))
		return;
	e->name_kind = NAME_RAW_QUESTION;
	e->name_len = n;
}

/* The first enforcing clause of the wire that holds, and what all of them want. */
__attribute__((noinline)) int decide_wire(struct __sk_buff *skb, u64 w0, u64 w1, u64 w2, u64 w3)
{
	u32 kind = skb->cb[CB_KIND], half = !!(kind & KIND_HALF), slot;
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	u64 bits[PREDICATE_WORDS] = {w0, w1, w2, w3}, unknown[PREDICATE_WORDS], open = 0;
	struct workload *w = attached_workload(&slot);
	u64 policies;

	if (!meta || !w)
		return 0;
	policies = policies_of(w, half);
	if (!(kind & KIND_KNOWN))
		open = ~open;
	for (int i = 0; i < PREDICATE_WORDS; i++)
		unknown[i] = ~meta->wire_bits.word[i] & open;
	skb->cb[CB_CLAUSE] = NO_CLAUSE;
	skb->cb[CB_ACTS] = 0;
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
		for (int n = 0; n < PREDICATE_WORDS; n++) {
			differs |= (bits[n] & c->mask.word[n]) ^ c->value.word[n];
			differs |= unknown[n] & c->mask.word[n];
		}
		if (differs)
			continue;
		if (skb->cb[CB_CLAUSE] == (u32)NO_CLAUSE)
			skb->cb[CB_CLAUSE] = i;
		skb->cb[CB_ACTS] |= (!!c->deny * DONE_DENIED) | (!!c->sever * DONE_SEVERED);
	}
	return 0;
}

/* The event, with these predicates. */
__attribute__((noinline)) int tell_wire(struct __sk_buff *skb, u64 w0, u64 w1, u64 w2, u64 w3)
{
	u32 kind = skb->cb[CB_KIND], half = !!(kind & KIND_HALF), slot;
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct workload *w = attached_workload(&slot);
	struct bpf_sock *sk = socket_of(skb);
	struct wire_maker *maker;
	struct wire_event *e;
	bool four = false;

	if (!meta || !w || !sk)
		return 0;
	if (floods_exec_ring(slot, sizeof(*e))) {
		count_loss(slot, LOST_EXECS_FLOODED);
		return 0;
	}
	e = bpf_ringbuf_reserve(&exec_ring, sizeof(*e), 0);
	if (!e) {
		count_loss(slot, LOST_EXEC_RING_FULL);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->header.time_ns = bpf_ktime_get_ns();
	e->header.workload = w->cgroup_id;
	e->header.kind = EVENT_WIRE;
	e->predicates[0] = w0;
	e->predicates[1] = w1;
	e->predicates[2] = w2;
	e->predicates[3] = w3;
	load_address(skb, e->address, kind & KIND_RECEIVED, &four);
	e->family = four ? AF_INET : AF_INET6;
	e->port = load_port(skb, sk, kind);
	e->clause = skb->cb[CB_CLAUSE];
	e->done = skb->cb[CB_ACTS];
	e->generation = meta->generation;
	e->direction = kind & KIND_RECEIVED ? WIRE_RECEIVED : WIRE_SENT;
	e->maker_known = !!(kind & KIND_KNOWN);
	maker = bpf_sk_storage_get(&wire_makers, sk, NULL, 0);
	if (maker) {
		e->header.cgroup_id = maker->cgroup_id;
		e->header.start_ticks = maker->program.start_ticks;
		e->header.pid = maker->pid;
		e->uid = maker->uid;
		e->outbound = maker->outbound;
		__builtin_memcpy(e->comm, maker->comm, sizeof(e->comm));
	}
	e->protocol = kind & KIND_DATAGRAM ? IPPROTO_UDP : IPPROTO_TCP;
	if (kind & KIND_DATAGRAM) {
		tell_datagram(e, skb, kind & KIND_RECEIVED);
	} else {
		struct wire_flow *flow = bpf_sk_storage_get(&wire_flows, sk, NULL, 0);

		if (flow)
			tell_flow(e, flow);
	}
	e->verdict_ns = (u32)bpf_ktime_get_ns() - skb->cb[CB_ENTERED];
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* Takes back what must not be done: nothing of it to who is protected, no severing of who lives with one. */
static __always_inline void restrain(struct __sk_buff *skb, struct workload *w, u32 slot, struct wire_maker *maker)
{
	struct restraint *r = bpf_map_lookup_elem(&restraints, &slot);

	if (!r || (maker && is_protected(maker->pid, maker->program.start_ticks))) {
		skb->cb[CB_ACTS] = 0;
		return;
	}
	if (r->shielded)
		skb->cb[CB_ACTS] &= ~DONE_SEVERED;
	if (skb->cb[CB_ACTS] && !within_budget(w, r, skb->cb[CB_ACTS] & DONE_SEVERED))
		skb->cb[CB_ACTS] = 0;
}

/* Judges what was seen of a flow (`w0`..`w3`: predicate bits), with who made it and where it goes. Gives what is done. */
__attribute__((noinline)) int decide_flow(struct __sk_buff *skb, u64 w0, u64 w1, u64 w2, u64 w3)
{
	u32 kind = skb->cb[CB_KIND], half = !!(kind & KIND_HALF), slot, acts, place;
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct predicate_set bits = {{w0, w1, w2, w3}};
	struct workload *w = attached_workload(&slot);
	struct bpf_sock *sk = socket_of(skb);
	u64 entered = bpf_ktime_get_ns();
	struct wire_maker *maker;

	if (!meta || !w || !sk)
		return 0;
	maker = bpf_sk_storage_get(&wire_makers, sk, NULL, 0);
	if (maker && maker->program.generation == meta->generation) {
		skb->cb[CB_KIND] = kind | KIND_KNOWN;
		for (int i = 0; i < PREDICATE_WORDS; i++)
			bits.word[i] |= maker->program.bits.word[i] & ~meta->wire_bits.word[i];
	}
	if (maker)
		bits.word[0] |= (u64)maker->outbound << BIT_OUTBOUND;
	if (kind & KIND_DATAGRAM)
		bits.word[0] |= 1 << BIT_UDP;
	place = walk_place(skb);
	add_accepted(&bits, half * MAX_STATES, place >> 16);
	add_accepted(&bits, half * MAX_STATES, place);
	decide_wire(skb, bits.word[0], bits.word[1], bits.word[2], bits.word[3]);
	if (skb->cb[CB_ACTS])
		restrain(skb, w, slot, maker);
	acts = skb->cb[CB_ACTS];
	if (acts & DONE_SEVERED)
		w->severed = 1;
	if (kind & KIND_DATAGRAM && maker) {
		if (entered - maker->told_ns < TOLD_EVERY_NS) {
			count_loss(slot, LOST_SENDMSG_SUPPRESSED);
			return acts;
		}
		maker->told_ns = entered;
	}
	tell_wire(skb, bits.word[0], bits.word[1], bits.word[2], bits.word[3]);
	return acts;
}

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* UDP: each datagram is judged by itself. Threads may send on one socket at the same time, without its lock, so nothing of
 * it is kept in the socket; and as a datagram is whole, nothing need be. What goes round while it is walked lies in the
 * packet's control block, in words that the verdict needs only later: of what is in registers or on the stack, the
 * verifier would follow every value. */
#ifndef KS_DATAGRAM_H
#define KS_DATAGRAM_H

#include "names.h"
#include "verdict.h"

#define PIECE 32
#define QUERY_PIECES 12 /* that are read of a query: more than one question may have */
#define TEXT_PIECES 32	/* of a text: few datagrams are longer */

#define CB_STATE 2 /* in the table; of a query, its upper half is where the name begins */
#define CB_WALK 3  /* of a query: bytes left of the label, to be skipped, questions, WALK_... */
#define CB_MET 4   /* the last two states that accepted something; of a text, with CB_WALK, the last four */
#define WALK_SKIP 8
#define WALK_QUESTIONS 16
#define WALK_BEGAN (1u << 24)  /* a label of this name has been seen */
#define WALK_MET (1u << 25)    /* the name has met something */
#define WALK_UNREAD (1u << 26) /* it could not be read, or more was met than is kept */

static __always_inline u32 cb_state(struct __sk_buff *skb)
{
	return skb->cb[CB_STATE] & 0xffff;
}

static __always_inline u16 step_datagram(struct __sk_buff *skb, u32 base, u8 byte)
{
	u32 key = base + cb_state(skb);
	struct dfa_row *row = bpf_map_lookup_elem(&dfa_rows, &key);
	u16 next = row ? row->next[byte] : 0;

	skb->cb[CB_STATE] = (skb->cb[CB_STATE] & 0xffff0000) | (next & (ACCEPTS - 1));
	return next;
}

static __always_inline void query_byte(struct __sk_buff *skb, u32 at, u8 byte, u32 start, u32 base)
{
	u32 walk = skb->cb[CB_WALK], met = skb->cb[CB_MET];
	u16 next;

	if (walk >> WALK_SKIP & 7) {
		skb->cb[CB_WALK] = walk - (1 << WALK_SKIP);
		return;
	}
	if (walk & LABEL_MAX) {
		walk--;
		byte = byte ? byte : 1; /* a NUL is where the walk ends, and this is not its end */
	} else if (byte > LABEL_MAX) { /* points to another name: never in a first question */
		skb->cb[CB_WALK] = WALK_UNREAD | (walk & WALK_MET);
		return;
	} else if (byte) {
		walk |= byte;
		byte = '.';
		if (!(walk & WALK_BEGAN)) {
			if (!(walk & WALK_MET))
				skb->cb[CB_STATE] = cb_state(skb) | at << 16;
			skb->cb[CB_WALK] = walk | WALK_BEGAN;
			return;
		}
	}
	next = step_datagram(skb, base, byte);
	if (next & ACCEPTS && (met & 0xffff) != (next & (ACCEPTS - 1))) {
		if (met >> 16)
			walk |= WALK_UNREAD;
		skb->cb[CB_MET] = met << 16 | (next & (ACCEPTS - 1));
		walk |= WALK_MET;
	}
	if (!byte) {
		walk = (walk & ~WALK_BEGAN) - (1 << WALK_QUESTIONS);
		walk += 4 << WALK_SKIP; /* type and class */
		skb->cb[CB_STATE] = (skb->cb[CB_STATE] & 0xffff0000) | start;
	}
	skb->cb[CB_WALK] = walk;
}

/* At most PIECE bytes of a query's questions. */
__attribute__((noinline)) int walk_query(struct __sk_buff *skb, u32 at, u32 start, u32 base)
{
	u32 len = skb->len - at;
	u8 piece[PIECE];

	if (at >= skb->len) {
		skb->cb[CB_WALK] = WALK_UNREAD | (skb->cb[CB_WALK] & WALK_MET);
		return 0;
	}
	if (len > PIECE)
		len = PIECE;
	if (bpf_skb_load_bytes(skb, at, piece, at_least_one(len, PIECE)))
		return 0;
	for (u32 i = 0; i < PIECE; i++) {
		barrier(); /* or the compiler would keep it in registers all the same */
		if (i >= len || !(skb->cb[CB_WALK] >> WALK_QUESTIONS & 0xff))
			break;
		query_byte(skb, at + i, piece[i], start, base);
	}
	return 0;
}

/* At most PIECE bytes of a datagram as a text. */
__attribute__((noinline)) int walk_text(struct __sk_buff *skb, u32 at, u32 base)
{
	u32 len = skb->len - at;
	u8 piece[PIECE];

	if (at >= skb->len)
		return 0;
	if (len > PIECE)
		len = PIECE;
	if (bpf_skb_load_bytes(skb, at, piece, at_least_one(len, PIECE)))
		return 0;
	for (u32 i = 0; i < PIECE; i++) {
		u32 met;
		u16 next;

		barrier();
		met = skb->cb[CB_MET];
		if (i >= len || !cb_state(skb))
			break;
		next = step_datagram(skb, base, piece[i]);
		if (!(next & ACCEPTS) || (met & 0xffff) == (next & (ACCEPTS - 1)))
			continue;
		if (skb->cb[CB_WALK] >> 16)
			skb->cb[CB_STATE] |= WALK_UNREAD;
		skb->cb[CB_WALK] = skb->cb[CB_WALK] << 16 | met >> 16;
		skb->cb[CB_MET] = met << 16 | (next & (ACCEPTS - 1));
	}
	return 0;
}

static __always_inline int decide_datagram(struct __sk_buff *skb, struct policy_meta *meta, u32 kind, u32 name,
					   const struct predicate_set *bits)
{
	u64 told = 0;

	for (int i = 0; i < PREDICATE_WORDS; i++)
		told |= bits->word[i] & meta->told_bits.word[i];
	if (!told)
		return 0;
	skb->cb[CB_KIND] = kind;
	skb->cb[CB_NAME] = name;
	return decide_flow(skb, bits->word[0], bits->word[1], bits->word[2], bits->word[3]);
}

/* The first bytes of the datagram whose payload begins at `at`; `kind` as in the control block. Gives what is done. */
__attribute__((noinline)) int judge_text(struct __sk_buff *skb, u32 at, u32 kind, u32 slot)
{
	u32 half = !!(kind & KIND_HALF), base = half * MAX_STATES;
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct predicate_set bits = {};

	if (!meta)
		return 0;
	skb->cb[CB_STATE] = kind & KIND_RECEIVED ? meta->start_received : meta->start_sent;
	skb->cb[CB_WALK] = 0;
	skb->cb[CB_MET] = 0;
	for (int i = 0; i < TEXT_PIECES; i++) {
		if (!cb_state(skb))
			break;
		walk_text(skb, at + i * PIECE, base);
	}
	if (!skb->cb[CB_MET])
		return 0;
	if (skb->cb[CB_STATE] & WALK_UNREAD)
		count_loss(slot, LOST_WIRE_UNJUDGED);
	add_accepted(&bits, base, skb->cb[CB_MET] & 0xffff);
	add_accepted(&bits, base, skb->cb[CB_MET] >> 16);
	add_accepted(&bits, base, skb->cb[CB_WALK] & 0xffff);
	add_accepted(&bits, base, skb->cb[CB_WALK] >> 16);
	return decide_datagram(skb, meta, kind | at << KIND_AT, 0, &bits);
}

/* The names that the datagram asks for, if it is a query of DNS. */
__attribute__((noinline)) int judge_query(struct __sk_buff *skb, u32 at, u32 kind, u32 slot)
{
	u32 half = !!(kind & KIND_HALF), base = half * MAX_STATES, questions, walk;
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct predicate_set bits = {};
	u8 h[DNS_HEADER];

	if (!meta || skb->len < at + DNS_LEAST || bpf_skb_load_bytes(skb, at, h, sizeof(h)))
		return 0;
	questions = (u32)h[4] << 8 | h[5];
	if (((u32)h[2] << 8 & DNS_NO_QUERY) || !questions || questions > QUESTIONS_MAX)
		return 0;
	at += DNS_HEADER;
	skb->cb[CB_STATE] = meta->start_host;
	skb->cb[CB_WALK] = questions << WALK_QUESTIONS;
	skb->cb[CB_MET] = 0;
	for (int i = 0; i < QUERY_PIECES; i++) {
		if (!(skb->cb[CB_WALK] >> WALK_QUESTIONS & 0xff))
			break;
		walk_query(skb, at + i * PIECE, meta->start_host, base);
	}
	walk = skb->cb[CB_WALK];
	if ((walk & WALK_UNREAD || walk >> WALK_QUESTIONS & 0xff) && !bpf_skb_load_bytes(skb, at - DNS_HEADER - 6, h, 2) &&
	    ((u32)h[0] << 8 | h[1]) == DNS_PORT) /* elsewhere it is just no query */
		count_loss(slot, LOST_WIRE_UNJUDGED);
	bits.word[0] = 1 << BIT_DNS;
	add_accepted(&bits, base, skb->cb[CB_MET] & 0xffff);
	add_accepted(&bits, base, skb->cb[CB_MET] >> 16);
	return decide_datagram(skb, meta, kind | (at - DNS_HEADER) << KIND_AT, skb->cb[CB_STATE] >> 16, &bits);
}

#endif

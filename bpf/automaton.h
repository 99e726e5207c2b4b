/* SPDX-License-Identifier: GPL-2.0 */
/* The machinery of judging: bytes are walked through the policy's table, what they accept are predicate bits, clauses
 * decide. All global functions, so that the verifier looks at each once and not once a call. */
#ifndef KS_AUTOMATON_H
#define KS_AUTOMATON_H

#include "exec.h"

#define ACCEPTS 0x8000 /* in a next-state entry: the state that it names accepts something */
#define WALK_MAX (ARGV_WINDOW + 1)
#define NO_CLAUSE (-1)

static __always_inline bool bit_is_set(const struct predicate_set *bits, u32 bit)
{
	return bits->word[(bit >> 6) & (PREDICATE_WORDS - 1)] >> (bit & 63) & 1;
}

static __always_inline void add_bits(struct predicate_set *to, const struct predicate_set *from)
{
	for (int i = 0; i < PREDICATE_WORDS; i++)
		to->word[i] |= from->word[i];
}

/* At most STRIDE bytes of the scratch buffer, from `state`; collects into the scratch's bits, returns the next state.
 * `base`: the half in force. */
__attribute__((noinline)) int stride(u32 base, u32 state, u32 from, u32 len)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	for (u32 i = 0; i < STRIDE; i++) {
		struct predicate_set *accepted;
		struct dfa_row *row;
		u32 key = base + state;
		u16 next;

		if (i >= len)
			break;
		row = bpf_map_lookup_elem(&dfa_rows, &key);
		if (!row)
			return 0;
		next = row->next[(u8)*text_at(s, from + i)];
		state = next & (ACCEPTS - 1);
		if (next & ACCEPTS) {
			key = base + state;
			accepted = bpf_map_lookup_elem(&dfa_accepts, &key);
			if (accepted)
				add_bits(&s->bits, accepted);
		}
		if (!state)
			break;
	}
	return state;
}

/* Walk `len` bytes, at most WALK_MAX. State 0 is dead. */
__attribute__((noinline)) int walk(u32 base, u32 state, u32 from, u32 len)
{
	for (u32 done = 0; done < WALK_MAX; done += STRIDE) {
		if (!state || done >= len)
			break;
		state = stride(base, state, from + done, len - done);
	}
	return 0;
}

/* Every enforcing clause of the workload's policies: leaves in the scratch the first that holds, and what all of them
 * want. (In memory, not in registers: the verifier tells states apart by registers, and would not come to an end.) */
__attribute__((noinline)) int decide(u32 half, u32 n_clauses, u64 policies)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	for (u32 i = 0; i < MAX_CLAUSES; i++) {
		u32 key = half * MAX_CLAUSES + i;
		struct clause *c;
		u64 differs = 0;

		if (i >= n_clauses)
			break;
		c = bpf_map_lookup_elem(&clauses, &key);
		if (!c)
			break;
		if (!(c->kill | c->sever | c->deny) || !(policies >> (c->policy & 63) & 1))
			continue;
		for (int w = 0; w < PREDICATE_WORDS; w++)
			differs |= (s->bits.word[w] & c->mask.word[w]) ^ c->value.word[w];
		if (differs)
			continue;
		if (s->event.clause == NO_CLAUSE)
			s->event.clause = i;
		s->kill |= c->kill | c->deny; /* what was to be denied and has come so far is not to go further */
		s->sever |= c->sever;
	}
	return 0;
}

/* Whether one of the workload's rules that only the daemon can judge to its end is still open. */
__attribute__((noinline)) int decide_open(u32 first, u32 n, u64 policies)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	s->open = 0;
	for (u32 i = 0; i < MAX_CLAUSES; i++) {
		u32 key = first + i;
		struct clause *c;
		u64 differs = 0;

		if (i >= n)
			break;
		c = bpf_map_lookup_elem(&clauses, &key);
		if (!c)
			break;
		if (!(policies >> (c->policy & 63) & 1))
			continue;
		for (int w = 0; w < PREDICATE_WORDS; w++)
			differs |= (s->bits.word[w] & c->mask.word[w]) ^ c->value.word[w];
		if (differs)
			continue;
		s->open = 1;
		break;
	}
	return 0;
}

#endif

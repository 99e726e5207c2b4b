/* SPDX-License-Identifier: GPL-2.0 */
/* The verdict about an exec that lies in the scratch buffer. */
#ifndef KS_JUDGE_H
#define KS_JUDGE_H

#include "automaton.h"

/* Bits that are set here and not by the tables: killswitch/commands.py names them. */
#define BIT_MEMFD 0
#define BIT_UNLINKED 1
#define BIT_TRUNCATED 2

static __always_inline void judge_facts(struct scratch *s, const struct policy_meta *meta, u32 half)
{
	struct exec_event *e = &s->event;
	struct predicate_set *bits;
	struct inode_key key = {.inode = e->inode, .device = e->device, .half = half};

	s->bits = (struct predicate_set){};
	s->bits.word[0] |= (u64)!!e->memfd << BIT_MEMFD;
	s->bits.word[0] |= (u64)!e->nlink << BIT_UNLINKED;
	s->bits.word[0] |= (u64)(e->argv_total > e->argv_len) << BIT_TRUNCATED;
	if (!meta->n_inodes)
		return;
	bits = bpf_map_lookup_elem(&inode_bits, &key);
	if (bits)
		add_bits(&s->bits, bits);
}

static __always_inline void judge_texts(struct scratch *s, const struct policy_meta *meta, u32 base)
{
	struct exec_event *e = &s->event;
	struct spans *at = &s->at;

	walk(base, meta->start_name, at->executable_name, at->filename - at->executable_name);
	walk(base, meta->start_name, at->filename_name, at->argv - at->filename_name);
	walk(base, meta->start_path, at->executable, e->executable_len + 1);
	walk(base, meta->start_path, at->filename, e->filename_len + 1);
	walk(base, meta->start_parent, at->parent, e->parent_len + 1);
	walk(base, meta->start_args, at->argv, at->argv_walk);
	for (u32 i = 0; i < MAX_GRAMMARS; i++) {
		if (i >= meta->n_grammars)
			break;
		if (bit_is_set(&s->bits, meta->grammars[i].gate))
			walk(base, meta->grammars[i].start, at->argv, at->argv_walk);
	}
}

/* Fills in the verdict, and what is to be done into s->kill and s->sever. `half`: of the tables, 0 or 1; `policies`: of the
 * workload, as that half numbers them. */
__attribute__((noinline)) int judge(u32 half, u64 policies)
{
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct scratch *s = scratch();

	if (!s || !meta)
		return 0;
	s->kill = 0;
	s->sever = 0;
	s->open = 1;
	s->event.clause = NO_CLAUSE;
	s->event.generation = meta->generation;
	judge_facts(s, meta, half);
	if (meta->generation) {
		judge_texts(s, meta, half * MAX_STATES);
		decide(half, meta->n_clauses, policies);
		decide_open(half * MAX_CLAUSES + meta->n_clauses + meta->n_wire_clauses, meta->n_hold_clauses,
			    policies);
	}
	for (int i = 0; i < PREDICATE_WORDS; i++)
		s->event.predicates[i] = s->bits.word[i];
	return 0;
}

#endif

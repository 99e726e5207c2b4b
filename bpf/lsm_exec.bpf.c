// SPDX-License-Identifier: GPL-2.0
/* An exec that a rule denies does not happen: the caller sees EPERM, and goes on. Judged here by what is known before: the file,
 * its path, the path asked for, the parent. Arguments lie in pages of a memory that is not yet anybody's: clauses that ask for
 * them are judged in sched_process_exec, where to deny means to kill. */

/* A buffer and functions of its own, by the same source: the other ones are the exec program's, which may come in between. */
#define exec_scratch lsm_scratch
#define slash_in(...) lsm_slash_in(__VA_ARGS__)
#define find_basename(...) lsm_find_basename(__VA_ARGS__)
#define walk_path(...) lsm_walk_path(__VA_ARGS__)
#define stride(...) lsm_stride(__VA_ARGS__)
#define walk(...) lsm_walk(__VA_ARGS__)
#define decide(...) lsm_decide(__VA_ARGS__)
#define decide_open(...) lsm_decide_open(__VA_ARGS__)
#define judge(...) lsm_judge(__VA_ARGS__)
#include "judge.h"
#include "maker.h"
#include "lsm.h"

char LICENSE[] SEC("license") = "GPL";

/* How many are at the buffer of this CPU. On a kernel that preempts, a second one may come while the first is at it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lsm_busy SEC(".maps");

static __always_inline void gather_before(struct scratch *s, struct task_struct *task, struct linux_binprm *bprm, u32 slot)
{
	struct exec_event *e = &s->event;
	struct spans *at = &s->at;

	at->parent = 0;
	e->parent_len = put_string(
		s, 0, BPF_CORE_READ(task, real_parent, mm, exe_file, f_path.dentry, d_name.name), NAME_BYTES);
	at->executable = e->parent_len + 1;
	gather_file(s, BPF_CORE_READ(bprm, file), slot);
	at->filename = at->executable + e->executable_len + 1;
	e->filename_len = put_string(s, at->filename, BPF_CORE_READ(bprm, filename), PATH_BYTES);
	find_basename(at->filename, e->filename_len);
	at->filename_name = at->after_slash;
	at->argv = at->filename + e->filename_len + 1;
	at->argv_walk = 0;
	at->end = at->argv;
	e->argv_len = 0;
	e->argv_total = 0;
}

/* The first clause that denies, as far as that can be said without the arguments; into the scratch. */
__attribute__((noinline)) int deny_by(u32 half, u64 policies)
{
	struct policy_meta *meta = bpf_map_lookup_elem(&policy_meta, &half);
	struct scratch *s = scratch();

	if (!s || !meta)
		return 0;
	s->event.clause = NO_CLAUSE;
	for (u32 i = 0; i < MAX_CLAUSES; i++) {
		u32 key = half * MAX_CLAUSES + i;
		struct clause *c;
		u64 differs = 0;

		if (i >= meta->n_clauses)
			break;
		c = bpf_map_lookup_elem(&clauses, &key);
		if (!c)
			break;
		if (!c->deny || !(policies >> (c->policy & 63) & 1))
			continue;
		for (int w = 0; w < PREDICATE_WORDS; w++) {
			differs |= (s->bits.word[w] & c->mask.word[w]) ^ c->value.word[w];
			differs |= meta->late_bits.word[w] & c->mask.word[w];
		}
		if (!differs) {
			s->event.clause = i;
			break;
		}
	}
	return 0;
}

static __always_inline void tell_exec(struct scratch *s, struct actor *a)
{
	struct denied_event *e;
	u32 from = s->at.executable, len = s->event.executable_len;
	long n;

	e = bpf_ringbuf_reserve(&exec_ring, sizeof(*e), 0);
	if (!e) {
		count_loss(a->slot, LOST_EXEC_RING_FULL);
		return;
	}
	fill_denied(e, a, DENIED_EXEC);
	e->clause = s->event.clause;
	e->generation = s->event.generation;
	e->severed = 0;
	if (len >= DENIED_TARGET)
		from += len - (DENIED_TARGET - 1);
	n = bpf_probe_read_kernel_str(e->target, DENIED_TARGET, text_at(s, from));
	e->target_len = n > 0 ? n - 1 : 0;
	bpf_ringbuf_submit(e, 0);
}

static __always_inline bool is_denied(struct actor *a, struct linux_binprm *bprm, u32 half)
{
	struct task_struct *task = a->task;
	struct scratch *s = scratch();

	if (!s)
		return false;
	gather_before(s, task, bprm, a->slot);
	judge(half, policies_of(a->w, half));
	deny_by(half, policies_of(a->w, half));
	if (s->event.clause == NO_CLAUSE)
		return false;
	count_denied(a->slot, DENIED_EXEC);
	if (!refused_lately(BPF_CORE_READ(task, tgid), DENIED_EXEC, false))
		tell_exec(s, a);
	return true;
}

/* Once an exec, when it is known which file will run: of a script, its interpreter. */
SEC("lsm/bprm_creds_from_file")
int BPF_PROG(lsm_exec, struct linux_binprm *bprm)
{
	struct policy_meta *meta;
	struct actor a = {};
	u32 zero = 0, half;
	bool denied = false;
	u64 *busy;

	if (!acting(&a))
		return ALLOW;
	meta = policy_in_force(&half);
	busy = bpf_map_lookup_elem(&lsm_busy, &zero);
	if (!meta || !meta->n_denying || !busy)
		return ALLOW;
	__sync_fetch_and_add(busy, 1);
	if (*(volatile u64 *)busy == 1) /* else it is judged a moment later, and killed */
		denied = is_denied(&a, bprm, half);
	__sync_fetch_and_add(busy, -1);
	return denied ? DENY : ALLOW;
}

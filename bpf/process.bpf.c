// SPDX-License-Identifier: GPL-2.0
/* Processes: what they run (judged here, before the first instruction), how they begin and end. */
#include "hold.h"
#include "judge.h"
#include "place.h"
#include "restraint.h"
#include "stdio.h"
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

DESCRIBE(fork_event);
DESCRIBE(exit_event);

#define SIGKILL 9
#define SIGNAL_GROUP_EXIT 4

static __always_inline void track(struct task_struct *task, struct cgroup *cgrp, u32 slot, u64 workload, bool left)
{
	struct process_place place = {
		.cgroup_id = cgroup_id_of(cgrp), .workload = workload, .slot = slot, .left = left,
		.start_ticks = start_ticks_of(task)};
	u32 tgid = BPF_CORE_READ(task, tgid);

	if (bpf_map_update_elem(&processes, &tgid, &place, BPF_ANY))
		count_loss(slot, LOST_TRACKING_FULL);
}

/* The host's sshd runs itself, or a helper of its name, for each who logs in: its child, by name. */
static __always_inline bool is_protected_exec(struct scratch *s)
{
	u32 name = s->at.executable_name;

	if (is_protected(s->event.header.pid, s->event.header.start_ticks))
		return true;
	return *text_at(s, name) == 's' && *text_at(s, name + 1) == 's' && *text_at(s, name + 2) == 'h' &&
	       *text_at(s, name + 3) == 'd' && is_way_in(s->event.ppid, s->event.parent_start_ticks);
}

static __always_inline void carry_out(struct scratch *s, struct workload *w, u32 slot)
{
	struct restraint *r = bpf_map_lookup_elem(&restraints, &slot);

	s->event.done = 0;
	if (!(s->sever | s->kill) || !r)
		return;
	if (is_protected_exec(s))
		return;
	if (r->shielded)
		s->sever = 0;
	if (!(s->sever | s->kill) || !within_budget(w, r, true))
		return;
	if (s->sever) {
		w->severed = 1;
		s->event.done |= DONE_SEVERED;
	}
	if (s->kill) {
		if (bpf_send_signal(SIGKILL))
			count_loss(slot, LOST_KILL_FAILED);
		else
			s->event.done |= DONE_KILLED;
	}
}

/* For the wire's rules: what its program is, as far as the tables ask. */
static __always_inline void remember_bits(struct scratch *s, u32 slot)
{
	struct exec_event *e = &s->event;
	struct process_bits known = {
		.bits = s->bits, .start_ticks = e->header.start_ticks, .generation = e->generation};
	u32 half, tgid = e->header.pid;

	if (!wire_is_judged(policy_in_force(&half)))
		return;
	if (bpf_map_update_elem(&process_bits, &tgid, &known, BPF_ANY))
		count_loss(slot, LOST_TRACKING_FULL);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	u64 entered;
	struct cgroup *cgrp;
	struct scratch *s;
	struct workload *w;
	u32 slot, size, half;

	if (!anything_watched())
		return 0;
	if (has_left(place_of(task))) { /* before its end reached it */
		bpf_send_signal(SIGKILL);
		return 0;
	}
	entered = bpf_ktime_get_ns();
	cgrp = cgroup_of(task);
	slot = slot_of_cgroup(cgrp);
	w = workload_at(slot);
	s = scratch();
	if (!w || !s)
		return 0;
	fill_header(&s->event.header, EVENT_EXEC, w->cgroup_id, task, cgroup_id_of(cgrp));
	gather(s, task, bprm, slot);
	policy_in_force(&half);
	judge(half, policies_of(w, half));
	carry_out(s, w, slot);
	remember_bits(s, slot);
	note_stdio(task, &s->event.header);
	s->event.verdict_ns = bpf_ktime_get_ns() - entered;
	size = sizeof(s->event) + s->at.end;
	if (size > sizeof(s->event) + TEXT_USED)
		size = sizeof(s->event) + TEXT_USED;
	hold_exec(w, slot, task, &s->event.header, send_exec(slot, &s->event, size), s->open);
	return 0;
}

/* A child that was born into another cgroup (CLONE_INTO_CGROUP) has moved, though nobody moved it. */
static __always_inline void send_birth_move(struct event_header *h, u32 slot, u64 from, u64 to, u64 to_workload)
{
	struct cgroup_event e = {.header = *h, .to_cgroup = to, .to_workload = to_workload};

	e.header.kind = EVENT_CGROUP_MOVE;
	e.header.cgroup_id = from;
	send_exec(slot, &e, sizeof(e));
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct cgroup *from, *to;
	struct task_struct *real_parent;
	struct process_place *known;
	struct fork_event e = {};
	u64 workload, from_workload;
	u32 slot, from_slot;

	if (!anything_watched() || child->pid != child->tgid)
		return 0;
	to = cgroup_of(child);
	from = cgroup_of(parent);
	slot = slot_of_cgroup(to);
	from_slot = to == from ? slot : slot_of_cgroup(from);
	known = place_of(parent);
	if (has_left(known))
		from_slot = known->slot;
	if (!(slot | from_slot))
		return 0;
	workload = workload_id(slot);
	from_workload = workload_id(from_slot);
	fill_header(&e.header, EVENT_FORK, slot ? workload : from_workload, child, cgroup_id_of(to));
	real_parent = BPF_CORE_READ(child, real_parent);
	e.ppid = BPF_CORE_READ(real_parent, tgid);
	e.parent_start_ticks = start_ticks_of(real_parent);
	if (from_slot && from_slot != slot && is_cut_off(from_slot))
		track(child, to, from_slot, from_workload, true);
	else if (slot)
		track(child, to, slot, workload, false);
	if (slot)
		inherit_bits(e.ppid, e.header.pid, e.header.start_ticks, slot);
	if (slot)
		inherit_hold(parent, &e.header, slot);
	send_flow(slot ? slot : from_slot, &e, sizeof(e));
	if (to != from || from_slot != slot) {
		if (from_slot)
			e.header.workload = from_workload;
		send_birth_move(&e.header, from_slot ? from_slot : slot, cgroup_id_of(from), e.header.cgroup_id,
				workload);
	}
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	struct exit_event e = {};
	struct cgroup *cgrp;
	struct workload *w;
	u32 slot, tgid;
	long untracked;

	if (!anything_watched() || BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	/* Two last threads on two CPUs may both see live == 0: who takes the entry away reports. It may be of one that left. */
	tgid = BPF_CORE_READ(task, tgid);
	untracked = bpf_map_delete_elem(&processes, &tgid);
	cgrp = cgroup_of(task);
	slot = slot_of_cgroup(cgrp);
	w = workload_at(slot);
	if (!w)
		return 0;
	bpf_map_delete_elem(&process_bits, &tgid);
	bpf_map_delete_elem(&holds, &tgid);
	if (untracked)
		return 0;
	fill_header(&e.header, EVENT_EXIT, w->cgroup_id, task, cgroup_id_of(cgrp));
	if (BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT)
		e.exit_code = BPF_CORE_READ(task, signal, group_exit_code);
	else
		e.exit_code = BPF_CORE_READ(task, group_leader, exit_code);
	send_flow(slot, &e, sizeof(e));
	return 0;
}

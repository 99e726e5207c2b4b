/* SPDX-License-Identifier: GPL-2.0 */
/* Who makes a flow: packets may be sent and received when quite another task runs, so it is noted when the socket is made
 * and when it connects. */
#ifndef KS_MAKER_H
#define KS_MAKER_H

#include "workload.h"

static __always_inline struct policy_meta *policy_in_force(u32 *half)
{
	u32 zero = 0;
	struct control *c = bpf_map_lookup_elem(&control, &zero);

	*half = c ? *(volatile u32 *)&c->active & 1 : 0;
	return bpf_map_lookup_elem(&policy_meta, half);
}

/* The policies of a workload, as the tables of this half number them. Ask for the half first. */
static __always_inline u64 policies_of(struct workload *w, u32 half)
{
	return half ? *(volatile u64 *)&w->policies_other : *(volatile u64 *)&w->policies;
}

static __always_inline bool wire_is_judged(struct policy_meta *meta)
{
	return meta && (meta->start_sent | meta->start_received | meta->start_host | meta->told_bits.word[0]);
}

/* A new process runs its parent's program until it executes one of its own. */
static __always_inline void inherit_bits(u32 parent, u32 child, u64 start_ticks, u32 slot)
{
	struct process_bits *known = bpf_map_lookup_elem(&process_bits, &parent), own;

	if (!known)
		return;
	own = *known;
	own.start_ticks = start_ticks;
	if (bpf_map_update_elem(&process_bits, &child, &own, BPF_ANY))
		count_loss(slot, LOST_TRACKING_FULL);
}

/* In the context of the task that makes the socket, or connects it. */
static __always_inline void note_maker(struct wire_maker *maker)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process_bits *known = bpf_map_lookup_elem(&process_bits, &tgid);
	u64 start = start_ticks_of(task);

	maker->pid = tgid;
	maker->uid = bpf_get_current_uid_gid();
	maker->cgroup_id = cgroup_id_of(cgroup_of(task));
	BPF_CORE_READ_INTO(&maker->comm, task, comm);
	maker->program = (struct process_bits){};
	if (known && known->start_ticks == start)
		maker->program = *known;
	maker->program.start_ticks = start;
}

#endif

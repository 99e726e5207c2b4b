/* SPDX-License-Identifier: GPL-2.0 */
/* Which workload is this? For tasks by their cgroup's ancestors, for cgroup programs by where they are attached. */
#ifndef KS_WORKLOAD_H
#define KS_WORKLOAD_H

#include "count.h"
#include <bpf/bpf_core_read.h>

/* A workload lies at most this deep below the cgroup root (user space refuses deeper ones); what is inside it may lie
 * as deep as it likes: ancestors are looked at from the root down. */
#define MAX_WORKLOAD_LEVEL 15

static __always_inline u64 ancestor_id(struct cgroup *cgrp, u32 level)
{
	u64 id = 0;

	if (bpf_core_field_exists(cgrp->ancestors)) {
		struct cgroup *ancestor = NULL;
		u32 at = bpf_core_field_offset(cgrp->ancestors) + level * sizeof(void *);

		bpf_probe_read_kernel(&ancestor, sizeof(ancestor), (void *)cgrp + at);
		return ancestor ? BPF_CORE_READ(ancestor, kn, id) : 0;
	}
	bpf_probe_read_kernel(&id, sizeof(id), (void *)cgrp +
			      bpf_core_field_offset(struct cgroup___before_6_1, ancestor_ids) + level * sizeof(u64));
	return id;
}

/* Slot of the innermost workload that holds this cgroup (of v2), 0 = none. */
static __always_inline u32 slot_of_cgroup(struct cgroup *cgrp)
{
	u32 level = BPF_CORE_READ(cgrp, level), slot = 0;

	for (u32 i = 0; i <= MAX_WORKLOAD_LEVEL; i++) {
		u64 id;
		u32 *found;

		if (i > level)
			break;
		id = ancestor_id(cgrp, i);
		found = bpf_map_lookup_elem(&workload_by_cgroup, &id);
		if (found)
			slot = *found;
	}
	return slot;
}

static __always_inline struct cgroup *cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

static __always_inline u64 cgroup_id_of(struct cgroup *cgrp)
{
	return BPF_CORE_READ(cgrp, kn, id);
}

/* The cgroup that a socket was made in, NULL = not known. */
static __always_inline struct cgroup *cgroup_of_sock(struct sock *sk)
{
	struct sock___before_5_15 *old = (void *)sk;
	u64 data;

	if (!bpf_core_field_exists(old->sk_cgrp_data.val))
		return BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	data = BPF_CORE_READ(old, sk_cgrp_data.val);
	return data & 1 ? NULL : (void *)(data & ~3ull); /* 1: net_cls or net_prio of cgroup v1 is in use, and kept instead */
}

static __always_inline bool anything_watched(void)
{
	u32 zero = 0;
	struct control *c = bpf_map_lookup_elem(&control, &zero);

	return c && c->watched;
}

static __always_inline struct workload *workload_at(u32 slot)
{
	return slot ? bpf_map_lookup_elem(&workloads, &slot) : NULL;
}

static __always_inline u64 workload_id(u32 slot)
{
	struct workload *w = workload_at(slot);

	return w ? w->cgroup_id : 0;
}

/* In a program attached to a cgroup: its workload. NULL while user space has not yet told the slot. */
static __always_inline struct workload *attached_workload(u32 *slot)
{
	struct cgroup_slot *here = bpf_get_local_storage(&cgroup_slot, 0);
	struct workload *w;

	*slot = here->slot;
	w = workload_at(*slot);
	return w && w->cgroup_id == here->cgroup_id ? w : NULL;
}

/* Cut off: by an order, by a verdict, or because nobody has been there to give one for longer than the policy allows. That
 * is found out by whoever wants to send, so there is no moment that it could miss; and it lasts: a daemon that comes back
 * decides what becomes of it. */
static __always_inline bool is_severed(struct workload *w)
{
	u32 zero = 0;
	struct control *c;

	if (w->severed)
		return true;
	if (!w->grace_ms)
		return false;
	c = bpf_map_lookup_elem(&control, &zero);
	if (!c || (long long)(bpf_ktime_get_ns() - c->heartbeat_ns) <= w->grace_ms * 1000000ll)
		return false;
	w->unattended = 1;
	w->severed = 1;
	return true;
}

static __always_inline u64 start_ticks_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime) / NS_PER_TICK;
}

static __always_inline void fill_header(struct event_header *h, enum event_kind kind, u64 workload,
					struct task_struct *task, u64 cgroup_id)
{
	h->time_ns = bpf_ktime_get_ns();
	h->workload = workload;
	h->cgroup_id = cgroup_id;
	h->start_ticks = start_ticks_of(task);
	h->pid = BPF_CORE_READ(task, tgid);
	h->kind = kind;
}

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* What the LSM programs have in common. Each of them is optional: where the kernel refuses one, the rest of the data plane is as
 * it would be without. None may sleep; each returns one of two constants, for newer verifiers look at the range. */
#ifndef KS_LSM_H
#define KS_LSM_H

#include "workload.h"
#include <bpf/bpf_tracing.h>

#define ALLOW 0
#define DENY (-1) /* EPERM */
#define DENIED_EVERY_NS SENDMSG_QUIET_NS
#define DENIED_FAMILY 0xfffe /* among the keys of sendmsg_seen */

struct actor {
	struct task_struct *task;
	struct cgroup *cgrp;
	struct workload *w;
	u32 slot;
};

/* The workload that acts. False: it is none of ours. */
static __always_inline bool acting(struct actor *a)
{
	if (!anything_watched())
		return false;
	a->task = (void *)bpf_get_current_task();
	a->cgrp = cgroup_of(a->task);
	a->slot = slot_of_cgroup(a->cgrp);
	a->w = workload_at(a->slot);
	return a->w;
}

static __always_inline bool is_guarded(struct actor *a, u32 guard)
{
	struct guard *g = bpf_map_lookup_elem(&guards, &a->slot);

	return g && g->guards & guard;
}

static __always_inline bool is_daemon(u32 pid)
{
	u32 zero = 0, *daemon = bpf_map_lookup_elem(&daemon_pid, &zero);

	return daemon && pid && *daemon == pid;
}

/* Was this process refused the same just now? A flood of attempts must not be a flood of events. */
static __always_inline bool refused_lately(u32 pid, enum denied_operation operation, bool to_daemon)
{
	struct sendmsg_key key = {.pid = pid, .port = operation, .family = DENIED_FAMILY};
	u64 now = bpf_ktime_get_ns(), *last;

	key.address[0] = to_daemon;
	last = bpf_map_lookup_elem(&sendmsg_seen, &key);
	if (last && now - *last < DENIED_EVERY_NS)
		return true;
	bpf_map_update_elem(&sendmsg_seen, &key, &now, BPF_ANY);
	return false;
}

static __always_inline void count_denied(u32 slot, enum denied_operation operation)
{
	struct guard *g = bpf_map_lookup_elem(&guards, &slot);

	if (g)
		__sync_fetch_and_add(&g->denied[operation], 1);
}

static __always_inline void fill_denied(struct denied_event *e, struct actor *a, enum denied_operation operation)
{
	struct task_struct *task = a->task; /* CO-RE follows every member that it is given, and `struct actor` is no kernel's */

	__builtin_memset(e, 0, sizeof(*e));
	fill_header(&e->header, EVENT_DENIED, a->w->cgroup_id, a->task, cgroup_id_of(a->cgrp));
	e->operation = operation;
	e->uid = BPF_CORE_READ(task, cred, uid.val);
	e->clause = -1;
	BPF_CORE_READ_INTO(&e->comm, task, comm);
}

/* Counts it, and tells of it: `number` is for people, `target` a process, `name` a kernel string where there is none; both may be
 * NULL. Always DENY. */
static __always_inline int refuse(struct actor *a, enum denied_operation operation, bool severed, u32 number,
				  struct task_struct *target, const char *name)
{
	u32 pid = target ? BPF_CORE_READ(target, tgid) : 0;
	struct task_struct *task = a->task;
	bool to_daemon = is_daemon(pid);
	struct denied_event *e;
	long n = 0;

	count_denied(a->slot, operation);
	if (refused_lately(BPF_CORE_READ(task, tgid), operation, to_daemon))
		return DENY;
	e = bpf_ringbuf_reserve(&exec_ring, sizeof(*e), 0);
	if (!e) {
		count_loss(a->slot, LOST_EXEC_RING_FULL);
		return DENY;
	}
	fill_denied(e, a, operation);
	e->number = number;
	e->severed = severed;
	e->to_daemon = to_daemon;
	e->target_pid = pid;
	if (target) {
		e->target_start_ticks = start_ticks_of(target);
		n = bpf_probe_read_kernel_str(e->target, COMM_BYTES, &BPF_CORE_READ(target, group_leader)->comm);
	} else if (name) {
		n = bpf_probe_read_kernel_str(e->target, DENIED_TARGET, name);
	}
	e->target_len = n > 0 ? n - 1 : 0;
	bpf_ringbuf_submit(e, 0);
	return DENY;
}

#endif

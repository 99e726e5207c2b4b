// SPDX-License-Identifier: GPL-2.0
/* Cgroups: processes that are moved between them, cgroups made and removed (user space matches policies' globs). */
#include "leave.h"
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

struct path_scratch {
	struct cgroup_event event;
	char path[CGROUP_PATH_BYTES];
};

/* The kernel holds its own lock around these tracepoints (it fills one buffer with the path): one at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct path_scratch);
} cgroup_scratch SEC(".maps");

static __always_inline struct path_scratch *path_scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cgroup_scratch, &zero);
}

static __always_inline void send_with_path(struct path_scratch *s, u32 slot, const char *path)
{
	long n = bpf_probe_read_kernel_str(s->path, sizeof(s->path), path);

	s->event.path_len = n > 0 ? n - 1 : 0;
	if (s->event.path_len >= CGROUP_PATH_BYTES - 1)
		count_loss(slot, LOST_PATH_CUT);
	send_exec(slot, s, sizeof(s->event) + (s->event.path_len & (CGROUP_PATH_BYTES - 1)));
}

static __always_inline bool is_v2(struct cgroup *cgrp)
{
	return BPF_CORE_READ(cgrp, root, hierarchy_id) == 0;
}

/* The workload of the process that runs here. What has moved itself may be outside by now, and counts as inside. */
static __always_inline u32 slot_of_mover(void)
{
	struct task_struct *mover = (void *)bpf_get_current_task();
	struct process_place *known = place_of(mover);

	return known && known->slot ? known->slot : slot_of_cgroup(cgroup_of(mover));
}

/* Out of a workload that is cut off, and by no operator's hand? */
static __always_inline bool lets_out(struct process_place *was, u32 to_slot, bool by_outsider)
{
	return was->slot && was->slot != to_slot && !by_outsider && is_cut_off(was->slot);
}

static __always_inline void record(u32 tgid, struct process_place *place)
{
	if (!place->slot)
		bpf_map_delete_elem(&processes, &tgid);
	else if (bpf_map_update_elem(&processes, &tgid, place, BPF_ANY))
		count_loss(place->slot, LOST_TRACKING_FULL);
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_move, struct cgroup *to, const char *path, struct task_struct *task)
{
	struct process_place *known, was = {}, place = {};
	u32 tgid, mover, mover_slot;
	struct workload *w;
	struct path_scratch *s;
	bool by_outsider;

	if (!anything_watched() || !is_v2(to))
		return 0;
	tgid = BPF_CORE_READ(task, tgid);
	known = place_of(task);
	if (known)
		was = *known;
	place.slot = slot_of_cgroup(to);
	if (!(was.slot | place.slot)) /* numbers, not pointers: the verifier forbids to OR those, and clang would */
		return 0;
	s = path_scratch();
	if (!s)
		return 0;
	place.cgroup_id = cgroup_id_of(to);
	place.start_ticks = start_ticks_of(task);
	if (was.cgroup_id == place.cgroup_id)
		return 0;
	w = workload_at(place.slot);
	place.workload = w ? w->cgroup_id : 0;
	mover = bpf_get_current_pid_tgid() >> 32;
	mover_slot = slot_of_mover();
	by_outsider = mover != tgid && !mover_slot; /* an operator, a service manager */
	fill_header(&s->event.header, EVENT_CGROUP_MOVE, was.slot ? was.workload : place.workload, task, was.cgroup_id);
	s->event.to_cgroup = place.cgroup_id;
	s->event.to_workload = place.workload;
	s->event.moved_by = by_outsider ? mover : 0;
	if (lets_out(&was, place.slot, by_outsider)) {
		was.left = 1;
		was.cgroup_id = place.cgroup_id;
		was.start_ticks = place.start_ticks;
		record(tgid, &was);
		stop_both(task, was.slot, mover == tgid || is_cut_off(mover_slot));
	} else {
		record(tgid, &place);
	}
	send_with_path(s, was.slot ? was.slot : place.slot, path);
	return 0;
}

/* The child has not run yet. on_fork puts it on record. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_birth, struct task_struct *parent, struct task_struct *child)
{
	struct process_place *known;
	struct cgroup *from, *to;
	u32 slot;

	if (!anything_watched())
		return 0;
	known = place_of(parent);
	if (has_left(known)) { /* before its own end reached it */
		stop_both(child, known->slot, true);
		return 0;
	}
	from = cgroup_of(parent);
	to = cgroup_of(child);
	if (from == to)
		return 0;
	slot = slot_of_cgroup(from);
	if (slot && slot != slot_of_cgroup(to) && is_cut_off(slot))
		stop_both(child, slot, true);
	return 0;
}

static __always_inline void send_cgroup(struct cgroup *cgrp, const char *path, enum event_kind kind)
{
	struct path_scratch *s = path_scratch();

	if (!s || !is_v2(cgrp))
		return;
	s->event.header = (struct event_header){
		.time_ns = bpf_ktime_get_ns(), .cgroup_id = cgroup_id_of(cgrp), .kind = kind};
	s->event.to_cgroup = 0;
	s->event.to_workload = 0;
	s->event.moved_by = 0;
	send_with_path(s, 0, path);
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_mkdir, struct cgroup *cgrp, const char *path)
{
	send_cgroup(cgrp, path, EVENT_CGROUP_CREATED);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_rmdir, struct cgroup *cgrp, const char *path)
{
	send_cgroup(cgrp, path, EVENT_CGROUP_REMOVED);
	return 0;
}

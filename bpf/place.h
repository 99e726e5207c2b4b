/* SPDX-License-Identifier: GPL-2.0 */
/* Where a process is on record. A move is told of after it was made, and a signal arrives a little later still: on another CPU
 * a process runs in its new cgroup all that time. So one that was let out while its workload was cut off stays on record as
 * that workload's, whatever its cgroup says, until it has ended. */
#ifndef KS_PLACE_H
#define KS_PLACE_H

#include "workload.h"

/* NULL also where the record is of another, which had the same number before. */
static __always_inline struct process_place *place_of(struct task_struct *task)
{
	u32 tgid = BPF_CORE_READ(task, tgid);
	struct process_place *place = bpf_map_lookup_elem(&processes, &tgid);

	return place && (!place->start_ticks || place->start_ticks == start_ticks_of(task)) ? place : NULL;
}

/* The workload of this record; NULL when its slot is another's by now. */
static __always_inline struct workload *recorded_workload(struct process_place *place)
{
	struct workload *w = place ? workload_at(place->slot) : NULL;

	return w && w->cgroup_id == place->workload ? w : NULL;
}

static __always_inline bool is_cut_off(u32 slot)
{
	struct workload *w = workload_at(slot);

	return w && (is_severed(w) || w->frozen);
}

/* It is outside, and should be no more. */
static __always_inline bool has_left(struct process_place *place)
{
	struct workload *w = place && place->left ? recorded_workload(place) : NULL;

	return w && (is_severed(w) || w->frozen);
}

/* The slot of a severed workload of which the process that runs here is on record, wherever it is by now: it may reach no
 * network. */
static __always_inline u32 cut_off_here(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct process_place *place;
	struct workload *w;

	if (!anything_watched())
		return 0;
	place = place_of(task);
	w = recorded_workload(place);
	return w && (is_severed(w) || (place->left && w->frozen)) ? place->slot : 0;
}

#endif

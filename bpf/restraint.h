/* SPDX-License-Identifier: GPL-2.0 */
/* Whether a verdict may be carried out: never on who is protected, and no more often than the budget of automatic kills allows.
 * What may not be is told as if the rule only monitored; user space, which knows the budget better, judges it again. */
#ifndef KS_RESTRAINT_H
#define KS_RESTRAINT_H

#include "workload.h"

/* Slot -> what must not be done to the workload, and whether it counts against the budget. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u32);
	__type(value, struct restraint);
} restraints SEC(".maps") __weak;

/* One element, mapped by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct kill_budget);
} kill_budget SEC(".maps") __weak;

/* Tgid of who must never be killed -> twice the ticks when it started, and 1 more for an sshd of the operators. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u64);
} protected_processes SEC(".maps") __weak;

/* Of a process that makes a socket or runs a program: it, and not one that has its number by now. */
static __always_inline bool is_protected(u32 tgid, u64 start_ticks)
{
	u64 *known = bpf_map_lookup_elem(&protected_processes, &tgid);

	return known && *known >> 1 == start_ticks;
}

static __always_inline bool is_way_in(u32 tgid, u64 start_ticks)
{
	u64 *known = bpf_map_lookup_elem(&protected_processes, &tgid);

	return known && *known == (start_ticks << 1 | 1);
}

/* Whether an automatic act on this workload is within the budget; it counts from then on. Who is contained already, or was hit
 * already, costs nothing more. Without atomics that give the old value (they came with 5.12) as many CPUs as decide at one
 * instant may all take what is left: the budget is exceeded by their number at most. `counts`: what only refuses a flow does
 * not, but holds back with the rest once the budget is used up. */
static __always_inline bool within_budget(struct workload *w, struct restraint *r, bool counts)
{
	u32 zero = 0;
	struct kill_budget *b;

	if (w->severed | w->frozen | r->charged)
		return true;
	b = bpf_map_lookup_elem(&kill_budget, &zero);
	if (!b || !b->until)
		return true;
	if (b->spent + 1 >= b->until)
		return false;
	if (!counts)
		return true;
	r->charged = 1; /* before it is counted: user space reads the two the other way round */
	__sync_fetch_and_add(&b->spent, 1);
	return true;
}

#endif

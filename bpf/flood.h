/* SPDX-License-Identifier: GPL-2.0 */
/* A workload that makes events faster than they are read must not crowd out another's. While a ring is no more than a quarter
 * full everybody may write. Beyond that, each workload has a bucket of bytes for each ring that fills again with time: who
 * has emptied it waits, which is counted, and who has not finds room. */
#ifndef KS_FLOOD_H
#define KS_FLOOD_H

#include "maps.h"

#define FLOOD_NS 1000000000ull

/* Slot -> its buckets. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u32);
	__type(value, struct flood);
} floods SEC(".maps") __weak;

/* Whether there is no room for `size` bytes of this workload. `bucket`: what it may have had beyond the common quarter, of which
 * as much again comes back in four seconds. Two CPUs may count one record for both: a bucket is a measure, not an account. */
static __always_inline bool floods_ring(u32 slot, u64 *used, u64 *since, u64 size, u64 waiting, u64 ring)
{
	u64 bucket = ring / 16, now, back;

	if (waiting < ring / 4)
		return false;
	now = bpf_ktime_get_ns();
	back = now - *since > 4 * FLOOD_NS ? bucket : (now - *since) / (4 * FLOOD_NS / bucket);
	if (back) {
		*used = *used > back ? *used - back : 0;
		*since = now;
	}
	if (*used + size > bucket)
		return true;
	*used += size;
	return false;
}

static __always_inline bool floods_exec_ring(u32 slot, u64 size)
{
	struct flood *f = slot ? bpf_map_lookup_elem(&floods, &slot) : NULL;

	return f && floods_ring(slot, &f->exec_used, &f->exec_since, size,
				bpf_ringbuf_query(&exec_ring, BPF_RB_AVAIL_DATA), EXEC_RING_BYTES);
}

static __always_inline bool floods_flow_ring(u32 slot, u64 size, u64 waiting)
{
	struct flood *f = slot ? bpf_map_lookup_elem(&floods, &slot) : NULL;

	return f && floods_ring(slot, &f->flow_used, &f->flow_since, size, waiting, FLOW_RING_BYTES);
}

#endif

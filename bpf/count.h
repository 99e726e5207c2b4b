/* SPDX-License-Identifier: GPL-2.0 */
/* What is lost is counted, by workload and by reason. */
#ifndef KS_COUNT_H
#define KS_COUNT_H

#include "flood.h"

static __always_inline void count_loss(u32 slot, enum loss_reason reason)
{
	struct losses *lost = bpf_map_lookup_elem(&losses, &slot);

	if (lost)
		lost->count[reason]++;
}

/* Each of these wakes user space at once when it has nothing else to read. Whether there was room. */
static __always_inline bool send_exec(u32 slot, void *record, u64 size)
{
	if (floods_exec_ring(slot, size)) {
		count_loss(slot, LOST_EXECS_FLOODED);
		return false;
	}
	if (!bpf_ringbuf_output(&exec_ring, record, size, 0))
		return true;
	count_loss(slot, LOST_EXEC_RING_FULL);
	return false;
}

/* These wait for user space's timer, unless so many wait that it had better come now. It is woken while the ring fills
 * past that mark and not for each record beyond it: once woken, it finds the ring readable until it has read. */
static __always_inline void send_flow(u32 slot, void *record, u64 size)
{
	u64 waiting = bpf_ringbuf_query(&flow_ring, BPF_RB_AVAIL_DATA);
	u64 wake = waiting - FLOW_WAKE_BYTES < FLOW_WAKE_SPAN ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;

	if (floods_flow_ring(slot, size, waiting))
		count_loss(slot, LOST_FLOWS_FLOODED);
	else if (bpf_ringbuf_output(&flow_ring, record, size, wake))
		count_loss(slot, LOST_FLOW_RING_FULL);
}

#endif

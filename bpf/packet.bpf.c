// SPDX-License-Identifier: GPL-2.0
/* Packets of watched workloads' sockets: counted, dropped both ways when severed, whatever the protocol, and their first
 * bytes judged. */
#include "bursts.h"
#include "hold.h"
#include "probing.h"

char LICENSE[] SEC("license") = "GPL";

DESCRIBE(wire_event);

#define PASS 1
#define DROP 0 /* the caller sees EPERM; TCP sends it again, each time after twice the time */
#define DROP_SILENTLY 2 /* as a full queue does: unless it asked for errors, the sender is not told */

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	u32 slot;
	struct workload *w = attached_workload(&slot);
	struct flow *f = bpf_map_lookup_elem(&flows, &slot);

	if (!w || !f)
		return DROP; /* attached, but not yet told for whom: closed until it is */
	if (is_severed(w)) {
		f->tx_dropped++;
		return DROP;
	}
	if (may_be_held(w)) {
		int held = is_held(skb, slot);

		if (held) {
			f->tx_held++;
			return held == HELD_STREAM ? DROP : DROP_SILENTLY;
		}
	}
	if (!may_leave(skb)) {
		f->tx_dropped++;
		return DROP;
	}
	note_raw_packet(skb, slot);
	f->tx_packets++;
	f->tx_bytes += skb->len;
	note_traffic(skb, WIRE_SENT);
	return PASS;
}

SEC("cgroup_skb/ingress")
int on_ingress(struct __sk_buff *skb)
{
	u32 slot;
	struct workload *w = attached_workload(&slot);
	struct flow *f = bpf_map_lookup_elem(&flows, &slot);

	if (!w || !f)
		return DROP;
	if (is_severed(w) || !may_enter(skb)) {
		f->rx_dropped++;
		return DROP;
	}
	note_answer(skb, slot);
	f->rx_packets++;
	f->rx_bytes += skb->len;
	note_traffic(skb, WIRE_RECEIVED);
	return PASS;
}

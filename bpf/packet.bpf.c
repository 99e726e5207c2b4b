// SPDX-License-Identifier: GPL-2.0
/* Packets of watched workloads' sockets: counted, dropped both ways when severed, whatever the protocol, and their first
 * bytes judged. */
#include "bursts.h"
#include "probing.h"

char LICENSE[] SEC("license") = "GPL";

DESCRIBE(wire_event);

#define PASS 1
#define DROP 0

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	u32 slot;
	struct workload *w = attached_workload(&slot);
	struct flow *f = bpf_map_lookup_elem(&flows, &slot);

	if (!w || !f)
		return DROP; /* attached, but not yet told for whom: closed until it is */
	if (is_severed(w) || !may_leave(skb)) {
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
	f->rx_packets++;
	f->rx_bytes += skb->len;
	note_traffic(skb, WIRE_RECEIVED);
	return PASS;
}

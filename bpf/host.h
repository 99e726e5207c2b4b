/* SPDX-License-Identifier: GPL-2.0 */
/* The whole host, cut off: what still goes through. Judged twice: by the sockets' cgroup (so in every network namespace),
 * and by frame at the devices of the host's own namespace (so whatever sends it, forwarded frames too). */
#ifndef KS_HOST_H
#define KS_HOST_H

#include "workload.h"
#include <bpf/bpf_endian.h>

#define LOOPBACK_IFINDEX 1 /* in every network namespace */
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86DD
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMP6 58
#define TCP_SYN 0x02
#define TCP_ACK 0x10

/* What the rules look at. Ports are 0 where there are none (a later fragment, a protocol that has none). */
struct parcel {
	u64 local[2]; /* network order, IPv4 mapped */
	u64 remote[2];
	u32 device;
	u16 local_port;
	u16 remote_port;
	u8 protocol;
	u8 begins; /* the first segment of a TCP connection */
	u8 passes; /* without it no address could be found, or no path kept: whatever the rules say */
};

static __always_inline struct host *the_host(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&host, &zero);
}

static __always_inline void map_ipv4(u64 *address, u32 ipv4)
{
	address[0] = 0;
	((u32 *)address)[2] = bpf_htonl(0xFFFF);
	((u32 *)address)[3] = ipv4;
}

static __always_inline int read_net(struct __sk_buff *skb, u32 at, void *to, u32 size)
{
	return bpf_skb_load_bytes_relative(skb, at, to, size, BPF_HDR_START_NET);
}

/* The ports, and whether it begins a connection. */
static __always_inline void read_transport(struct __sk_buff *skb, u32 at, bool out, struct parcel *p)
{
	u16 ports[2];
	u8 flags = 0;

	if (p->protocol != PROTOCOL_TCP && p->protocol != PROTOCOL_UDP)
		return;
	if (read_net(skb, at, ports, sizeof(ports)))
		return;
	p->local_port = bpf_ntohs(out ? ports[0] : ports[1]);
	p->remote_port = bpf_ntohs(out ? ports[1] : ports[0]);
	if (p->protocol == PROTOCOL_TCP && !read_net(skb, at + 13, &flags, 1))
		p->begins = (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline bool read_ipv4(struct __sk_buff *skb, bool out, struct parcel *p)
{
	u8 head[20], icmp[2];
	u32 at;

	if (read_net(skb, 0, head, sizeof(head)))
		return false;
	map_ipv4(out ? p->local : p->remote, *(u32 *)(head + 12));
	map_ipv4(out ? p->remote : p->local, *(u32 *)(head + 16));
	p->protocol = head[9];
	if ((head[6] & 0x1F) | head[7])
		return true; /* a later fragment */
	at = (head[0] & 15) * 4;
	read_transport(skb, at, out, p);
	/* "Fragmentation needed": a path that has become narrower must not be the end of the control channel. */
	if (p->protocol == PROTOCOL_ICMP && !out && !read_net(skb, at, icmp, sizeof(icmp)))
		p->passes = icmp[0] == 3 && icmp[1] == 4;
	return true;
}

static __always_inline bool read_ipv6(struct __sk_buff *skb, bool out, struct parcel *p)
{
	u8 next, type;

	if (read_net(skb, 6, &next, 1) || read_net(skb, 8, out ? p->local : p->remote, 16) ||
	    read_net(skb, 24, out ? p->remote : p->local, 16))
		return false;
	p->protocol = next;
	read_transport(skb, 40, out, p);
	/* Neighbour and router discovery, and "packet too big". */
	if (next == PROTOCOL_ICMP6 && !read_net(skb, 40, &type, 1))
		p->passes = (type >= 133 && type <= 137) || (!out && type == 2);
	return true;
}

static __always_inline bool rule_lets(struct host_rule *r, struct parcel *p, bool out)
{
	if (r->device && r->device != p->device)
		return false;
	if (r->protocol && r->protocol != p->protocol)
		return false;
	if ((p->remote[0] & r->mask[0]) != r->address[0] || (p->remote[1] & r->mask[1]) != r->address[1])
		return false;
	if (p->local_port < r->local_low || p->local_port > r->local_high)
		return false;
	if (p->remote_port < r->remote_low || p->remote_port > r->remote_high)
		return false;
	return !p->begins || r->begun_by == BEGUN_BY_EITHER || r->begun_by == (out ? BEGUN_BY_US : BEGUN_BY_THEM);
}

/* May this packet of the host go through? True while the host is not cut off. */
static __always_inline bool host_lets(struct __sk_buff *skb, bool out)
{
	struct host *h = the_host();
	struct parcel p = {};
	u16 kind = bpf_ntohs(skb->protocol);

	if (!h || !h->cut || skb->ifindex == LOOPBACK_IFINDEX)
		return true;
	p.device = skb->ifindex;
	if (kind == ETHERTYPE_ARP)
		return true;
	if (kind == ETHERTYPE_IPV4) {
		if (!read_ipv4(skb, out, &p))
			return false;
	} else if (kind == ETHERTYPE_IPV6) {
		if (!read_ipv6(skb, out, &p))
			return false;
	} else {
		return false;
	}
	if (p.passes)
		return true;
	for (u32 i = 0; i < MAX_HOST_RULES; i++) {
		u32 at = i;
		struct host_rule *r;

		if (i >= h->rules)
			break;
		r = bpf_map_lookup_elem(&host_rules, &at);
		if (r && rule_lets(r, &p, out))
			return true;
	}
	return false;
}

static __always_inline void count_host(bool out)
{
	u32 zero = 0;
	struct flow *f = bpf_map_lookup_elem(&host_flow, &zero);

	if (!f)
		return;
	if (out)
		f->tx_dropped++;
	else
		f->rx_dropped++;
}

#endif

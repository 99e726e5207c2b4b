// SPDX-License-Identifier: GPL-2.0
/* What programs on a workload's cgroup do not see: frames of packet sockets, frames that are forwarded, and the host as a
 * whole. */
#include "host.h"
#include "place.h"

char LICENSE[] SEC("license") = "GPL";

DESCRIBE(host);

#define AF_INET 2
#define AF_INET6 10
#define NEXT (-1) /* TC_ACT_UNSPEC, TCX_NEXT: whoever else is attached decides */
#define SHOT 2
#define PASS 1
#define DROP 0

/* The slot of a severed workload that this frame's socket belongs to. Inet sockets are left to the cgroup's programs. */
static __always_inline u32 severed_sender(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	u32 here;

	if (!sk || sk->family == AF_INET || sk->family == AF_INET6 || !anything_watched())
		return 0;
	/* What left it may have made the socket elsewhere. Frames of packet sockets come here in the context of who sends. */
	here = cut_off_here();
	if (here)
		return here;
	for (u32 level = 1; level <= MAX_WORKLOAD_LEVEL; level++) {
		u64 id = bpf_skb_ancestor_cgroup_id(skb, level);
		u32 *slot;
		struct workload *w;

		if (!id)
			break;
		slot = bpf_map_lookup_elem(&workload_by_cgroup, &id);
		w = slot ? workload_at(*slot) : NULL;
		if (w && is_severed(w))
			return *slot;
	}
	return 0;
}

static __always_inline int judge_frame(struct __sk_buff *skb)
{
	u32 slot = severed_sender(skb);

	if (slot) {
		struct flow *f = bpf_map_lookup_elem(&flows, &slot);

		if (f)
			f->tx_dropped++;
		return SHOT;
	}
	return NEXT;
}

SEC("tc")
int on_frame_out(struct __sk_buff *skb)
{
	return judge_frame(skb);
}

/* At devices into which a program writes frames (tun, tap): what comes in there was made by the socket of who opened it. */
SEC("tc")
int on_frame_written(struct __sk_buff *skb)
{
	return judge_frame(skb);
}

/* At the devices of a network namespace in which only severed workloads live: whatever the kernel sends there by itself
 * (forwards, encapsulates, copies, answers) is for them. */
SEC("tc")
int on_sealed(struct __sk_buff *skb)
{
	return SHOT;
}

/* At the devices of the host's own namespace, beside the former. What it has received and hands on is never let through:
 * what may go through goes to the host itself. */
SEC("tc")
int on_host_frame_out(struct __sk_buff *skb)
{
	struct host *h = the_host();

	if (!h || !h->cut || skb->ifindex == LOOPBACK_IFINDEX)
		return NEXT;
	if (!skb->ingress_ifindex && host_lets(skb, true))
		return NEXT;
	count_host(true);
	return SHOT;
}

SEC("tc")
int on_host_frame_in(struct __sk_buff *skb)
{
	if (host_lets(skb, false))
		return NEXT;
	count_host(false);
	return SHOT;
}

/* At the host's cgroup: the root of the tree. */
SEC("cgroup_skb/egress")
int on_host_egress(struct __sk_buff *skb)
{
	if (host_lets(skb, true))
		return PASS;
	count_host(true);
	return DROP;
}

SEC("cgroup_skb/ingress")
int on_host_ingress(struct __sk_buff *skb)
{
	if (host_lets(skb, false))
		return PASS;
	count_host(false);
	return DROP;
}

/* A packet socket that goes round the queueing layer goes round on_frame_out: no watched workload may ask for that. An
 * AF_XDP socket cannot be held up once it is set up, and cannot be set up without these: not when severed. */
SEC("cgroup/setsockopt")
int on_setsockopt(struct bpf_sockopt *ctx)
{
	u32 slot, *value = ctx->optval;
	struct workload *w = attached_workload(&slot);

	if (ctx->optlen > 4096)
		ctx->optlen = 0; /* the kernel has not copied all of it: the caller's own is to be used */
	if (!w)
		return PASS;
	/* Some have the kernel send something by itself: joining a multicast group is reported, by name. */
	if (ctx->sk && (ctx->sk->family == AF_INET || ctx->sk->family == AF_INET6))
		return !is_severed(w);
	if (ctx->level == SOL_XDP)
		return !is_severed(w);
	if (ctx->level != SOL_PACKET || ctx->optname != PACKET_QDISC_BYPASS)
		return PASS;
	if ((void *)(value + 1) > ctx->optval_end)
		return PASS; /* the kernel will refuse it */
	return !*value;
}

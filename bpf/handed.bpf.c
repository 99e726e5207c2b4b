// SPDX-License-Identifier: GPL-2.0
/* Sockets that a workload holds and did not make: inherited, passed in, made before the process joined. The programs on its
 * cgroup do not see them, for a socket is for ever of the cgroup that made it. So user space marks them when it cuts the
 * workload off, and while there are any these lie on the root of the tree. */
#include "workload.h"

char LICENSE[] SEC("license") = "GPL";

#define PASS 1
#define DROP 0

static __always_inline bool is_cut(struct handed *h)
{
	struct workload *w = h ? workload_at(h->slot) : NULL;

	return w && w->cgroup_id == h->cgroup_id && is_severed(w);
}

static __always_inline int judge_packet(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	return sk && is_cut(bpf_sk_storage_get(&handed_sockets, sk, NULL, 0)) ? DROP : PASS;
}

SEC("cgroup_skb/egress")
int on_handed_egress(struct __sk_buff *skb)
{
	return judge_packet(skb);
}

SEC("cgroup_skb/ingress")
int on_handed_ingress(struct __sk_buff *skb)
{
	return judge_packet(skb);
}

/* Joining a multicast group has the kernel send a report. */
SEC("cgroup/setsockopt")
int on_handed_setsockopt(struct bpf_sockopt *ctx)
{
	if (ctx->optlen > 4096)
		ctx->optlen = 0; /* the kernel has not copied all of it: the caller's own is to be used */
	return ctx->sk && is_cut(bpf_sk_storage_get(&handed_sockets, ctx->sk, NULL, 0)) ? DROP : PASS;
}

DESCRIBE(handed);

// SPDX-License-Identifier: GPL-2.0
/* Unix sockets of severed workloads, where the kernel asks programs on a cgroup about them (6.7) and has no BPF LSM, which could
 * tell who is at the far end: no new connection, and no datagram to an address, whoever listens there. */
#include "workload.h"

char LICENSE[] SEC("license") = "GPL";

#define ALLOW 1
#define DENY 0 /* the caller sees EPERM */

static __always_inline int judge_unix(void)
{
	u32 slot;
	struct workload *w = attached_workload(&slot);

	return w && is_severed(w) ? DENY : ALLOW;
}

SEC("cgroup/connect_unix")
int on_connect_unix(struct bpf_sock_addr *ctx)
{
	return judge_unix();
}

SEC("cgroup/sendmsg_unix")
int on_sendmsg_unix(struct bpf_sock_addr *ctx)
{
	return judge_unix();
}

// SPDX-License-Identifier: GPL-2.0
/* At the root of the cgroup tree: a process that is let out of a severed workload gets no socket wherever it is. A socket belongs
 * to the cgroup in which its maker is, so what it would make in its new one, before it dies, no program of its workload's
 * would see. For everybody else this is one look into a map, for each socket that is made. */
#include "place.h"

char LICENSE[] SEC("license") = "GPL";

#define ALLOW 1
#define DENY 0 /* the caller sees EPERM */

SEC("cgroup/sock_create")
int on_socket_outside(struct bpf_sock *ctx)
{
	return cut_off_here() ? DENY : ALLOW;
}

/* Packet sockets are made without asking anybody; their frames are judged at the devices, by who sends (frames.bpf.c), but for
 * those that go round that. Attached when the first device is. */
SEC("cgroup/setsockopt")
int on_option_outside(struct bpf_sockopt *ctx)
{
	if (ctx->optlen > 4096)
		ctx->optlen = 0; /* the kernel has not copied all of it: the caller's own is to be used */
	if (ctx->level != SOL_XDP && (ctx->level != SOL_PACKET || ctx->optname != PACKET_QDISC_BYPASS))
		return ALLOW;
	return cut_off_here() ? DENY : ALLOW;
}

/* SPDX-License-Identifier: GPL-2.0 */
/* The connections that a workload makes, from when it connects. Accepted ones are not kept. */
#ifndef KS_TRAFFIC_H
#define KS_TRAFFIC_H

#include "maker.h"

#define ACTIVITY_NS 20000000ull /* how fresh the mark of activity is kept */

static __always_inline void mark_activity(u64 now)
{
	u32 zero = 0;
	struct traffic_activity *a = bpf_map_lookup_elem(&traffic_activity, &zero);

	if (a && now - a->last_ns > ACTIVITY_NS)
		a->last_ns = now;
}

/* In the context of the task that connects, or sends to an address; `e` says who, and where to. */
static __always_inline void begin_traffic(struct bpf_sock_addr *ctx, struct socket_event *e)
{
	u64 cookie = bpf_get_socket_cookie(ctx);
	struct traffic *blank, *t;
	u32 zero = 0;

	if (!cookie || (e->operation == OPERATION_SENDMSG && bpf_map_lookup_elem(&traffic, &cookie)))
		return;
	blank = bpf_map_lookup_elem(&traffic_blank, &zero);
	if (!blank || bpf_map_update_elem(&traffic, &cookie, blank, BPF_ANY))
		return;
	t = bpf_map_lookup_elem(&traffic, &cookie);
	if (!t)
		return;
	t->workload = e->header.workload;
	t->start_ticks = e->header.start_ticks;
	t->pid = e->header.pid;
	t->uid = e->uid;
	t->began_ns = t->last_ns = e->header.time_ns;
	__builtin_memcpy(t->comm, e->comm, sizeof(t->comm));
	__builtin_memcpy(t->remote, e->address, sizeof(t->remote));
	t->remote_port = e->port;
	t->family = e->family;
	t->protocol = e->protocol;
	mark_activity(t->began_ns);
}

#endif

// SPDX-License-Identifier: GPL-2.0
/* Sockets of watched workloads: where they connect and send to, what they bind and listen on. Denied when severed. */
#include "hold.h"
#include "traffic.h"
#include "probing.h"
#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "GPL";

DESCRIBE(socket_event);

#define ALLOW 1
#define DENY 0 /* the caller sees EPERM */
#define IPPROTO_TCP 6

static __always_inline void fill_socket(struct socket_event *e, struct workload *w, enum event_kind kind)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	fill_header(&e->header, kind, w->cgroup_id, task, cgroup_id_of(cgroup_of(task)));
	BPF_CORE_READ_INTO(&e->comm, task, comm);
	e->uid = BPF_CORE_READ(task, cred, uid.val);
	e->denied = is_severed(w);
}

static __always_inline void fill_address(struct socket_event *e, struct bpf_sock_addr *ctx, u8 family)
{
	u32 *word = (u32 *)e->address;

	e->family = family;
	e->protocol = ctx->protocol;
	e->port = bpf_ntohs(ctx->user_port);
	if (family == AF_INET) {
		word[0] = ctx->user_ip4;
		return;
	}
	word[0] = ctx->user_ip6[0];
	word[1] = ctx->user_ip6[1];
	word[2] = ctx->user_ip6[2];
	word[3] = ctx->user_ip6[3];
}

/* Was this process seen sending to this address just now? A flood of datagrams must not be a flood of events. */
static __always_inline bool seen_lately(struct socket_event *e)
{
	struct sendmsg_key key = {.pid = e->header.pid, .port = e->port, .family = e->family};
	u64 *last;

	__builtin_memcpy(key.address, e->address, sizeof(key.address));
	last = bpf_map_lookup_elem(&sendmsg_seen, &key);
	if (last && e->header.time_ns - *last < SENDMSG_QUIET_NS)
		return true;
	bpf_map_update_elem(&sendmsg_seen, &key, &e->header.time_ns, BPF_ANY);
	return false;
}

/* Whose the flow is from now on. Nothing to do while no rule looks at the wire. */
static __always_inline void note_connecting(struct bpf_sock_addr *ctx)
{
	struct wire_maker *maker;
	u32 half;

	if (!wire_is_judged(policy_in_force(&half)) || !ctx->sk)
		return;
	maker = bpf_sk_storage_get(&wire_makers, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!maker)
		return;
	note_maker(maker);
	maker->outbound = 1;
}

static __always_inline int judge_address(struct bpf_sock_addr *ctx, u8 family, enum socket_operation operation)
{
	struct socket_event e = {};
	struct workload *w;
	u32 slot;

	w = attached_workload(&slot);
	if (!w)
		return ALLOW; /* no packet leaves all the same: the packet programs drop until they know their workload */
	if (operation == OPERATION_CONNECT)
		note_connecting(ctx);
	if (operation != OPERATION_BIND && ctx->sk && may_be_held(w)) {
		wait_for_judgement();
		hold_socket(w, slot, ctx->sk);
	}
	fill_socket(&e, w, operation == OPERATION_BIND ? EVENT_LISTEN : EVENT_CONNECT);
	fill_address(&e, ctx, family);
	e.operation = operation;
	if (operation != OPERATION_BIND && !w->severed)
		begin_traffic(ctx, &e);
	if (operation == OPERATION_SENDMSG && seen_lately(&e)) {
		count_loss(slot, LOST_SENDMSG_SUPPRESSED);
	} else {
		if (operation == OPERATION_SENDMSG)
			note_asked(&e, slot);
		send_flow(slot, &e, sizeof(e));
	}
	return e.denied ? DENY : ALLOW;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	return judge_address(ctx, AF_INET, OPERATION_CONNECT);
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	return judge_address(ctx, AF_INET6, OPERATION_CONNECT);
}

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	return judge_address(ctx, AF_INET, OPERATION_SENDMSG);
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	return judge_address(ctx, AF_INET6, OPERATION_SENDMSG);
}

SEC("cgroup/bind4")
int on_bind4(struct bpf_sock_addr *ctx)
{
	return judge_address(ctx, AF_INET, OPERATION_BIND);
}

SEC("cgroup/bind6")
int on_bind6(struct bpf_sock_addr *ctx)
{
	return judge_address(ctx, AF_INET6, OPERATION_BIND);
}

SEC("cgroup/sock_create")
int on_sock_create(struct bpf_sock *ctx)
{
	u32 slot, half;
	struct workload *w = attached_workload(&slot);
	struct wire_maker *maker;

	if (w && is_severed(w))
		return DENY;
	if (w && may_be_held(w))
		hold_socket(w, slot, ctx);
	if (wire_is_judged(policy_in_force(&half))) {
		maker = bpf_sk_storage_get(&wire_makers, ctx, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (maker)
			note_maker(maker);
	}
	return ALLOW;
}

/* Called for many things; of interest are listen(2), and how a connect(2) ends. The answer -1 is "nothing to say" for all
 * the others. */
SEC("sockops")
int on_sockops(struct bpf_sock_ops *ctx)
{
	struct socket_event e = {};
	u32 *word = (u32 *)e.address;
	struct workload *w;
	u32 slot, from, to;

	from = ctx->args[0]; /* the answer lies where the arguments were */
	to = ctx->args[1];
	ctx->reply = -1;
	if (ctx->op == BPF_SOCK_OPS_TIMEOUT_INIT) {
		w = attached_workload(&slot);
		if (w && may_be_held(w))
			ctx->reply = syn_timeout(ctx);
		return 1;
	}
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		/* Others' programs may have asked for calls of their own: none is taken from them, here or later. */
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	}
	if (ctx->op != BPF_SOCK_OPS_TCP_LISTEN_CB && ctx->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_STATE_CB && (from != BPF_TCP_SYN_SENT || to != BPF_TCP_CLOSE))
		return 1;
	w = attached_workload(&slot);
	if (!w)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_STATE_CB) {
		note_unanswered(ctx, w, slot);
		return 1;
	}
	fill_socket(&e, w, EVENT_LISTEN);
	e.family = ctx->family;
	e.protocol = IPPROTO_TCP;
	e.port = ctx->local_port;
	e.operation = OPERATION_LISTEN;
	e.denied = 0; /* listen(2) itself cannot be refused here; nothing reaches the socket */
	if (e.family == AF_INET) {
		word[0] = ctx->local_ip4;
	} else {
		word[0] = ctx->local_ip6[0];
		word[1] = ctx->local_ip6[1];
		word[2] = ctx->local_ip6[2];
		word[3] = ctx->local_ip6[3];
	}
	send_flow(slot, &e, sizeof(e));
	return 1;
}

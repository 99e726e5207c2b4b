// SPDX-License-Identifier: GPL-2.0
/* Sockets of severed workloads that the programs on their cgroup do not see: other families than inet, inet sockets that were
 * made outside, unix sockets to peers outside. Inet sockets of their own are left to those programs, which tell more. */
#include "lsm.h"

char LICENSE[] SEC("license") = "GPL";

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_ALG 38
#define AF_XDP 44
#define NETLINK_ROUTE 0
#define SOCK_DGRAM 2
#define PF_KTHREAD 0x00200000
#define PIDTYPE_TGID 1
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFCHR 0020000
#define SOCKFS_MAGIC 0x534F434B

/* The kernel's own: what interfaces there are, cryptography. Nobody else is at the far end. */
static __always_inline bool leads_nowhere(int family, int protocol)
{
	return family == AF_ALG || (family == AF_NETLINK && protocol == NETLINK_ROUTE);
}

/* The workload in whose cgroup a socket was made. A connection that was accepted: where the listening socket was made, but of
 * unix sockets, where the client was. */
static __always_inline u32 slot_of_sock(struct sock *sk)
{
	struct cgroup *cgrp = cgroup_of_sock(sk);

	return cgrp ? slot_of_cgroup(cgrp) : 0;
}

/* Who listened on a socket, or at the other end of this one; NULL: not known, or ended. */
static __always_inline struct task_struct *peer_of(struct sock *sk)
{
	struct pid *pid = BPF_CORE_READ(sk, sk_peer_pid);
	struct hlist_node *node = pid ? BPF_CORE_READ(pid, tasks[PIDTYPE_TGID].first) : NULL;

	if (!node)
		return NULL;
	return (void *)node - bpf_core_field_offset(struct task_struct, pid_links) - PIDTYPE_TGID * 2 * sizeof(void *);
}

static __always_inline u32 slot_of_peer(struct sock *sk)
{
	struct task_struct *peer = peer_of(sk);

	return peer ? slot_of_cgroup(cgroup_of(peer)) : 0;
}

/* Is anybody but the workload at the other end, or may be? Who listened is known only while he lives: one that has ended counts
 * as outside, because daemons end once they have listened and forked. */
static __always_inline bool leads_outside(struct socket *sock, u32 slot)
{
	struct sock *sk = BPF_CORE_READ(sock, sk), *peer;

	if (slot_of_sock(sk) != slot)
		return true;
	peer = BPF_CORE_READ((struct unix_sock *)sk, peer);
	if (BPF_CORE_READ(sock, type) == SOCK_DGRAM)
		return peer && slot_of_sock(peer) != slot;
	if (!peer)
		return false;
	return slot_of_sock(peer) != slot || slot_of_peer(sk) != slot;
}

/* Who sends or receives. Kernel threads do for io_uring, on older kernels: then it is who made the socket. */
static __always_inline bool acting_on(struct actor *a, struct socket *sock)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (!anything_watched())
		return false;
	a->task = task;
	a->cgrp = cgroup_of(task);
	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		a->slot = slot_of_sock(BPF_CORE_READ(sock, sk));
	else
		a->slot = slot_of_cgroup(a->cgrp);
	a->w = workload_at(a->slot);
	return a->w && is_severed(a->w);
}

static __always_inline int judge_transfer(struct socket *sock, enum denied_operation operation)
{
	struct actor a = {};
	struct sock *sk;
	u32 family;

	if (!acting_on(&a, sock))
		return ALLOW;
	sk = BPF_CORE_READ(sock, sk);
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (leads_nowhere(family, BPF_CORE_READ(sk, sk_protocol)))
		return ALLOW;
	if (family == AF_UNIX && !leads_outside(sock, a.slot))
		return ALLOW;
	if ((family == AF_INET || family == AF_INET6) && slot_of_sock(sk) == a.slot)
		return ALLOW;
	return refuse(&a, operation, true, family, NULL, NULL);
}

SEC("lsm/socket_sendmsg")
int BPF_PROG(lsm_sendmsg, struct socket *sock)
{
	return judge_transfer(sock, DENIED_SEND) ? DENY : ALLOW;
}

SEC("lsm/socket_recvmsg")
int BPF_PROG(lsm_recvmsg, struct socket *sock)
{
	return judge_transfer(sock, DENIED_RECEIVE) ? DENY : ALLOW;
}

SEC("lsm/socket_create")
int BPF_PROG(lsm_socket, int family, int type, int protocol, int kern)
{
	struct actor a = {};
	bool severed;

	if (kern || family == AF_UNIX || family == AF_INET || family == AF_INET6 || !acting(&a))
		return ALLOW;
	severed = is_severed(a.w) && !leads_nowhere(family, protocol);
	if (!severed && !(family == AF_XDP && is_guarded(&a, GUARD_XDP_SOCKETS)))
		return ALLOW;
	return refuse(&a, DENIED_SOCKET, severed, family, NULL, NULL) ? DENY : ALLOW;
}

SEC("lsm/socket_connect")
int BPF_PROG(lsm_connect, struct socket *sock)
{
	struct actor a = {};
	struct sock *sk;
	u32 family;

	if (!acting(&a) || !is_severed(a.w))
		return ALLOW;
	sk = BPF_CORE_READ(sock, sk);
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family == AF_UNIX || leads_nowhere(family, BPF_CORE_READ(sk, sk_protocol)))
		return ALLOW;
	if ((family == AF_INET || family == AF_INET6) && slot_of_sock(sk) == a.slot)
		return ALLOW;
	return refuse(&a, DENIED_CONNECT, true, family, NULL, NULL) ? DENY : ALLOW;
}

/* From a severed workload to a socket made outside it, and from outside to one of a severed workload. */
static __always_inline int judge_peer(struct sock *other, enum denied_operation operation)
{
	struct actor a = {};
	struct workload *theirs;
	u32 slot;

	if (!anything_watched())
		return ALLOW;
	slot = slot_of_sock(other);
	if (acting(&a) && slot == a.slot)
		return ALLOW;
	if (a.w && is_severed(a.w))
		return refuse(&a, operation, true, AF_UNIX, NULL, NULL);
	theirs = workload_at(slot);
	if (!theirs || !is_severed(theirs))
		return ALLOW;
	count_denied(slot, operation); /* told nobody: it is not the workload's doing */
	return DENY;
}

SEC("lsm/unix_stream_connect")
int BPF_PROG(lsm_unix_connect, struct sock *sock, struct sock *other)
{
	struct task_struct *peer;
	struct actor a = {};

	if (judge_peer(other, DENIED_CONNECT))
		return DENY;
	if (!acting(&a) || !is_guarded(&a, GUARD_DAEMON))
		return ALLOW;
	peer = peer_of(other);
	if (!peer || !is_daemon(BPF_CORE_READ(peer, tgid)))
		return ALLOW;
	return refuse(&a, DENIED_CONNECT, false, AF_UNIX, peer, NULL) ? DENY : ALLOW;
}

SEC("lsm/unix_may_send")
int BPF_PROG(lsm_unix_send, struct socket *sock, struct socket *other)
{
	return judge_peer(BPF_CORE_READ(other, sk), DENIED_SEND) ? DENY : ALLOW;
}

/* Descriptors that come in (SCM_RIGHTS, pidfd_getfd): no socket that somebody else made, and no device, which may be a tunnel's
 * end. Also for who waits for a message since before the cut. */
SEC("lsm/file_receive")
int BPF_PROG(lsm_file_receive, struct file *file)
{
	struct inode *inode;
	struct actor a = {};
	struct socket *sock;
	u32 kind, family = 0;

	if (!acting(&a) || !is_severed(a.w))
		return ALLOW;
	inode = BPF_CORE_READ(file, f_inode);
	kind = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	if (kind == S_IFSOCK && BPF_CORE_READ(inode, i_sb, s_magic) == SOCKFS_MAGIC) {
		sock = BPF_CORE_READ(file, private_data);
		if (slot_of_sock(BPF_CORE_READ(sock, sk)) == a.slot)
			return ALLOW;
		family = BPF_CORE_READ(sock, sk, __sk_common.skc_family);
	} else if (kind != S_IFCHR) {
		return ALLOW;
	}
	return refuse(&a, DENIED_RECEIVE, true, family, NULL, NULL) ? DENY : ALLOW;
}

DESCRIBE(guard);

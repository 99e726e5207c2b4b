// SPDX-License-Identifier: GPL-2.0
/* Who of the workloads holds which socket, and lives in which network namespace: what /proc tells too, descriptor by
 * descriptor, at some 10 us each. Read as files by who asks (bpf_iter_create), in one go; nothing is attached. */
#include "workload.h"
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

#define SOCKFS_MAGIC 0x534F434B
#define CAP_NET_RAW 13 /* takes it to make a socket whose frames no program on a cgroup sees */

static __always_inline bool may_make_frames(struct task_struct *task)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);
	u64 capabilities = 0;

	bpf_probe_read_kernel(&capabilities, sizeof(capabilities),
			      (void *)cred + bpf_core_field_offset(cred->cap_permitted));
	return capabilities >> CAP_NET_RAW & 1;
}

static __always_inline bool watched_here(struct cgroup *cgrp)
{
	return cgrp && slot_of_cgroup(cgrp);
}

static __always_inline u64 made_in(struct socket *sock)
{
	struct cgroup *cgrp = cgroup_of_sock(BPF_CORE_READ(sock, sk));

	return cgrp ? cgroup_id_of(cgrp) : 0;
}

/* One record for each descriptor of a socket. Threads that share their first one's table are not gone through again. */
SEC("iter/task_file")
int sockets_held(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct held_socket held = {};
	struct cgroup *cgrp;

	if (!task || !file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != SOCKFS_MAGIC)
		return 0;
	cgrp = cgroup_of(task);
	if (!watched_here(cgrp))
		return 0;
	held.cgroup_id = cgroup_id_of(cgrp);
	held.made_in = made_in((struct socket *)BPF_CORE_READ(file, private_data));
	held.inode = BPF_CORE_READ(file, f_inode, i_ino);
	held.pid = BPF_CORE_READ(task, tgid);
	held.descriptor = ctx->fd;
	bpf_seq_write(ctx->meta->seq, &held, sizeof(held));
	return 0;
}

/* One record for each thread: each has a namespace of its own. */
SEC("iter/task")
int namespaces_lived_in(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct thread_namespace lives = {};
	struct cgroup *cgrp;

	if (!task)
		return 0;
	lives.net = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);
	if (!lives.net) /* it is ending */
		return 0;
	cgrp = cgroup_of(task);
	if (!watched_here(cgrp))
		return 0;
	lives.cgroup_id = cgroup_id_of(cgrp);
	lives.tid = BPF_CORE_READ(task, pid);
	lives.makes_frames = may_make_frames(task);
	bpf_seq_write(ctx->meta->seq, &lives, sizeof(lives));
	return 0;
}

DESCRIBE(held_socket);
DESCRIBE(thread_namespace);

/* SPDX-License-Identifier: GPL-2.0 */
/* Is a connection that the workload has made the standard input and output of a program that begins? Then whoever is at the
 * far end types, and reads what comes of it. Told with the connection's traffic. */
#ifndef KS_STDIO_H
#define KS_STDIO_H

#include "traffic.h"

#define SOCKFS_MAGIC 0x534F434B
#define STDIO_BOTH 3 /* standard input and output */

/* The cookie of the socket that lies at this descriptor, 0 = none does. */
static __always_inline u64 socket_at(struct task_struct *task, u32 descriptor)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file = NULL;
	struct socket *sock;

	if (!table || BPF_CORE_READ(table, max_fds) <= descriptor)
		return 0;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + descriptor);
	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != SOCKFS_MAGIC)
		return 0;
	sock = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(sock, sk, __sk_common.skc_cookie.counter);
}

/* Who has it both ways keeps it: a shell's own children have it too, or half of it. */
static __always_inline void note_stdio(struct task_struct *task, struct event_header *h)
{
	u64 in = socket_at(task, 0), out = socket_at(task, 1), error = socket_at(task, 2);
	u64 cookie = in ? in : out ? out : error;
	struct traffic *t = cookie ? bpf_map_lookup_elem(&traffic, &cookie) : NULL;

	if (!t || ((t->stdio & STDIO_BOTH) == STDIO_BOTH && t->holder_pid != h->pid))
		return;
	t->stdio = (in == cookie) | (out == cookie) << 1 | (error == cookie) << 2;
	t->holder_start = h->start_ticks;
	t->holder_pid = h->pid;
	mark_activity(h->time_ns);
}

#endif

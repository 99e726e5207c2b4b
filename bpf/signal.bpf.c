// SPDX-License-Identifier: GPL-2.0
/* Signals that a watched workload sends to processes outside it, the daemon among them, and its ptrace of such. For the whole
 * host, so what is looked at first is what most signals are: a child's end. */
#include "workload.h"
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

DESCRIBE(signal_event);

#define SIGCHLD 17
#define SIGSTOP 19
#define SEND_SIG_NOINFO 0 /* instead of a pointer: from user space; 1: from the kernel */
#define SEND_SIG_PRIV 1

/* kill(2), sigqueue(3), tgkill(2); what the kernel itself sends (a fault, a timer, an alarm) is nobody's attempt. */
static __always_inline bool sent_by_process(int sig, struct kernel_siginfo *info, u8 *operation)
{
	int code;

	*operation = SIGNAL_KILL;
	if ((u64)info == SEND_SIG_NOINFO)
		return true;
	if ((u64)info == SEND_SIG_PRIV) { /* PTRACE_ATTACH stops its target so */
		*operation = SIGNAL_PTRACE;
		return sig == SIGSTOP;
	}
	code = BPF_CORE_READ(info, si_code);
	return code == 0 || code == -1 || code == -6;
}

/* The same signal by the same sender to the same process just now? A flood of signals must not be a flood of events. */
static __always_inline bool signalled_lately(struct signal_event *e)
{
	struct sendmsg_key key = {.pid = e->header.pid, .port = e->number, .family = 0xffff};
	u64 *last;

	__builtin_memcpy(key.address, &e->target_pid, sizeof(e->target_pid));
	last = bpf_map_lookup_elem(&sendmsg_seen, &key);
	if (last && e->header.time_ns - *last < SENDMSG_QUIET_NS)
		return true;
	bpf_map_update_elem(&sendmsg_seen, &key, &e->header.time_ns, BPF_ANY);
	return false;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int sig, struct kernel_siginfo *info, struct task_struct *target)
{
	struct task_struct *sender;
	struct signal_event e = {};
	u32 slot, zero = 0, *daemon;
	struct workload *w;
	struct cgroup *from;

	if (sig == SIGCHLD || !anything_watched() || !sent_by_process(sig, info, &e.operation))
		return 0;
	sender = (void *)bpf_get_current_task();
	from = cgroup_of(sender);
	slot = slot_of_cgroup(from);
	if (!slot || slot == slot_of_cgroup(cgroup_of(target)))
		return 0;
	w = workload_at(slot);
	if (!w)
		return 0;
	fill_header(&e.header, EVENT_SIGNAL, w->cgroup_id, sender, cgroup_id_of(from));
	e.target_start_ticks = start_ticks_of(target);
	e.target_pid = BPF_CORE_READ(target, tgid);
	e.number = sig;
	BPF_CORE_READ_INTO(&e.target_comm, target, group_leader, comm);
	daemon = bpf_map_lookup_elem(&daemon_pid, &zero);
	e.to_daemon = daemon && *daemon == e.target_pid;
	if (signalled_lately(&e))
		return 0;
	if (e.to_daemon)
		send_exec(slot, &e, sizeof(e)); /* it may be the last that this daemon would have read: the next one does */
	else
		send_flow(slot, &e, sizeof(e));
	return 0;
}

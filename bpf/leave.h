/* SPDX-License-Identifier: GPL-2.0 */
/* Who leaves a workload that is cut off, by moving or by being born elsewhere, comes to no further instruction. Of use in one
 * object file only: bpftool does not link a kernel's function into two. */
#ifndef KS_LEAVE_H
#define KS_LEAVE_H

#include "workload.h"

#define SIGKILL 9

enum pid_type {
	PIDTYPE_TGID = 1,
};

/* It came with the function below, and a kernel can be asked for it. */
struct send_signal_irq_work {
	bool has_siginfo;
} __attribute__((preserve_access_index));

/* Of Linux 6.13. Without it user space, which is told of the move, kills what has left. */
extern int bpf_send_signal_task(struct task_struct *task, int sig, enum pid_type type, u64 value) __ksym __weak;

static __always_inline bool is_cut_off(u32 slot)
{
	struct workload *w = workload_at(slot);

	return w && (is_severed(w) || w->frozen);
}

/* Who does it (that is: who runs here), and what it has let out: a child, or itself. */
static __always_inline void stop_both(struct task_struct *out, u32 slot)
{
	if (bpf_send_signal(SIGKILL))
		count_loss(slot, LOST_KILL_FAILED);
	if (bpf_core_field_exists(struct send_signal_irq_work, has_siginfo) && bpf_send_signal_task(out, SIGKILL, PIDTYPE_TGID, 0))
		count_loss(slot, LOST_KILL_FAILED);
}

#endif

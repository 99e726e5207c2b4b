/* SPDX-License-Identifier: GPL-2.0 */
/* Who leaves a workload that is cut off, by moving or by being born elsewhere, is killed. Of use in one object file only: bpftool
 * does not link a kernel's function into two. */
#ifndef KS_LEAVE_H
#define KS_LEAVE_H

#include "place.h"

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

/* What was let out, and (`doer`) the process that runs here, which did it. Where interrupts are off, as while a move is told of,
 * a CPU has room for one signal until they are on again: that is for what is outside. Who did it is cut off where it is. */
static __always_inline void stop_both(struct task_struct *out, u32 slot, bool doer)
{
	if (bpf_core_field_exists(struct send_signal_irq_work, has_siginfo)) {
		if (bpf_send_signal_task(out, SIGKILL, PIDTYPE_TGID, 0))
			count_loss(slot, LOST_KILL_FAILED);
		if (doer)
			bpf_send_signal(SIGKILL);
	} else if (doer && bpf_send_signal(SIGKILL)) {
		count_loss(slot, LOST_KILL_FAILED);
	}
}

#endif

// SPDX-License-Identifier: GPL-2.0
/* CPU use of watched processes, by sampling: how many samples, how many of them in the kernel, and where in the program. */
#include "workload.h"
#include <linux/bpf_perf_event.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline void add_hot(struct cpu_key *who, u64 address, u32 slot)
{
	struct hot_key key = {.start_ticks = who->start_ticks, .address = address, .pid = who->pid};
	u64 *count = bpf_map_lookup_elem(&cpu_hot, &key), one = 1;

	if (!count) {
		if (!bpf_map_update_elem(&cpu_hot, &key, &one, BPF_NOEXIST))
			return;
		/* Another CPU was there first with the same address, or there is no room. */
		count = bpf_map_lookup_elem(&cpu_hot, &key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		count_loss(slot, LOST_SAMPLES);
}

SEC("perf_event")
int on_sample(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 address = PT_REGS_IP(&ctx->regs);
	bool in_kernel = (long)address < 0; /* the upper half, on x86-64 and arm64 alike */
	struct cpu_key key = {.pid = bpf_get_current_pid_tgid() >> 32};
	struct cpu_value *value, first = {};
	struct workload *w;
	u32 slot;

	if (!key.pid || !anything_watched())
		return 0;
	slot = slot_of_cgroup(cgroup_of(task));
	w = workload_at(slot);
	if (!w)
		return 0;
	key.start_ticks = start_ticks_of(task);
	value = bpf_map_lookup_elem(&cpu_samples, &key);
	if (!value) {
		first.workload = w->cgroup_id;
		/* Fails when another CPU was there first, which is as good. */
		bpf_map_update_elem(&cpu_samples, &key, &first, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&cpu_samples, &key);
	}
	if (value) {
		__sync_fetch_and_add(&value->samples, 1);
		__sync_fetch_and_add(&value->kernel_samples, in_kernel);
	} else {
		count_loss(slot, LOST_SAMPLES);
	}
	if (!in_kernel)
		add_hot(&key, address, slot);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/* CPU use of watched processes, by sampling: how many samples, how many of them in the kernel, where in the program, and what
 * code lay there at that moment: a process that has ended, code made at run time and code that hides itself are seen, too. */
#include "workload.h"
#include <linux/bpf_perf_event.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

#define PAGE_BYTES 4096 /* the smallest there is */
#define MAX_THREADS 64	/* whose reading is added up */
#define EVERY_SAMPLES 8 /* of a process with threads: adding up takes a few microseconds */

static __always_inline void read_code(struct hot_value *value, u64 address)
{
	u32 in_page = PAGE_BYTES - (address & (PAGE_BYTES - 1));

	/* Never faults: a page that is not there is not read. What runs is there, what follows it may lie on one that is not. */
	if (!bpf_probe_read_user(value->code, CODE_BYTES, (void *)address)) {
		value->code_len = CODE_BYTES;
	} else if (in_page < CODE_BYTES) {
		in_page &= CODE_BYTES - 1; /* for the verifier */
		if (!bpf_probe_read_user(value->code, in_page, (void *)address))
			value->code_len = in_page;
	}
}

static __always_inline void add_hot(struct cpu_key *who, u64 address, u32 slot)
{
	struct hot_key key = {.start_ticks = who->start_ticks, .address = address, .pid = who->pid};
	struct hot_value *known = bpf_map_lookup_elem(&cpu_hot, &key);

	if (!known) {
		struct hot_value first = {.samples = 1};

		read_code(&first, address);
		if (!bpf_map_update_elem(&cpu_hot, &key, &first, BPF_NOEXIST))
			return;
		/* Another CPU was there first with the same address, or there is no room. */
		known = bpf_map_lookup_elem(&cpu_hot, &key);
	}
	if (known)
		__sync_fetch_and_add(&known->samples, 1);
	else
		count_loss(slot, LOST_SAMPLES);
}

/* What all threads of a process have read and written. It is the whole process's: one thread may read what another hashes. */
static __always_inline void add_io(struct cpu_value *value, struct task_struct *task)
{
	struct signal_struct *signal = BPF_CORE_READ(task, signal);
	struct list_head *head = (void *)signal + bpf_core_field_offset(struct signal_struct, thread_head);
	struct list_head *node = BPF_CORE_READ(head, next);
	u64 read_bytes, written_bytes;

	if (!bpf_core_field_exists(task->ioac.rchar))
		return;
	read_bytes = BPF_CORE_READ(signal, ioac.rchar);
	written_bytes = BPF_CORE_READ(signal, ioac.wchar);
	for (u32 i = 0; i < MAX_THREADS; i++) {
		struct task_struct *thread;

		if (!node || node == head)
			break;
		thread = (void *)node - bpf_core_field_offset(struct task_struct, thread_node);
		read_bytes += BPF_CORE_READ(thread, ioac.rchar);
		written_bytes += BPF_CORE_READ(thread, ioac.wchar);
		node = BPF_CORE_READ(node, next);
	}
	value->read_bytes = read_bytes;
	value->written_bytes = written_bytes;
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
	u64 before;
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
		first.program = BPF_CORE_READ(task, mm, exe_file, f_inode, i_ino);
		/* Fails when another CPU was there first, which is as good. */
		bpf_map_update_elem(&cpu_samples, &key, &first, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&cpu_samples, &key);
	}
	if (value) {
		before = value->samples;
		__sync_fetch_and_add(&value->samples, 1);
		__sync_fetch_and_add(&value->kernel_samples, in_kernel);
		if (before % EVERY_SAMPLES == 0 || BPF_CORE_READ(task, signal, live.counter) == 1)
			add_io(value, task);
	} else {
		count_loss(slot, LOST_SAMPLES);
	}
	if (!in_kernel)
		add_hot(&key, address, slot);
	return 0;
}

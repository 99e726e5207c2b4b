/* SPDX-License-Identifier: GPL-2.0 */
/* Puts an exec together in the scratch buffer. */
#ifndef KS_EXEC_H
#define KS_EXEC_H

#include "path.h"
#include "workload.h"

#define STRIDE 512 /* steps of one loop: the verifier follows each, so longer ones are made of several calls */

static __always_inline char *text_at(struct scratch *s, u32 at)
{
	return &s->text[at & TEXT_MASK];
}

/* Moves at.after_slash behind the last "/" among at most STRIDE bytes at `from`, if there is one. */
__attribute__((noinline)) int slash_in(u32 from, u32 len)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	for (u32 i = 0; i < STRIDE; i++) {
		if (i >= len)
			break;
		if (*text_at(s, from + i) == '/')
			s->at.after_slash = from + i + 1;
	}
	return 0;
}

/* Sets at.after_slash to where the basename begins of the path of `len` bytes at `from`. */
__attribute__((noinline)) int find_basename(u32 from, u32 len)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	s->at.after_slash = from;
	for (u32 done = 0; done < PATH_BYTES; done += STRIDE) {
		if (done >= len)
			break;
		slash_in(from + done, len - done);
	}
	return 0;
}

/* Reads a kernel string to `at`; its length without the NUL, which is always there. */
static __always_inline u32 put_string(struct scratch *s, u32 at, const void *from, u32 size)
{
	long n = from ? bpf_probe_read_kernel_str(text_at(s, at), size, from) : 0;

	if (n > 0)
		return n - 1;
	*text_at(s, at) = 0;
	return 0;
}

static __always_inline void gather_identity(struct exec_event *e, struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	e->ppid = BPF_CORE_READ(parent, tgid);
	e->parent_start_ticks = start_ticks_of(parent);
	e->uid = BPF_CORE_READ(task, cred, uid.val);
	e->gid = BPF_CORE_READ(task, cred, gid.val);
}

static __always_inline void gather_file(struct scratch *s, struct file *file, u32 slot)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct exec_event *e = &s->event;
	u32 len, start;

	walk_path((u64)file);
	e->inode = BPF_CORE_READ(inode, i_ino);
	e->device = BPF_CORE_READ(inode, i_sb, s_dev);
	e->nlink = BPF_CORE_READ(inode, i_nlink);
	e->memfd = is_memfd(s);
	if (!s->walked.complete)
		count_loss(slot, LOST_PATH_CUT);
	start = s->walked.start;
	if (start > PATH_BYTES)
		start = PATH_BYTES;
	len = PATH_BYTES - start;
	bpf_probe_read_kernel(text_at(s, s->at.executable), len, &s->path[start]);
	*text_at(s, s->at.executable + len) = 0;
	e->executable_len = len;
	s->at.executable_name = s->at.executable + len - s->walked.name_len;
	if (s->walked.floating) { /* who makes a memfd gives it any name, also one with "/" in it */
		find_basename(s->at.executable, len);
		s->at.executable_name = s->at.after_slash;
	}
}

/* From the new program's own memory. What cannot be read counts as longer than the window, which is never innocent. */
static __always_inline void gather_argv(struct scratch *s, struct task_struct *task, u32 slot)
{
	u64 from = BPF_CORE_READ(task, mm, arg_start);
	u64 total = BPF_CORE_READ(task, mm, arg_end) - from;
	u32 at = s->at.argv, len = total;

	if (total > ARGV_WINDOW)
		len = ARGV_WINDOW;
	if (len > ARGV_WINDOW)
		return;
	if (bpf_probe_read_user(text_at(s, at), len, (void *)from)) {
		count_loss(slot, LOST_ARGV_UNREADABLE);
		total += !total;
		len = 0;
	}
	s->event.argv_len = len;
	s->event.argv_total = total;
	s->at.end = at + len;
	s->at.argv_walk = len;
	if (!len || *text_at(s, at + len - 1)) {
		*text_at(s, at + len) = 0;
		s->at.argv_walk = len + 1;
	}
}

static __always_inline void gather(struct scratch *s, struct task_struct *task, struct linux_binprm *bprm, u32 slot)
{
	struct exec_event *e = &s->event;
	struct spans *at = &s->at;

	gather_identity(e, task);
	at->parent = 0;
	e->parent_len = put_string(
		s, 0, BPF_CORE_READ(task, real_parent, mm, exe_file, f_path.dentry, d_name.name), NAME_BYTES);
	at->executable = e->parent_len + 1;
	gather_file(s, BPF_CORE_READ(bprm, file), slot);
	at->filename = at->executable + e->executable_len + 1;
	e->filename_len = put_string(s, at->filename, bprm->filename, PATH_BYTES);
	find_basename(at->filename, e->filename_len);
	at->filename_name = at->after_slash;
	at->argv = at->filename + e->filename_len + 1;
	gather_argv(s, task, slot);
}

#endif

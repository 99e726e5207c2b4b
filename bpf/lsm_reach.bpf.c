// SPDX-License-Identifier: GPL-2.0
/* A workload's hand on what is outside it, and on what contains it: processes, BPF, cgroups' files, the kernel's code. What a
 * policy guards is refused always, and all of it once the workload is severed: BPF and the kernel's code would undo that. */
#include "lsm.h"

char LICENSE[] SEC("license") = "GPL";

DESCRIBE(denied_event);

#define PTRACE_MODE_READ 1
#define PTRACE_MODE_ATTACH 2
#define PTRACE_MODE_NOAUDIT 4
#define CGROUP2_SUPER_MAGIC 0x63677270
#define BPF_FS_MAGIC 0xcafe4a11
#define MAY_WRITE 2
#define KERNFS_DIR 1

/* LOADING_... and READING_... of the kernel: the same numbers for both. */
#define KERNEL_MODULE 2
#define KERNEL_KEXEC_IMAGE 3
#define KERNEL_KEXEC_INITRAMFS 4

static __always_inline bool is_outside(struct actor *a, struct task_struct *target)
{
	return slot_of_cgroup(cgroup_of(target)) != a->slot;
}

/* To the daemon? Then that is guarded by itself. */
static __always_inline bool is_kept_from(struct actor *a, struct task_struct *target, u32 guard)
{
	if (is_guarded(a, guard))
		return true;
	return is_daemon(BPF_CORE_READ(target, tgid)) && is_guarded(a, GUARD_DAEMON);
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(lsm_ptrace, struct task_struct *child, unsigned int mode)
{
	struct actor a = {};
	bool severed;

	if (!(mode & (PTRACE_MODE_READ | PTRACE_MODE_ATTACH)) || !acting(&a) || !is_outside(&a, child))
		return ALLOW;
	severed = is_severed(a.w);
	if (mode & PTRACE_MODE_ATTACH ? !severed && !is_kept_from(&a, child, GUARD_PTRACE) : !severed)
		return ALLOW;
	if (mode & PTRACE_MODE_ATTACH && !(mode & PTRACE_MODE_NOAUDIT))
		return refuse(&a, DENIED_PTRACE, severed, mode, child, NULL) ? DENY : ALLOW;
	count_denied(a.slot, DENIED_PTRACE); /* to look only, as ps does, is not worth a word */
	return DENY;
}

SEC("lsm/task_kill")
int BPF_PROG(lsm_kill, struct task_struct *target, struct kernel_siginfo *info, int sig)
{
	struct actor a = {};
	bool severed;

	if (!sig || !acting(&a) || !is_outside(&a, target))
		return ALLOW;
	severed = is_severed(a.w);
	if (!severed && !is_kept_from(&a, target, GUARD_SIGNALS))
		return ALLOW;
	return refuse(&a, DENIED_KILL, severed, sig, target, NULL) ? DENY : ALLOW;
}

static __always_inline int judge_guarded(u32 guard, enum denied_operation operation, u32 number, const char *name)
{
	struct actor a = {};
	bool severed;

	if (!acting(&a))
		return ALLOW;
	severed = is_severed(a.w);
	if (!severed && !is_guarded(&a, guard))
		return ALLOW;
	return refuse(&a, operation, severed, number, NULL, name);
}

SEC("lsm/bpf")
int BPF_PROG(lsm_bpf, int cmd)
{
	return judge_guarded(GUARD_BPF, DENIED_BPF, cmd, NULL) ? DENY : ALLOW;
}

/* The last mount of bpffs takes every pin with it. */
SEC("lsm/sb_umount")
int BPF_PROG(lsm_umount, struct vfsmount *mnt)
{
	if (BPF_CORE_READ(mnt, mnt_sb, s_magic) != BPF_FS_MAGIC)
		return ALLOW;
	return judge_guarded(GUARD_BPF, DENIED_PIN, 0, NULL) ? DENY : ALLOW;
}

SEC("lsm/kernel_read_file")
int BPF_PROG(lsm_read_file, struct file *file, int id)
{
	if (id != KERNEL_MODULE && id != KERNEL_KEXEC_IMAGE && id != KERNEL_KEXEC_INITRAMFS)
		return ALLOW;
	return judge_guarded(GUARD_KERNEL_CODE, DENIED_KERNEL_CODE, id,
			     (const char *)BPF_CORE_READ(file, f_path.dentry, d_name.name)) ? DENY : ALLOW;
}

SEC("lsm/kernel_load_data")
int BPF_PROG(lsm_load_data, int id)
{
	if (id != KERNEL_MODULE && id != KERNEL_KEXEC_IMAGE && id != KERNEL_KEXEC_INITRAMFS)
		return ALLOW;
	return judge_guarded(GUARD_KERNEL_CODE, DENIED_KERNEL_CODE, id, NULL) ? DENY : ALLOW;
}

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___since_6_15 *newer = (void *)node;

	if (bpf_core_field_exists(newer->__parent))
		return BPF_CORE_READ(newer, __parent);
	return BPF_CORE_READ(node, parent);
}

/* Eight characters in one register: a text of the program's own would be a map of its own. */
#define WORD(a, b, c, d, e, f, g, h) \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | (u64)(f) << 40 | (u64)(g) << 48 | \
	 (u64)(h) << 56)

/* Of the workload's own topmost cgroup it may write what whoever is given a cgroup may: who is in it, and what it hands on. What
 * contains it (cgroup.freeze, limits) is its parent's. */
static __always_inline bool is_handed_over(const char *name)
{
	u64 word[3] = {};

	bpf_probe_read_kernel_str(word, sizeof(word), name);
	if (word[0] == WORD('c', 'g', 'r', 'o', 'u', 'p', '.', 'p'))
		return word[1] == WORD('r', 'o', 'c', 's', 0, 0, 0, 0);
	if (word[0] == WORD('c', 'g', 'r', 'o', 'u', 'p', '.', 't'))
		return word[1] == WORD('h', 'r', 'e', 'a', 'd', 's', 0, 0);
	return word[0] == WORD('c', 'g', 'r', 'o', 'u', 'p', '.', 's') && word[1] == WORD('u', 'b', 't', 'r', 'e', 'e', '_', 'c') &&
	       word[2] == WORD('o', 'n', 't', 'r', 'o', 'l', 0, 0);
}

static __always_inline bool is_own_cgroup_file(struct actor *a, struct kernfs_node *node, bool directory)
{
	struct cgroup *cgrp = BPF_CORE_READ(directory ? node : parent_of(node), priv);

	if (!cgrp || slot_of_cgroup(cgrp) != a->slot)
		return false;
	if (directory || cgroup_id_of(cgrp) != a->w->cgroup_id)
		return true;
	return is_handed_over(BPF_CORE_READ(node, name));
}

/* Whoever opens a file for writing, makes or removes one, moves a process by writing to a file that was opened elsewhere, or has
 * a child born into a cgroup (CLONE_INTO_CGROUP), asks here. For every step of every path on the host: so what is asked first is
 * what nearly every call answers. */
SEC("lsm/inode_permission")
int BPF_PROG(lsm_inode, struct inode *inode, int mask)
{
	struct kernfs_node *node;
	struct actor a = {};
	unsigned long magic;
	bool directory, severed;

	if (!(mask & MAY_WRITE))
		return ALLOW;
	magic = BPF_CORE_READ(inode, i_sb, s_magic);
	if (magic == BPF_FS_MAGIC)
		return judge_guarded(GUARD_BPF, DENIED_PIN, 0, NULL) ? DENY : ALLOW;
	if (magic != CGROUP2_SUPER_MAGIC || !acting(&a))
		return ALLOW;
	severed = is_severed(a.w);
	node = BPF_CORE_READ(inode, i_private);
	directory = BPF_CORE_READ(node, flags) & KERNFS_DIR;
	if (!(severed || is_guarded(&a, GUARD_CGROUP_FILES)) || is_own_cgroup_file(&a, node, directory))
		return ALLOW;
	return refuse(&a, DENIED_CGROUP_FILE, severed, mask, NULL, BPF_CORE_READ(node, name)) ? DENY : ALLOW;
}

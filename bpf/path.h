/* SPDX-License-Identifier: GPL-2.0 */
/* The path of an open file, from dentries and mounts (bpf_d_path is not for this hook). Up to the root of the mount
 * tree, not of a chroot: a process cannot rename its program by changing its root. */
#ifndef KS_PATH_H
#define KS_PATH_H

#include "scratch.h"
#include <bpf/bpf_core_read.h>

#define PATH_STEPS 96 /* components and mount points together */

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* Fills scratch->walked and the path before it. `address`: of the struct file (a global function takes no pointers). */
__attribute__((noinline)) int walk_path(u64 address)
{
	struct file *file = (void *)address;
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct mount *mnt = mount_of(BPF_CORE_READ(file, f_path.mnt));
	struct scratch *s = scratch();
	struct walked *r;

	if (!s)
		return 0;
	r = &s->walked;
	*r = (struct walked){.start = PATH_BYTES};
	for (int i = 0; i < PATH_STEPS; i++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		u32 at = r->start, len;

		if (dentry == BPF_CORE_READ(mnt, mnt.mnt_root)) {
			struct mount *above = BPF_CORE_READ(mnt, mnt_parent);

			if (above == mnt) {
				r->complete = 1;
				break;
			}
			dentry = BPF_CORE_READ(mnt, mnt_mountpoint);
			mnt = above;
			continue;
		}
		len = BPF_CORE_READ(dentry, d_name.len) & (NAME_BYTES - 1);
		if (at <= len)
			break;
		at -= len;
		bpf_probe_read_kernel(&s->path[at & (PATH_BYTES - 1)], len, BPF_CORE_READ(dentry, d_name.name));
		at = (at - 1) & (PATH_BYTES - 1);
		s->path[at] = '/';
		if (r->start == PATH_BYTES) /* not i == 0: a file may itself be a mount's root, and is named by its mount point */
			r->name_len = len;
		r->start = at;
		if (parent == dentry) {
			r->complete = 1;
			r->floating = 1;
			break;
		}
		dentry = parent;
	}
	if (!r->complete)
		r->start++;
	return 0;
}

static __always_inline bool is_memfd(struct scratch *s)
{
	char *name = &s->path[(s->walked.start + 1) & (PATH_BYTES - 1)];

	return s->walked.floating && name[0] == 'm' && name[1] == 'e' && name[2] == 'm' && name[3] == 'f' &&
	       name[4] == 'd' && name[5] == ':';
}

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's types, only the members that are used. CO-RE moves every access to where the member lies in the kernel
 * that runs, so order and gaps do not matter here; names and types do. User-visible types come from <linux/bpf.h>. */
#ifndef KS_VMLINUX_H
#define KS_VMLINUX_H

#include <linux/bpf.h>
#include <stdbool.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id;
	struct kernfs_node *parent; /* until 6.14 */
	const char *name;
	unsigned short flags;
	void *priv;
};

struct kernfs_node___since_6_15 {
	struct kernfs_node *__parent;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
	struct cgroup *ancestors[]; /* since 6.1 */
};

struct cgroup___before_6_1 {
	int level;
	u64 ancestor_ids[];
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct qstr {
	u32 len;
	const unsigned char *name;
};

struct super_block {
	u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	struct super_block *i_sb;
	unsigned short i_mode;
	unsigned long i_ino;
	unsigned int i_nlink;
	void *i_private;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};

typedef struct {
	int counter;
} atomic_t;

struct list_head {
	struct list_head *next;
};

/* What a thread has read and written, by whatever call. Empty where the kernel does not count (TASK_XACCT). */
struct task_io_accounting {
	u64 rchar;
	u64 wchar;
};

typedef struct {
	long long counter;
} atomic64_t;

struct sock_common {
	unsigned short skc_family;
	atomic64_t skc_cookie;
};

/* The cgroup that the socket was made in. */
struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* A pointer to it, whose two lowest bits say other things. */
struct sock_cgroup_data___before_5_15 {
	u64 val;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct pid {
	struct hlist_head tasks[4];
};

typedef struct {
	int owned; /* by a process; else a timer or a packet that came in works on it */
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	u16 sk_protocol;
	struct pid *sk_peer_pid;
	struct sock_cgroup_data sk_cgrp_data;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	u8 icsk_syn_retries;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
};

struct sock___before_5_15 {
	struct sock_cgroup_data___before_5_15 sk_cgrp_data;
};

struct unix_sock {
	struct sock sk;
	struct sock *peer;
};

struct socket {
	short type;
	struct sock *sk;
};

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
	struct list_head thread_head;
	struct task_io_accounting ioac; /* of threads that have ended */
};

typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	u32 val;
} kgid_t;

typedef struct {
	u64 val;
} kernel_cap_t; /* of two words of 32 bits before 6.3 */

struct cred {
	kuid_t uid;
	kgid_t gid;
	kernel_cap_t cap_permitted;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

struct nsproxy {
	struct net *net_ns;
};

struct kernel_siginfo {
	int si_signo;
	int si_errno;
	int si_code;
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	struct hlist_node pid_links[4];
	int exit_code;
	u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct signal_struct *signal;
	struct files_struct *files;
	struct list_head thread_node;
	struct task_io_accounting ioac;
	struct css_set *cgroups;
	struct nsproxy *nsproxy;
	const struct cred *cred;
	char comm[16];
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

struct linux_binprm {
	struct file *file;
	const char *filename;
};

#pragma clang attribute pop

#endif

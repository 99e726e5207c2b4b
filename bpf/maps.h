/* SPDX-License-Identifier: GPL-2.0 */
/* Every map and every setting. Each is weak: the files are compiled apart and linked, and the linker keeps one. */
#ifndef KS_MAPS_H
#define KS_MAPS_H

#include "values.h"
#include <bpf/bpf_helpers.h>

/* Keeps the description of a type that only lies on the stack in the object, where the ABI test reads it. libbpf skips
 * the section: nothing of it reaches the kernel. */
#define DESCRIBE(type) struct type described_##type SEC("abi")

#define EXEC_RING_BYTES (4 << 20)
#define FLOW_RING_BYTES (2 << 20)

/* User space is woken for flows only when this much waits for it; otherwise it looks by a timer. */
#define FLOW_WAKE_BYTES (FLOW_RING_BYTES / 4)
#define FLOW_WAKE_SPAN 4096u /* more than all CPUs write at one time, so that the mark is not jumped over */

/* An unconnected socket that sends to one address again and again is reported once in this time. */
#define SENDMSG_QUIET_NS 1000000000ull

/* execs, cgroup moves, cgroups made and removed: never crowded out by flows. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EXEC_RING_BYTES);
} exec_ring SEC(".maps") __weak;

/* forks, exits, connects, listens. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, FLOW_RING_BYTES);
} flow_ring SEC(".maps") __weak;

/* Cgroup id of a watched cgroup -> its slot. A slot is in use while it is named here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u64);
	__type(value, u32);
} workload_by_cgroup SEC(".maps") __weak;

/* Slot -> the workload. Containment is decided here and nowhere else; mapped by user space: severing is one store. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u32);
	__type(value, struct workload);
} workloads SEC(".maps") __weak;

/* One element, mapped by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct control);
} control SEC(".maps") __weak;

/* Slot -> what LSM programs refuse it, and how often they have. Mapped by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u32);
	__type(value, struct guard);
} guards SEC(".maps") __weak;

/* One value for each cgroup that our cgroup programs are attached to, shared by them all: its slot, found in O(1). */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, u64);
	__type(value, struct cgroup_slot);
} cgroup_slot SEC(".maps") __weak;

/* Tgid -> the cgroup it is in, for watched processes: tracing a move tells only where to, never where from. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, struct process_place);
} processes SEC(".maps") __weak;

/* Slot -> packets and bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u32);
	__type(value, struct flow);
} flows SEC(".maps") __weak;

/* One element, mapped by user space: whether the whole host is cut off. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct host);
} host SEC(".maps") __weak;

/* What goes through then; the first ``host.rules`` of them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_HOST_RULES);
	__type(key, u32);
	__type(value, struct host_rule);
} host_rules SEC(".maps") __weak;

/* One element: what was dropped because of it. A packet that is seen by its cgroup and by its device is dropped once. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct flow);
} host_flow SEC(".maps") __weak;

/* Slot -> what was lost, by reason; slot 0 = not to be told. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u32);
	__type(value, struct losses);
} losses SEC(".maps") __weak;

/* Slot -> what user space has already told of `losses`. Pinned with the rest, so that a restart tells nothing twice. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, u32);
	__type(value, struct losses);
} losses_told SEC(".maps") __weak;

/* Policy tables: two halves, one in force, one to be filled. State s of half h is row h * MAX_STATES + s. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_STATES);
	__type(key, u32);
	__type(value, struct dfa_row);
} dfa_rows SEC(".maps") __weak;

/* Predicate bits that a state accepts, numbered like dfa_rows. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_STATES);
	__type(key, u32);
	__type(value, struct predicate_set);
} dfa_accepts SEC(".maps") __weak;

/* Clause c of half h is h * MAX_CLAUSES + c. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_CLAUSES);
	__type(key, u32);
	__type(value, struct clause);
} clauses SEC(".maps") __weak;

/* One element a half. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct policy_meta);
} policy_meta SEC(".maps") __weak;

/* Executables that rules name by inode, of both halves. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * MAX_INODES);
	__type(key, struct inode_key);
	__type(value, struct predicate_set);
} inode_bits SEC(".maps") __weak;

/* Tgid -> what the tables said of its program, for watched processes: the wire's rules may ask who is talking. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, struct process_bits);
} process_bits SEC(".maps") __weak;

/* Tgid -> what its packets wait for. Only while they do. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HOLDS);
	__type(key, u32);
	__type(value, struct hold);
} holds SEC(".maps") __weak;

/* An exec (hold.h: unjudged_id) -> enum unjudged_state: what is not settled by how far the ring has been judged. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, UNJUDGED);
	__type(key, u64);
	__type(value, u32);
} unjudged SEC(".maps") __weak;

/* The same as in `holds`, of a socket that somebody held has used: its packets may be sent later, by nobody. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct hold);
} socket_holds SEC(".maps") __weak;

/* Who made a socket. An accepted connection begins with what its listening socket had. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct wire_maker);
} wire_makers SEC(".maps") __weak;

/* Sockets that a workload which was cut off holds, and did not make. What such a listening socket accepts is one, too. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct handed);
} handed_sockets SEC(".maps") __weak;

/* What is known of a socket's flow, from its first byte on. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wire_flow);
} wire_flows SEC(".maps") __weak;

/* Socket cookie -> what goes over a connection that a workload has made. Outlives the connection: the oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct traffic);
} traffic SEC(".maps") __weak;

/* What a new one begins as: too large for the stack. Never written. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct traffic);
} traffic_blank SEC(".maps") __weak;

/* One element, mapped by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct traffic_activity);
} traffic_activity SEC(".maps") __weak;

/* When a process last was reported sending to an address from an unconnected socket. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct sendmsg_key);
	__type(value, u64);
} sendmsg_seen SEC(".maps") __weak;

/* Internal addresses that an unconnected UDP socket has sent to, and from which nothing has come back yet: the key's pid is
 * the workload's slot, the value when that was told. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct sendmsg_key);
	__type(value, u64);
} asked SEC(".maps") __weak;

/* One element: the tgid of the daemon that reads the rings, 0 = none has told. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} daemon_pid SEC(".maps") __weak;

/* CPU samples of watched processes since user space last took them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct cpu_key);
	__type(value, struct cpu_value);
} cpu_samples SEC(".maps") __weak;

/* The same, by user-space address, with the code that ran there. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct hot_key);
	__type(value, struct hot_value);
} cpu_hot SEC(".maps") __weak;

#endif

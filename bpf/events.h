/* SPDX-License-Identifier: GPL-2.0 */
/* The ABI between the data plane and user space, one half: records in the rings and of the census (values.h: in the maps).
 * killswitch/kernel/abi.py is the twin of both, and a test compares them through the object's BTF. */
#ifndef KS_EVENTS_H
#define KS_EVENTS_H

#include "vmlinux.h"

#define ARGV_WINDOW 4096 /* bytes of arguments that are read and judged */
#define PATH_BYTES 4096
#define CGROUP_PATH_BYTES 1024 /* the kernel's own tracing buffer for cgroup paths is as long */
#define COMM_BYTES 16
#define PREDICATE_WORDS 4
#define MAX_WORKLOADS 1024 /* slot 0 means "none" */
#define MAX_STATES 32768
#define MAX_CLAUSES 256
#define MAX_GRAMMARS 8
#define MAX_INODES 1024
#define WIRE_WINDOW 8192 /* bytes of a flow, each way, that are read and judged */
#define WIRE_KEPT 128    /* of which so many are kept to be shown */
#define WIRE_NAME 256    /* and so many of a name: DNS and TLS have none longer that a resolver would take */
#define CODE_BYTES 64    /* of code that are kept of each sampled address: about a dozen instructions */
#define NS_PER_TICK 10000000 /* USER_HZ is 100 on every architecture that we run on */

enum event_kind {
	EVENT_EXEC = 1,
	EVENT_FORK = 2,
	EVENT_EXIT = 3,
	EVENT_CONNECT = 4,
	EVENT_LISTEN = 5,
	EVENT_CGROUP_MOVE = 6,
	EVENT_CGROUP_CREATED = 7,
	EVENT_CGROUP_REMOVED = 8,
	EVENT_WIRE = 9,
	EVENT_UNANSWERED = 20,
	EVENT_SIGNAL = 21,
	EVENT_ANSWERED = 22,
	EVENT_DENIED = 30,
};

enum socket_operation {
	OPERATION_CONNECT = 1,
	OPERATION_SENDMSG = 2,
	OPERATION_BIND = 3,
	OPERATION_LISTEN = 4,
	OPERATION_PACKET = 5, /* of a ping or raw socket */
};

enum signal_operation {
	SIGNAL_KILL = 1,   /* kill(2) and its kin */
	SIGNAL_PTRACE = 2, /* PTRACE_ATTACH */
};

enum denied_operation {
	DENIED_EXEC = 0,
	DENIED_SOCKET = 1,      /* socket(2) of a family that is not cut otherwise */
	DENIED_CONNECT = 2,     /* to a peer outside, of unix sockets; else any */
	DENIED_SEND = 3,        /* the same */
	DENIED_RECEIVE = 4,     /* the same, and descriptors of sockets made outside */
	DENIED_PTRACE = 5,      /* whatever asks for as much: memory, descriptors */
	DENIED_KILL = 6,
	DENIED_BPF = 7,
	DENIED_PIN = 8,         /* bpffs: files removed or made, the whole unmounted */
	DENIED_CGROUP_FILE = 9, /* of a cgroup outside the workload, or its own that contain it */
	DENIED_KERNEL_CODE = 10,
	DENIED_OPERATIONS = 11,
};

enum done_flag {
	DONE_KILLED = 1,
	DONE_SEVERED = 2,
	DONE_DENIED = 4, /* the packet did not go through, and none of its flow will */
};

enum wire_direction {
	WIRE_SENT = 0,
	WIRE_RECEIVED = 1,
	WIRE_DIRECTIONS = 2,
};

enum wire_name_kind {
	NAME_NONE = 0,
	NAME_QUESTION = 1,     /* as text, of DNS over TCP */
	NAME_SERVER = 2,       /* as text, of TLS */
	NAME_RAW_QUESTION = 3, /* as it is in the datagram: lengths and labels */
	NAME_KINDS = 4,
};

enum loss_reason {
	LOST_EXEC_RING_FULL = 0,
	LOST_FLOW_RING_FULL = 1,
	LOST_SENDMSG_SUPPRESSED = 2, /* the same process to the same address within SENDMSG_QUIET_NS */
	LOST_ARGV_UNREADABLE = 3,    /* the event came, without (all of) its arguments */
	LOST_PATH_CUT = 4,           /* the event came, its path lacks the beginning */
	LOST_KILL_FAILED = 5,        /* a verdict said kill, and the kernel refused the signal */
	LOST_TRACKING_FULL = 6,      /* where a process came from will not be known when it is moved */
	LOST_SAMPLES = 7,            /* CPU samples for which there was no room */
	LOST_WIRE_UNJUDGED = 8,      /* first bytes of a flow that were not judged, or not to their end */
	LOST_EXECS_FLOODED = 9, /* the workload made execs, or flows, faster than they are read: see flood.h */
	LOST_FLOWS_FLOODED = 10,
	LOST_HOLD = 11, /* an exec whose hold could not be noted: the whole workload is held until it is judged */
	LOSS_REASONS = 12,
};

struct event_header {
	u64 time_ns;  /* CLOCK_MONOTONIC */
	u64 workload; /* cgroup id of the workload */
	u64 cgroup_id;
	u64 start_ticks;
	u32 pid;
	enum event_kind kind;
};

/* Followed by parent name, executable, file name, each with a NUL that its length does not count, and argv. */
struct exec_event {
	struct event_header header;
	u64 parent_start_ticks;
	u64 inode;
	u64 predicates[PREDICATE_WORDS];
	u32 ppid;
	u32 uid;
	u32 gid;
	u32 device; /* the kernel's own encoding: major << 20 | minor */
	u32 nlink;
	s32 clause;
	u32 generation;
	u32 verdict_ns;
	u32 argv_total;
	u16 parent_len;
	u16 executable_len;
	u16 filename_len;
	u16 argv_len;
	u8 memfd;
	u8 done;
	u8 padding[2];
};

struct fork_event {
	struct event_header header;
	u64 parent_start_ticks;
	u32 ppid;
	u32 padding;
};

struct exit_event {
	struct event_header header;
	s32 exit_code;
	u32 padding;
};

/* EVENT_CONNECT, EVENT_LISTEN, EVENT_UNANSWERED and EVENT_ANSWERED. */
struct socket_event {
	struct event_header header;
	u8 address[16]; /* IPv4 in the first four */
	char comm[COMM_BYTES];
	u32 uid;
	u16 port; /* host order */
	u8 family;
	u8 protocol;
	u8 operation;
	u8 denied;
	u8 padding[6];
};

/* EVENT_WIRE: the first bytes of a flow or a datagram, when they have met a predicate. header.pid and what follows it are of
 * the process that made the socket, connected it, or listened with it; 0 = not known. */
struct wire_event {
	struct event_header header;
	u64 predicates[PREDICATE_WORDS];
	u8 address[16]; /* of the far side; IPv4 in the first four */
	char comm[COMM_BYTES];
	u32 uid;
	s32 clause; /* among the wire's clauses */
	u32 generation;
	u32 verdict_ns;
	u16 port; /* host order */
	u8 family;
	u8 protocol;
	u8 direction; /* of the packet that brought the verdict */
	u8 done;
	u8 maker_known; /* predicates hold those of the process's program, too */
	u8 sent_len;
	u8 received_len;
	u8 outbound; /* it was made here, and not accepted */
	u8 name_kind;
	u8 name_len;
	u8 padding[4];
	u8 sent[WIRE_KEPT];
	u8 received[WIRE_KEPT];
	u8 name[WIRE_NAME];
};

/* EVENT_SIGNAL: to a process outside the workload; the header is of who sent it. */
struct signal_event {
	struct event_header header;
	u64 target_start_ticks;
	u32 target_pid;
	u32 number;
	char target_comm[COMM_BYTES];
	u8 operation;
	u8 to_daemon; /* the target is this data plane's daemon */
	u8 padding[6];
};

#define DENIED_TARGET 256

/* EVENT_DENIED: an LSM program has refused a workload something. The header is of who tried. */
struct denied_event {
	struct event_header header;
	u64 target_start_ticks;
	u32 target_pid; /* the process that was meant; 0 = none was */
	u32 number;     /* the socket's family, the signal, bpf()'s command, the mode of the access */
	u32 uid;
	s32 clause;     /* of exec: the clause that denied it, -1 = none */
	u32 generation; /* of the tables that it is in */
	u16 target_len;
	u8 operation;
	u8 severed;   /* it was so because the workload is severed */
	u8 to_daemon; /* the target is this data plane's daemon */
	u8 padding[7];
	char comm[COMM_BYTES];
	char target[DENIED_TARGET]; /* path of the executable, the process's name, the file's name; its end where it is too long */
};

/* EVENT_CGROUP_*; header.cgroup_id is the one that was left. Followed by path_len bytes of path. */
struct cgroup_event {
	struct event_header header;
	u64 to_cgroup;
	u64 to_workload;
	u32 path_len;
	u32 moved_by; /* the process that did it, if it is of no workload and not the one that was moved; else 0 */
};

/* Records of the census, which are read and not sent. */
struct held_socket {
	u64 cgroup_id; /* that the process is in */
	u64 made_in;   /* the cgroup that the socket was made in, 0 = not known */
	u64 inode;
	u32 pid;
	u32 descriptor;
};

struct thread_namespace {
	u64 cgroup_id;
	u32 tid;
	u32 net; /* the inode number of its network namespace */
	u32 makes_frames; /* it may make packet sockets there: it has CAP_NET_RAW */
	u32 padding;
};

#endif

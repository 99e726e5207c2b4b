/* SPDX-License-Identifier: GPL-2.0 */
/* The only ABI between the data plane and user space: records in the rings and values in the maps.
 * killswitch/kernel/abi.py is its twin, and a test compares the two through the object's BTF. */
#ifndef KS_EVENTS_H
#define KS_EVENTS_H

#include "vmlinux.h"

#define ARGV_WINDOW 4096 /* bytes of arguments that are read and judged */
#define PATH_BYTES 4096
#define CGROUP_PATH_BYTES 1024 /* the kernel's own tracing buffer for cgroup paths is as long */
#define COMM_BYTES 16
#define PREDICATE_WORDS 4
#define MAX_WORKLOADS 1024 /* slot 0 means "none" */
#define MAX_STATES 8192
#define MAX_CLAUSES 256
#define MAX_GRAMMARS 8
#define MAX_INODES 1024
#define WIRE_WINDOW 1024 /* bytes of a flow, each way, that are read and judged */
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
	LOSS_REASONS = 9,
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

/* EVENT_CONNECT, EVENT_LISTEN and EVENT_UNANSWERED. */
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

/* EVENT_CGROUP_*; header.cgroup_id is the one that was left. Followed by path_len bytes of path. */
struct cgroup_event {
	struct event_header header;
	u64 to_cgroup;
	u64 to_workload;
	u32 path_len;
	u32 moved_by; /* the process that did it, if it is of no workload and not the one that was moved; else 0 */
};

/* Map values ------------------------------------------------------------------------------------------------- */

/* Field by field, never read-modify-written as a whole: user space stores through a mapping while programs run.
 * The first four fields never move: an upgrade reads them from the older generation. */
struct workload {
	u64 cgroup_id;
	u64 policies; /* bit set of the policies that apply */
	u8 severed;
	u8 frozen;
	u8 terminated;
	u8 unattended; /* severed by the programs themselves, because no daemon was there for longer than grace_ms */
	u32 grace_ms;  /* how long it may go on without a daemon; 0 = for ever */
};

struct control {
	u32 watched;     /* number of workloads: 0 = programs that run for the whole host return at once */
	u32 active;      /* which half of the policy tables is in force */
	u64 heartbeat_ns; /* CLOCK_MONOTONIC, when the daemon last looked at what we tell it */
};

struct cgroup_slot {
	u64 cgroup_id; /* 0 = user space has not set it yet */
	u32 slot;
	u32 padding;
};

struct process_place {
	u64 cgroup_id;
	u64 workload;
	u32 slot;
	u32 padding;
};

struct predicate_set {
	u64 word[PREDICATE_WORDS];
};

/* What the tables said of the program that a process runs. */
struct process_bits {
	struct predicate_set bits;
	u64 start_ticks;
	u32 generation; /* of the tables that said it */
	u32 padding;
};

#define WIRE_CHUNK 128 /* bytes that are taken out of a packet at a time */
#define NAME_PIECE 32  /* the same, while names are looked for */

/* Who made a socket: an accepted connection begins with what its listening socket had. */
struct wire_maker {
	struct process_bits program;
	u64 cgroup_id;
	u64 told_ns; /* when a datagram of it was last an event */
	u32 pid;
	u32 uid;
	char comm[COMM_BYTES];
	u8 outbound; /* it was connected */
	u8 padding[7];
};

/* How far one direction of a flow has been walked. */
struct wire_walk {
	struct predicate_set bits;
	u32 state;
	u32 next_seq; /* TCP: of the byte that comes next */
	u32 walked;
	u8 begun;
	u8 over; /* its first bytes need no walking any more */
	u8 done; /* nothing more is to be judged this way */
	u8 padding[1];
	u8 chunk[WIRE_CHUNK];
};

/* How far the names in what a flow sends have been read: see names.h. */
struct name_parser {
	u32 skip;   /* bytes to be passed over */
	u32 number; /* that is being read */
	u32 left;   /* bytes of the TLS record, or of the DNS message */
	u32 inner;  /* bytes of the list of extensions */
	u16 start;
	u16 state;
	u16 name_left; /* bytes of the server's name, or of the label */
	u16 questions;
	u8 phase;
	u8 wanted; /* bytes that the number still lacks */
	u8 head;   /* bytes of the record's header that were read; of DNS: the name has begun */
	u8 server; /* this extension is the server's name */
	u8 ends;   /* the name has ended: a NUL is to be walked */
	u8 over;
	u8 kept; /* the name has met something; it is whole, and not to be overwritten */
	u8 name_len;
	u8 kind;
	u8 unread; /* something was there that could not be read to its end */
	u8 here; /* bytes in the chunk */
	u8 padding[1];
	u32 taken; /* bytes of what is being read that have been */
	u32 ahead; /* bytes of the packet that have not */
	u8 name[WIRE_NAME];
	u8 chunk[NAME_PIECE];
};

/* What is known of a TCP flow. Each direction writes its own half: the two may run at one time. */
struct wire_flow {
	struct wire_walk walk[WIRE_DIRECTIONS];
	struct name_parser names; /* in what is sent */
	u32 generation; /* of the tables that walk it */
	u8 denied;
	u8 padding[3];
	u8 kept[WIRE_DIRECTIONS][2 * WIRE_KEPT]; /* masked offset + largest part */
};

struct flow {
	u64 tx_packets;
	u64 tx_bytes;
	u64 tx_dropped;
	u64 rx_packets;
	u64 rx_bytes;
	u64 rx_dropped;
};

#define TRAFFIC_BURSTS 16 /* a power of two; the last of each direction are kept */

/* Payload that went one way without a pause. */
struct traffic_burst {
	u64 began_ns; /* CLOCK_MONOTONIC */
	u32 bytes;
	u32 span_us;
	u32 packets;
	u32 padding;
};

struct traffic_way {
	u64 bytes; /* of payload, each counted once */
	u64 last_ns;
	u32 next_seq; /* TCP: behind the last byte that was counted */
	u32 bursts;   /* begun so far; number n lies at n modulo TRAFFIC_BURSTS */
	u32 finished; /* TCP: its end was announced */
	u32 padding;
	struct traffic_burst burst[TRAFFIC_BURSTS];
};

/* A connection that a workload has made, TCP or UDP: by its socket's cookie. */
struct traffic {
	u64 workload;
	u64 start_ticks; /* of the process that connected */
	u64 began_ns;
	u64 last_ns;
	u64 holder_start; /* of the last program that began with it as a standard file */
	u8 local[16]; /* IPv4 in the first four */
	u8 remote[16];
	char comm[COMM_BYTES];
	u32 pid;
	u32 uid;
	u32 holder_pid; /* 0 = none did */
	u16 local_port; /* host order; 0 = nothing was sent yet */
	u16 remote_port;
	u8 family;
	u8 protocol;
	u8 reset;
	u8 stdio; /* bit n: it was descriptor n of the holder */
	u8 padding[4];
	struct traffic_way way[WIRE_DIRECTIONS];
};

/* When something last happened to any of them: user space looks no further while this stands still. */
struct traffic_activity {
	u64 last_ns;
};

struct losses {
	u64 count[LOSS_REASONS];
};

struct dfa_row {
	u16 next[256];
};

struct clause {
	struct predicate_set mask;
	struct predicate_set value;
	u32 policy;
	u8 kill;
	u8 sever;
	u8 deny;
	u8 padding[1];
};

struct grammar {
	u32 gate;
	u32 start;
};

struct policy_meta {
	u32 generation; /* 0 = no tables */
	u32 n_clauses;
	u32 n_grammars;
	u32 n_inodes;
	u32 start_name;
	u32 start_path;
	u32 start_parent;
	u32 start_args;
	u32 n_wire_clauses; /* they lie behind the others */
	u32 start_sent;     /* 0 = no rule looks at the wire this way */
	u32 start_received;
	u32 start_host;
	u32 start_address4;
	u32 start_address6;
	u32 start_port;
	u32 padding;
	struct predicate_set wire_bits; /* those that the flow decides; the rest are of the process's program */
	struct predicate_set told_bits; /* of those, the ones that are worth an event */
	struct grammar grammars[MAX_GRAMMARS];
};

struct inode_key {
	u64 inode;
	u32 device;
	u32 half;
};

struct sendmsg_key {
	u8 address[16];
	u32 pid;
	u16 port;
	u16 family;
};

struct cpu_key {
	u64 start_ticks;
	u32 pid;
	u32 padding;
};

struct cpu_value {
	u64 workload;
	u64 samples;
	u64 kernel_samples;
	u64 program;       /* inode number of the executable */
	u64 read_bytes;    /* what the process has read so far, by whatever call, and written */
	u64 written_bytes;
};

struct hot_key {
	u64 start_ticks;
	u64 address;
	u32 pid;
	u32 padding;
};

/* The code is that of the first sample at this address: what ran, even if it is gone or rewritten a moment later. */
struct hot_value {
	u64 samples;
	u8 code_len; /* 0 = could not be read then */
	u8 padding[7];
	u8 code[CODE_BYTES];
};

/* Records of the census, which are read and not sent. */
struct held_socket {
	u64 cgroup_id; /* that the process is in */
	u64 inode;
	u32 pid;
	u32 descriptor;
};

struct thread_namespace {
	u64 cgroup_id;
	u32 tid;
	u32 net; /* the inode number of its network namespace */
};

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* The ABI between the data plane and user space, the other half: values and keys of the maps (events.h: records).
 * killswitch/kernel/abi.py is the twin of both, and a test compares them through the object's BTF. */
#ifndef KS_VALUES_H
#define KS_VALUES_H

#include "events.h"

/* Field by field, never read-modify-written as a whole: user space stores through a mapping while programs run.
 * The first four fields never move: an upgrade reads them from the older generation. */
struct workload {
	u64 cgroup_id;
	u64 policies; /* bit set of the policies that apply, as the first half of the policy tables numbers them */
	u8 severed;
	u8 frozen;
	u8 terminated;
	u8 unattended; /* severed by the programs themselves, because no daemon was there for longer than grace_ms */
	u32 grace_ms;  /* how long it may go on without a daemon; 0 = for ever */
	u8 hold; /* enum hold_mode */
	u8 padding[3];
	u32 lapse_ms; /* how long it is held without a daemon; 0 = for ever */
	u32 unheld;   /* execs whose hold could not be noted: all of the workload is held until user space has looked at it */
	u32 unheld_judged; /* by user space: of those, how many */
	u64 policies_other; /* as the other half does: so that both are true while one takes the other's place */
};

/* What must not be done to a workload, by slot. */
struct restraint {
	u8 shielded; /* it holds who is protected: no verdict severs it */
	u8 charged;  /* it counts against the budget of automatic kills; user space takes it back */
	u8 padding[6];
};

/* How many more workloads verdicts may hit: `spent` is the programs', `until` is user space's. */
struct kill_budget {
	u64 spent; /* workloads that were charged, ever */
	u64 until; /* verdicts act as long as spent + 1 is below this; 0 = there is no budget */
};

/* What a workload has lately put into rings that were more than a quarter full: see flood.h. */
struct flood {
	u64 exec_used;
	u64 exec_since;
	u64 flow_used;
	u64 flow_since;
};

struct control {
	u32 watched;     /* number of workloads: 0 = programs that run for the whole host return at once */
	u32 active;      /* which half of the policy tables is in force */
	u64 heartbeat_ns; /* CLOCK_MONOTONIC, when the daemon last looked at what we tell it */
	u64 judged;       /* position in the ring of execs up to which the daemon has judged */
	u32 late;         /* entries of `unjudged` that user space knows of */
	u32 lost;         /* execs that the ring had no room for, each an entry of `unjudged` */
	u32 lost_judged;  /* by user space: of those, how many it has judged all the same */
	u32 patience_ns;  /* how long who connects or sends waits inside the call to be judged; 0 = not */
	u32 syn_retry;    /* after so many jiffies a SYN that was held is sent again; 0 = as the kernel does */
	u32 padding;
};

enum hold_mode {
	HOLD_OFF = 0,
	HOLD_MATCHED = 1, /* programs about which a rule is open after what the data plane has judged */
	HOLD_ALL = 2,
};

enum unjudged_state {
	UNJUDGED_LATE = 1,      /* its judgement takes longer than its turn in the ring */
	UNJUDGED_CONDEMNED = 2, /* judged: nothing that it sent is ever to leave */
	UNJUDGED_LOST = 3,      /* the daemon was never told of it */
};

#define HOLDS 16384
#define UNJUDGED 16384
#define HOLD_IDS 4 /* a power of two */

/* What a process, or a socket, waits for: nothing that it sends leaves before. */
struct hold {
	u64 start_ticks; /* of the process */
	u64 position;    /* that the daemon has judged up to this; 0 = not for that */
	u64 unjudged[HOLD_IDS]; /* and that none of these is in the map of that name; 0 = none */
	u8 crowded;      /* there were more: that there is none at all */
	u8 padding[7];
};

/* What LSM programs refuse a workload also while it is free. */
#define GUARD_BPF 1u
#define GUARD_CGROUP_FILES 2u
#define GUARD_DAEMON 4u /* signals to it, ptrace of it, its sockets */
#define GUARD_KERNEL_CODE 8u
#define GUARD_PTRACE 16u
#define GUARD_SIGNALS 32u
#define GUARD_XDP_SOCKETS 64u

struct guard {
	u32 guards; /* bit set of GUARD_... */
	u32 padding;
	u64 denied[DENIED_OPERATIONS]; /* how often, since it is watched */
};

struct cgroup_slot {
	u64 cgroup_id; /* 0 = user space has not set it yet */
	u32 slot;
	u32 padding;
};

/* Of sockets that go round what judges frames at the devices. */
#define SOL_PACKET 263
#define PACKET_QDISC_BYPASS 20
#define SOL_XDP 283

struct process_place {
	u64 cgroup_id;
	u64 workload;
	u32 slot;
	u32 left; /* it is outside, let out while its workload was cut off: it is to die, and is of that workload until then */
	u64 start_ticks; /* 0 = not known: another process may have got its number since */
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
	u64 tx_held; /* not among tx_dropped: they may leave when they are sent again */
};

/* Whose a socket is that another cgroup made. */
struct handed {
	u64 cgroup_id;
	u32 slot;
	u32 padding;
};

#define MAX_HOST_RULES 64

/* The host as a whole. One element, mapped by user space. */
struct host {
	u64 cgroup_id; /* whose sockets are meant: the root of the cgroup tree */
	u64 since_ns;  /* CLOCK_BOOTTIME */
	u32 rules;     /* so many of host_rules are in force */
	u8 cut;
	u8 padding[3];
};

#define BEGUN_BY_EITHER 0
#define BEGUN_BY_THEM 1
#define BEGUN_BY_US 2

/* What goes through while the host is cut off. Seen from here: the far side's address, ports in the host's order. */
struct host_rule {
	u64 address[2]; /* network order, IPv4 mapped; no bit that the mask has not */
	u64 mask[2];
	u32 device; /* 0 = any */
	u16 local_low;
	u16 local_high;
	u16 remote_low;
	u16 remote_high;
	u8 protocol; /* 0 = any */
	u8 begun_by; /* a TCP connection: who may have begun it */
	u8 padding[2];
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
	u32 n_hold_clauses; /* they lie behind those of the wire */
	u32 n_denying; /* clauses about execs that deny: 0 = nothing is to be judged before an exec */
	u32 padding;
	struct predicate_set wire_bits; /* those that the flow decides; the rest are of the process's program */
	struct predicate_set told_bits; /* of those, the ones that are worth an event */
	struct predicate_set late_bits; /* of an exec: those of its arguments, which are not known before it */
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

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* The hold: from exec until the daemon has judged it, nothing leaves of a process, of what it forks, and of the sockets that
 * they use meanwhile.
 *
 * What a process waits for is a position in the ring in which the daemon is told of execs: behind its own exec. The daemon
 * says how far it has judged by one store, and everybody before that may go: nothing has to be done for each. What it
 * cannot judge in its turn it puts into a map, by its number, before it says so, and takes it out again. */
#ifndef KS_HOLD_H
#define KS_HOLD_H

#include "workload.h"

#define HELD_STREAM 1   /* of TCP */
#define HELD_DATAGRAM 2 /* of anything else */
#define SYN_RETRIES 6 /* net.ipv4.tcp_syn_retries, where the socket does not say otherwise */
#define MORE_RETRIES 7 /* for as long a time all in all: 10 ms << 7 is more than the second that a first retry takes */
#define IPPROTO_TCP 6
#ifndef SOL_TCP
#define SOL_TCP 6
#endif
#define TCP_SYNCNT 7

static __always_inline struct control *the_control(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

/* The number of an exec: killswitch/kernel/holds.py has its twin. */
static __always_inline u64 unjudged_id(u64 time_ns, u32 pid)
{
	return time_ns ^ (u64)pid << 42;
}

/* Is there anything at all that somebody in this workload may wait for? Of almost every packet this is all that is asked. */
static __always_inline bool may_be_held(struct workload *w)
{
	struct control *c;

	if (!w->hold)
		return false;
	c = the_control();
	if (!c)
		return true;
	return bpf_ringbuf_query(&exec_ring, BPF_RB_PROD_POS) > c->judged || c->late || c->lost != c->lost_judged ||
	       w->unheld != w->unheld_judged;
}

/* The daemon has been away for so long that the policy lets go. What was judged meanwhile stays judged. */
static __always_inline bool has_lapsed(struct workload *w, struct control *c)
{
	return w->lapse_ms && (long long)(bpf_ktime_get_ns() - c->heartbeat_ns) > w->lapse_ms * 1000000ll;
}

static __always_inline bool waits(struct hold *h, struct control *c, bool lapsed)
{
	if (!lapsed && h->position > c->judged)
		return true;
	if (!c->late && c->lost == c->lost_judged)
		return false;
	if (h->crowded && !lapsed)
		return true;
	for (int i = 0; i < HOLD_IDS; i++) {
		u64 id = h->unjudged[i];
		u32 *state = id ? bpf_map_lookup_elem(&unjudged, &id) : NULL;

		if (state && (!lapsed || *state == UNJUDGED_CONDEMNED))
			return true;
	}
	return false;
}

static __always_inline void wait_for(struct hold *h, u64 id)
{
	for (int i = 0; i < HOLD_IDS; i++) {
		if (h->unjudged[i] == id)
			return;
		if (!h->unjudged[i]) {
			h->unjudged[i] = id;
			return;
		}
	}
	h->crowded = 1;
}

static __always_inline void cannot_note(struct workload *w, u32 slot)
{
	__sync_fetch_and_add(&w->unheld, 1);
	count_loss(slot, LOST_HOLD);
}

static __always_inline struct hold *hold_of(struct task_struct *task)
{
	u32 tgid = BPF_CORE_READ(task, tgid);
	struct hold *h = bpf_map_lookup_elem(&holds, &tgid);

	return h && h->start_ticks == start_ticks_of(task) ? h : NULL;
}

/* At exec, after the daemon was told of it (or was not: there was no room). What the process waits for already, it goes on
 * waiting for: who executes something else is not rid of what it was. */
static __always_inline void hold_exec(struct workload *w, u32 slot, struct task_struct *task, struct event_header *e,
				      bool told, bool open)
{
	struct hold *known, own = {};
	struct control *c = the_control();
	u32 tgid = e->pid, lost = UNJUDGED_LOST;
	bool waited;
	u64 id;

	if (!c || !w->hold)
		return;
	known = hold_of(task);
	waited = known && waits(known, c, false);
	if (waited)
		own = *known;
	if (w->hold == HOLD_MATCHED && !open) {
		if (known && !waited)
			bpf_map_delete_elem(&holds, &tgid);
		return;
	}
	id = unjudged_id(e->time_ns, tgid);
	own.start_ticks = e->start_ticks;
	wait_for(&own, id);
	if (told) {
		own.position = bpf_ringbuf_query(&exec_ring, BPF_RB_PROD_POS);
	} else {
		if (bpf_map_update_elem(&unjudged, &id, &lost, BPF_ANY))
			cannot_note(w, slot);
		__sync_fetch_and_add(&c->lost, 1);
	}
	if (bpf_map_update_elem(&holds, &tgid, &own, BPF_ANY))
		cannot_note(w, slot);
}

/* A new process runs its parent's program. `e` is about the child. */
static __always_inline void inherit_hold(struct task_struct *parent, struct event_header *e, u32 slot)
{
	struct control *c = the_control();
	struct hold *known = hold_of(parent), own;
	struct workload *w = workload_at(slot);
	u32 child = e->pid;

	if (!known || !w || !c || !waits(known, c, false))
		return;
	own = *known;
	own.start_ticks = e->start_ticks;
	if (bpf_map_update_elem(&holds, &child, &own, BPF_ANY))
		cannot_note(w, slot);
}

/* What this process waits for, NULL = nothing; then it will not again before its next exec. */
static __always_inline struct hold *still_held(struct task_struct *task, struct control *c, bool lapsed)
{
	struct hold *h = hold_of(task);
	u32 tgid;

	if (!h || waits(h, c, lapsed))
		return h;
	tgid = BPF_CORE_READ(task, tgid);
	bpf_map_delete_elem(&holds, &tgid);
	return NULL;
}

/* The socket waits for what its user waits for. `sk`: as the program that calls has it. */
#define mark_held(w, slot, sk, h)                                                                                     \
	({                                                                                                             \
		struct hold *on = bpf_sk_storage_get(&socket_holds, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);            \
		if (on)                                                                                                \
			also_waits(on, h);                                                                             \
		else                                                                                                   \
			cannot_note(w, slot);                                                                          \
	})

static __always_inline void also_waits(struct hold *on, struct hold *h)
{
	if (h->position > on->position)
		on->position = h->position;
	if (h->crowded)
		on->crowded = 1;
	for (int i = 0; i < HOLD_IDS; i++) {
		if (h->unjudged[i])
			wait_for(on, h->unjudged[i]);
	}
}

/* In the context of the task that makes the socket, connects it, or sends by it to an address. */
#define hold_socket(w, slot, sk)                                                                                      \
	({                                                                                                             \
		struct control *control_ = the_control();                                                             \
		struct hold *of_user = control_ ? still_held((void *)bpf_get_current_task(), control_,                \
							     has_lapsed(w, control_))                                  \
						: NULL;                                                                \
		if (of_user)                                                                                           \
			mark_held(w, slot, sk, of_user);                                                               \
	})

#define LOOKS 384 /* some ten microseconds of them; what the verifier has to follow is LOOKS + MOMENTS, and not their product */
#define MOMENTS 256

__weak __noinline int wait_a_moment(u64 position)
{
	struct control *c = the_control();
	u32 late;

	if (!c)
		return 0;
	late = c->late;
	for (u32 i = 0; i < LOOKS && bpf_ktime_get_ns(); i++) { /* what takes time is to ask for it */
		u64 judged = *(volatile u64 *)&c->judged;

		if (position ? judged >= position : *(volatile u32 *)&c->late != late)
			break;
	}
	return 0;
}

/* 0 = the current task waits for nothing (any more); else until the ring is judged up to there, if that is all it waits for. */
__weak __noinline u64 waited_for(void)
{
	struct control *c = the_control();
	struct hold *h = c ? still_held((void *)bpf_get_current_task(), c, false) : NULL;

	if (!h)
		return 0;
	return h->position > c->judged ? h->position : ~0ull;
}

/* In connect(2) and sendto(2). Judging takes less than a millisecond as a rule, and a datagram that was dropped is missed for
 * seconds, so it is waited for: in the kernel, since no program on a cgroup may sleep, and so not for long. */
__weak __noinline int wait_for_judgement(void)
{
	struct control *c = the_control();
	u64 began, position;

	if (!c || !c->patience_ns)
		return 0;
	began = bpf_ktime_get_ns();
	for (u32 i = 0; i < MOMENTS; i++) {
		position = waited_for();
		if (!position || bpf_ktime_get_ns() - began > c->patience_ns)
			break;
		wait_a_moment(position == ~0ull ? 0 : position);
	}
	return 0;
}

/* Does the current task send this itself? A TCP socket also sends by timers, and when an answer comes in: then it is not
 * locked by a process, and the current task is whoever was interrupted. Others send nothing by themselves. */
static __always_inline bool is_senders_own(struct bpf_sock *sk)
{
	struct tcp_sock *tcp;

	if (sk->protocol != IPPROTO_TCP)
		return true;
	tcp = bpf_skc_to_tcp_sock(sk);
	return tcp && tcp->inet_conn.icsk_inet.sk.sk_lock.owned;
}

/* 0 = the packet may leave. A function of its own: it is verified once. */
__weak __noinline int is_held(struct __sk_buff *skb, u32 slot)
{
	struct workload *w = workload_at(slot);
	struct control *c = the_control();
	struct bpf_sock *sk = skb->sk;
	struct hold *mine, *on;
	bool lapsed;
	int held;

	if (!w || !c || !sk)
		return HELD_DATAGRAM;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	lapsed = has_lapsed(w, c);
	held = sk->protocol == IPPROTO_TCP ? HELD_STREAM : HELD_DATAGRAM;
	if (w->unheld != w->unheld_judged && !lapsed)
		return held;
	if (is_senders_own(sk)) {
		mine = still_held((void *)bpf_get_current_task(), c, lapsed);
		if (mine) {
			mark_held(w, slot, sk, mine);
			return held;
		}
	}
	on = bpf_sk_storage_get(&socket_holds, sk, NULL, 0);
	if (!on)
		return 0;
	if (waits(on, c, lapsed))
		return held;
	bpf_sk_storage_delete(&socket_holds, sk);
	return 0;
}

/* After how many jiffies the first SYN of this socket is sent again, -1 = as always: a second is long for who waits a
 * millisecond to be judged. Each try waits for twice as long as the one before, so that more are needed to last as long. */
static __always_inline int syn_timeout(struct bpf_sock_ops *ctx)
{
	struct control *c = the_control();
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tcp;
	int retries;

	if (!c || !c->syn_retry || !sk || !ctx->is_fullsock || ctx->state != BPF_TCP_SYN_SENT)
		return -1;
	if (!bpf_sk_storage_get(&socket_holds, sk, NULL, 0))
		return -1;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return -1;
	retries = tcp->inet_conn.icsk_syn_retries;
	retries = (retries ? retries : SYN_RETRIES) + MORE_RETRIES;
	bpf_setsockopt(ctx, SOL_TCP, TCP_SYNCNT, &retries, sizeof(retries));
	return c->syn_retry;
}

#endif

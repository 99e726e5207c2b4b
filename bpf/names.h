/* SPDX-License-Identifier: GPL-2.0 */
/* Names in what a TCP flow sends: the server's in a TLS ClientHello, the questions of DNS over TCP. Read byte by byte, with
 * all that is known in the socket's storage, so that it does not matter how the flow is cut into segments, or a ClientHello
 * into records. What need not be read is passed over without being looked at.
 *
 * Most of both formats are numbers that say how long something is. So there is one step for all: read a number of so many
 * bytes, then do what the phase says with it. */
#ifndef KS_NAMES_H
#define KS_NAMES_H

#include "flow.h"

#define NAME_STEPS 40	 /* of one call: a piece, and what takes no byte */
#define NAME_PIECES 96	 /* that are read of one packet: more than an honest ClientHello needs */
#define NAME_MET 1
#define NAME_KEPT 2
#define TLS_HANDSHAKE 22
#define TLS_CLIENT_HELLO 1
#define TLS_RECORD_MAX 18432
#define LABEL_MAX 63
#define QUESTIONS_MAX 16
#define DNS_HEADER 12
#define DNS_PORT 53
#define DNS_LEAST 17 /* bytes of a message with a question */
#define DNS_NO_QUERY 0xf800 /* of the flags: an answer, or something else than a query */

enum name_phase {
	PHASE_BEGIN = 0,
	TLS_TYPE,
	TLS_LENGTH,
	TLS_SESSION,
	TLS_SUITES,
	TLS_METHODS,
	TLS_EXTENSIONS,
	TLS_EXTENSION,
	TLS_EXTENSION_LENGTH,
	TLS_LIST,
	TLS_NAME_TYPE,
	TLS_NAME_LENGTH,
	TLS_NAME,
	DNS_LENGTH,
	DNS_FLAGS,
	DNS_QUESTIONS,
	DNS_LABEL,
	DNS_BYTES,
};

static __always_inline void next_number(struct name_parser *p, u8 phase, u8 wanted)
{
	p->phase = phase;
	p->wanted = wanted;
	p->number = 0;
}

/* TLS: the header of the next record. */
static __always_inline void record_byte(struct name_parser *p, u8 byte)
{
	u8 at = p->head;

	p->head = at + 1;
	if (at == 0)
		p->over = byte != TLS_HANDSHAKE;
	else if (at == 1)
		p->over = byte != 3;
	else if (at == 3)
		p->inner = (p->inner & 0xffff0000) | (u32)byte << 8; /* the list of extensions is shorter than 64 KiB */
	else if (at == 4) {
		p->left = (p->inner >> 8 & 0xff) << 8 | byte;
		p->head = 0;
		p->over = !p->left || p->left > TLS_RECORD_MAX;
	}
}

static __always_inline void tls_number(struct name_parser *p, u32 n)
{
	u32 list;

	switch (p->phase) {
	case TLS_TYPE:
		p->over = n != TLS_CLIENT_HELLO;
		return next_number(p, TLS_LENGTH, 3);
	case TLS_LENGTH:
		p->skip = 34; /* version, random */
		return next_number(p, TLS_SESSION, 1);
	case TLS_SESSION:
		p->skip = n;
		return next_number(p, TLS_SUITES, 2);
	case TLS_SUITES:
		p->skip = n;
		return next_number(p, TLS_METHODS, 1);
	case TLS_METHODS:
		p->skip = n;
		return next_number(p, TLS_EXTENSIONS, 2);
	case TLS_EXTENSIONS:
		p->inner = n << 16;
		p->over = n < 4;
		return next_number(p, TLS_EXTENSION, 2);
	case TLS_EXTENSION:
		p->server = n == 0;
		return next_number(p, TLS_EXTENSION_LENGTH, 2);
	case TLS_EXTENSION_LENGTH:
		if (p->server)
			return next_number(p, TLS_LIST, 2);
		list = p->inner >> 16;
		p->over = list < n + 8; /* none of those that follow has room for a header */
		p->inner = (list - n - 4) << 16;
		p->skip = n;
		return next_number(p, TLS_EXTENSION, 2);
	case TLS_LIST:
		return next_number(p, TLS_NAME_TYPE, 1);
	case TLS_NAME_TYPE:
		p->over = n != 0; /* a host's name; there is no other type */
		return next_number(p, TLS_NAME_LENGTH, 2);
	case TLS_NAME_LENGTH:
		p->over = n == 0;
		p->name_left = n;
		p->name_len = 0;
		p->state = p->start;
		p->phase = TLS_NAME;
	}
}

static __always_inline void dns_number(struct name_parser *p, u32 n)
{
	switch (p->phase) {
	case DNS_LENGTH:
		p->over = n < DNS_LEAST;
		p->left = n;
		p->skip = 2; /* its id */
		return next_number(p, DNS_FLAGS, 2);
	case DNS_FLAGS:
		p->over = (n & DNS_NO_QUERY) != 0;
		return next_number(p, DNS_QUESTIONS, 2);
	case DNS_QUESTIONS:
		p->over = n == 0 || n > QUESTIONS_MAX;
		p->questions = n;
		p->skip = 6;
		p->name_len = 0;
		p->state = p->start;
		return next_number(p, DNS_LABEL, 1);
	}
}

/* The length of the next label; gives what is to be walked, -1 = nothing. */
static __always_inline int dns_label(struct name_parser *p, u32 n)
{
	bool first = !p->head;

	next_number(p, DNS_LABEL, 1);
	if (n > LABEL_MAX) { /* points to another name: never in a first question */
		p->over = 1;
		p->unread = 1;
		return -1;
	}
	if (n) {
		p->head = 1;
		p->name_left = n;
		p->phase = DNS_BYTES;
		return first ? -1 : '.';
	}
	p->head = 0;
	p->questions--;
	p->skip = 4; /* type and class */
	if (!p->questions) {
		p->skip = p->left; /* the rest of the message, and then the next */
		next_number(p, DNS_LENGTH, 2);
	}
	return 0;
}

/* One byte that is of neither TLS's records nor a name. Gives what is to be walked, -1 = nothing. */
static __always_inline int number_byte(struct name_parser *p, u8 byte)
{
	u32 n = p->number << 8 | byte;

	p->number = n;
	p->wanted--;
	if (p->wanted)
		return -1;
	if (p->phase == DNS_LABEL)
		return dns_label(p, n);
	if (p->phase < DNS_LENGTH)
		tls_number(p, n);
	else
		dns_number(p, n);
	return -1;
}

/* A byte of a name. */
static __always_inline int name_byte(struct name_parser *p, u8 byte)
{
	p->name_left--;
	if (p->phase == TLS_NAME) {
		p->ends = !p->name_left;
		if (p->ends && byte == '.')
			return -1;
	} else if (!p->name_left) {
		next_number(p, DNS_LABEL, 1);
	}
	return byte ? byte : 1; /* a NUL is where the walk ends, and this is not its end */
}

static __always_inline int take_byte(struct name_parser *p, u8 byte)
{
	if (p->phase == PHASE_BEGIN) {
		next_number(p, byte == TLS_HANDSHAKE ? TLS_TYPE : DNS_LENGTH, byte == TLS_HANDSHAKE ? 1 : 2);
		p->kind = byte == TLS_HANDSHAKE ? NAME_SERVER : NAME_QUESTION;
	}
	if (p->kind == NAME_SERVER && !p->left) {
		record_byte(p, byte);
		return -1;
	}
	if (p->phase != DNS_LENGTH) {
		if (!p->left) {
			p->over = 1; /* no message of DNS */
			return -1;
		}
		p->left--;
	}
	if (p->phase == TLS_NAME || p->phase == DNS_BYTES)
		return name_byte(p, byte);
	return number_byte(p, byte);
}

static __always_inline void walk_name(struct name_parser *p, struct predicate_set *bits, u8 byte, u32 base)
{
	u16 flag = p->kind == NAME_SERVER ? 1 << BIT_TLS : 1 << BIT_DNS;
	u32 state = p->state, at = p->name_len;
	struct predicate_set *accepted;
	struct dfa_row *row;
	u32 key;
	u16 next;

	if (byte) {
		bits->word[0] |= flag;
		if (p->kept != NAME_KEPT) {
			p->name[at & (WIRE_NAME - 1)] = byte;
			p->name_len = at < WIRE_NAME - 1 ? at + 1 : at;
		}
	}
	key = base + state;
	row = bpf_map_lookup_elem(&dfa_rows, &key);
	if (!row)
		return;
	next = row->next[byte];
	state = next & (ACCEPTS - 1);
	if (next & ACCEPTS) {
		key = base + state;
		accepted = bpf_map_lookup_elem(&dfa_accepts, &key);
		for (int w = 0; accepted && w < PREDICATE_WORDS; w++)
			bits->word[w] |= accepted->word[w];
		if (!p->kept)
			p->kept = NAME_MET;
	}
	p->state = byte ? state : p->start;
	if (byte)
		return;
	if (p->kept)
		p->kept = NAME_KEPT;
	else
		p->name_len = 0;
}

static __always_inline u32 passed_over(struct name_parser *p, u32 len)
{
	u32 n = p->skip;

	/* Inside a record or a message, as far as it goes; behind DNS's last question that is all that is left of it. */
	if (n > p->left)
		n = p->left;
	if (n > len)
		n = len;
	p->skip -= n;
	p->left -= n;
	return n;
}

/* At most NAME_STEPS steps over `len` bytes at `at`; leaves in `taken` how many bytes they took. All that goes round lies in the
 * socket's storage and not in registers: the verifier would follow every value that it may have. */
__attribute__((noinline)) int read_names(struct __sk_buff *skb, u32 at, u32 len, u32 base)
{
	struct wire_flow *flow = flow_of(skb);
	struct name_parser *p;

	if (!flow)
		return 0;
	p = &flow->names;
	if (p->skip && p->left && !p->ends) {
		p->taken = passed_over(p, len);
		return 0;
	}
	if (len > NAME_PIECE)
		len = NAME_PIECE;
	if (!len || bpf_skb_load_bytes(skb, at, p->chunk, at_least_one(len, NAME_PIECE)))
		return 0;
	p->here = len;
	for (u32 i = 0; i < NAME_STEPS; i++) {
		u32 taken;
		int byte = 0;

		barrier(); /* or the compiler would keep it in registers all the same */
		taken = p->taken;
		if (p->ends) {
			p->ends = 0;
			p->over = 1; /* a ClientHello names one server */
		} else {
			if (p->over || taken >= p->here)
				break;
			if (p->skip && p->left) {
				p->taken = taken + passed_over(p, p->here - taken);
				continue;
			}
			byte = take_byte(p, p->chunk[taken & (NAME_PIECE - 1)]);
			p->taken = taken + 1;
		}
		if (byte >= 0)
			walk_name(p, &flow->walk[WIRE_SENT].bits, byte, base);
	}
	return 0;
}

/* Reads on in what the segment brings. */
__attribute__((noinline)) int follow_names(struct __sk_buff *skb, u32 at, u32 len, u32 base)
{
	struct wire_flow *flow = flow_of(skb);
	struct name_parser *p;

	if (!flow)
		return 0;
	p = &flow->names;
	p->ahead = len;
	for (u32 i = 0; i < NAME_PIECES; i++) {
		if (p->over || !p->ahead)
			return 0;
		p->taken = 0;
		read_names(skb, at + (len - p->ahead), p->ahead, base);
		if (!p->taken || p->taken > p->ahead)
			break;
		p->ahead -= p->taken;
	}
	if (p->over || !p->ahead)
		return 0;
	p->over = 1;
	p->unread = 1;
	return 0;
}

#endif

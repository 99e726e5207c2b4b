/* SPDX-License-Identifier: GPL-2.0 */
/* One buffer a CPU in which an exec is put together: too large for the stack. A tracing program is never entered twice
 * on one CPU, so only the exec program may use it. */
#ifndef KS_SCRATCH_H
#define KS_SCRATCH_H

#include "maps.h"

/* The record's texts, in their order and at their largest: parent, executable, file name, argv, each with a NUL. */
#define NAME_BYTES 256
#define TEXT_USED (NAME_BYTES + 2 * PATH_BYTES + ARGV_WINDOW + 1)
#define TEXT_BYTES 16384
#define TEXT_MASK (TEXT_BYTES - 1)

/* Where the texts lie in scratch->text. */
struct spans {
	u32 parent, executable, filename, argv;
	u32 executable_name, filename_name; /* where the basenames begin */
	u32 end;
	u32 argv_walk;   /* length of argv as it is walked: with a NUL at its end */
	u32 after_slash; /* what find_basename found */
	u32 padding;
};

/* What came out of following a path upwards; the path itself lies at the end of scratch->path. */
struct walked {
	u32 start;
	u32 name_len; /* of the last component */
	u8 complete;  /* else deeper or longer than we follow: the beginning is missing, and so is its "/" */
	u8 floating;  /* in no directory at all, as a memfd */
	u8 padding[6];
};

/* Intermediate results are kept here and not in registers: the verifier tells states apart by what is in registers, and
 * would follow every combination. */
struct scratch {
	struct predicate_set bits;
	u32 kill;
	u32 sever;
	u32 open; /* a rule that only the daemon can judge to its end may still match */
	u32 padding;
	struct spans at;
	struct walked walked;
	struct exec_event event;
	char text[TEXT_BYTES + PATH_BYTES]; /* masked offset + largest part */
	char path[PATH_BYTES + NAME_BYTES]; /* filled from its end */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} exec_scratch SEC(".maps");

static __always_inline struct scratch *scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&exec_scratch, &zero);
}

#endif

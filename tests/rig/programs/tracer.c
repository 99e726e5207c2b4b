/*
 * Leaves a trace with its first instructions: _start opens the file named by the first environment string ("T=<path>") and
 * appends a byte. No library and no start-up code runs before.
 */
#include <asm/unistd.h>
#include <fcntl.h>

static inline long call3(long n, long a, long b, long c)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}

__attribute__((used)) static void trace(long *stack)
{
	char **environment = (char **)(stack + 1 + stack[0] + 1);
	long fd = call3(__NR_open, (long)(environment[0] + 2), O_WRONLY | O_CREAT | O_APPEND, 0600);

	call3(__NR_write, fd, (long)"x", 1);
	call3(__NR_exit_group, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall trace\n");

/*
 * The cost of a process: spawn COUNT (vfork, execve, exit, wait) of PROGRAM, print nanoseconds for each.
 *
 *   spawn COUNT PROGRAM [ARG...]
 *
 * More arguments for PROGRAM, separated by blanks, may come in the environment as SPAWN_ARGS: a rule that forbids them must
 * not hit this program first.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec a, b;
	int status;

	if (argc < 3)
		return 2;
	int count = atoi(argv[1]), n = 0;
	char *args[64], *more = getenv("SPAWN_ARGS");

	for (; n < argc - 2 && n < 48; n++)
		args[n] = argv[n + 2];
	for (char *arg = more ? strtok(more, " ") : NULL; arg && n < 63; arg = strtok(NULL, " "))
		args[n++] = arg;
	args[n] = NULL;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < count; i++) {
		pid_t child = vfork();

		if (child == 0) {
			execve(argv[2], args, environ);
			_exit(127);
		}
		if (child < 0 || waitpid(child, &status, 0) < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 127))
			return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / count);
	return 0;
}

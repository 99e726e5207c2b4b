/*
 * COUNT processes, each of which forks a child that ends at once, again and again, as fast as it can. So there are never
 * more than twice as many. Says "ready" when all are there; they end when its input closes, or when it ends.
 *
 *   storm COUNT
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void fork_on(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	for (;;) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		if (child > 0)
			waitpid(child, NULL, 0);
		else
			usleep(1000);
	}
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1;
	pid_t self = getpid();
	char c;

	if (count < 1 || count > 4000)
		return 2;
	for (int i = 1; i < count; i++) {
		pid_t child = fork();

		if (child < 0)
			return 1;
		if (child == 0)
			fork_on(self);
	}
	puts("ready");
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	return 0;
}

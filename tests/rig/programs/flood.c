/*
 * Makes events as fast as one process can: WHAT is "connect" (datagram sockets to loopback, again and again, each time another
 * port), "fork" (children that end at once) or "exec" (PROGRAM with 4 KiB of arguments). Ends after SECONDS, or when killed.
 *
 *   flood connect|fork|exec SECONDS [PROGRAM]
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char padding[4000];
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	time_t end = time(NULL) + (argc > 2 ? atoi(argv[2]) : 0);
	int connects = argc > 1 && !strcmp(argv[1], "connect"), execs = argc > 3 && !strcmp(argv[1], "exec");
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	memset(padding, 'x', sizeof(padding) - 1);
	for (unsigned int n = 1; n % 64 || time(NULL) < end; n++) {
		pid_t child;

		if (connects) {
			to.sin_port = htons(1 + n % 60000);
			connect(fd, (struct sockaddr *)&to, sizeof(to));
			continue;
		}
		child = vfork();
		if (child == 0) {
			if (execs)
				execl(argv[3], argv[3], padding, (char *)NULL);
			_exit(0);
		}
		if (child > 0)
			waitpid(child, NULL, 0);
	}
	return 0;
}

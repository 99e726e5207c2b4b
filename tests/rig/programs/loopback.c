/*
 * TCP over 127.0.0.1 between two processes of one workload; prints one number.
 *
 *   loopback stream MEGABYTES     megabytes a second in writes of 64 KiB
 *   loopback request COUNT        nanoseconds for a request and its answer of 64 bytes each
 *   loopback connect COUNT        nanoseconds for connect, accept and close
 *   loopback first COUNT          nanoseconds for the first request and answer of a connection, with connect and close
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char data[65536];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void all(int fd, size_t size, int out)
{
	while (size) {
		ssize_t n = out ? write(fd, data, size < sizeof(data) ? size : sizeof(data)) :
				  read(fd, data, size < sizeof(data) ? size : sizeof(data));
		if (n <= 0) {
			fprintf(stderr, "%s: %zu bytes left: %s\n", out ? "write" : "read", size, n ? strerror(errno) : "end");
			exit(1);
		}
		size -= n;
	}
}

static int join(struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (connect(fd, (struct sockaddr *)to, sizeof(*to)) < 0) {
		perror("connect");
		exit(1);
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(to);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	if (argc < 3 || bind(listener, (struct sockaddr *)&to, sizeof(to)) || listen(listener, 128) ||
	    getsockname(listener, (struct sockaddr *)&to, &length))
		return 2;
	char what = argv[1][0];
	long count = atol(argv[2]);
	pid_t child = fork();

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (what == 'c') {
			/* The client closes first and resets, so that no port is kept waiting. */
			for (;;)
				close(accept(listener, NULL, NULL));
		}
		if (what == 'f') {
			for (;;) {
				int fd = accept(listener, NULL, NULL);

				all(fd, 64, 0), all(fd, 64, 1);
				close(fd);
			}
		}
		int fd = accept(listener, NULL, NULL), one = 1;

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (what == 's') {
			all(fd, (size_t)count << 20, 0);
			all(fd, 1, 1);
		} else {
			for (long i = 0; i < count; i++)
				all(fd, 64, 0), all(fd, 64, 1);
		}
		_exit(0);
	}
	double start = now(), result;

	if (what == 'c' || what == 'f') {
		struct linger reset = { 1, 0 };

		for (long i = 0; i < count; i++) {
			int fd = join(&to);

			if (what == 'f')
				all(fd, 64, 1), all(fd, 64, 0);
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
			close(fd);
		}
		result = (now() - start) / count;
		kill(child, SIGKILL);
	} else {
		int fd = join(&to);

		start = now();
		if (what == 's') {
			all(fd, (size_t)count << 20, 1);
			all(fd, 1, 0);
			result = count / ((now() - start) / 1e9);
		} else {
			for (long i = 0; i < count; i++)
				all(fd, 64, 1), all(fd, 64, 0);
			result = (now() - start) / count;
		}
	}
	printf("%f\n", result);
	return 0;
}

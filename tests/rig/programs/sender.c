/*
 * Puts packets on the wire as fast as asked, until it is stopped or SECONDS are over:
 *
 *   sender udp|tcp HOST PORT SECONDS [PAUSE_US]        IPv4 or IPv6, as HOST is
 *
 * tcp: one connection made at the start and written to, and a new one tried every 16 writes.
 */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST }, *to;
	char data[512];

	if (argc < 5)
		return 2;
	hints.ai_socktype = strcmp(argv[1], "udp") ? SOCK_STREAM : SOCK_DGRAM;
	if (getaddrinfo(argv[2], argv[3], &hints, &to))
		return 2;
	memset(data, 'k', sizeof(data));
	int seconds = atoi(argv[4]), pause = argc > 5 ? atoi(argv[5]) : 1000;
	time_t end = time(NULL) + (seconds < 120 ? seconds : 120);
	int fd = socket(to->ai_family, hints.ai_socktype, 0);

	if (connect(fd, to->ai_addr, to->ai_addrlen) < 0)
		return 1;
	for (unsigned i = 0; time(NULL) < end; i++) {
		if (send(fd, data, sizeof(data), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && hints.ai_socktype == SOCK_DGRAM)
			usleep(1000);
		if (hints.ai_socktype == SOCK_STREAM && i % 16 == 0) {
			int other = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

			connect(other, to->ai_addr, to->ai_addrlen);
			usleep(200);
			close(other);
		}
		if (pause)
			usleep(pause);
	}
	return 0;
}

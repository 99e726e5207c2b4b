/*
 * Wants out, whatever is refused: UDP and TCP, on sockets made at the start and on new ones, over both address families,
 * until it is ended or its parent ends.
 *
 *   insist PORT PAUSE_US COUNT_FILE HOST…      HOST: numeric, IPv4 or IPv6
 *
 * COUNT_FILE gets, as a native u64, how often it has tried: silence at the far side proves nothing without it.
 */
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 8

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_DGRAM }, *to[MOST];
	int old[MOST], stream[MOST], hosts = argc - 4;
	char data[64];

	if (hosts < 1 || hosts > MOST)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(data, 'i', sizeof(data));
	int file = open(argv[3], O_RDWR | O_CREAT, 0600);

	if (file < 0 || ftruncate(file, sizeof(uint64_t)))
		return 2;
	volatile uint64_t *tried = mmap(NULL, sizeof(*tried), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	if (tried == MAP_FAILED)
		return 2;
	for (int i = 0; i < hosts; i++) {
		if (getaddrinfo(argv[4 + i], argv[1], &hints, &to[i]))
			return 2;
		old[i] = socket(to[i]->ai_family, SOCK_DGRAM, 0);
		stream[i] = socket(to[i]->ai_family, SOCK_STREAM, 0);
		connect(stream[i], to[i]->ai_addr, to[i]->ai_addrlen);
	}
	for (unsigned round = 0;; round++) {
		for (int i = 0; i < hosts; i++) {
			sendto(old[i], data, sizeof(data), MSG_DONTWAIT, to[i]->ai_addr, to[i]->ai_addrlen);
			send(stream[i], data, sizeof(data), MSG_NOSIGNAL | MSG_DONTWAIT);
			if (round % 16 == 0) {
				int fresh = socket(to[i]->ai_family, SOCK_DGRAM, 0);
				int other = socket(to[i]->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

				sendto(fresh, data, sizeof(data), MSG_DONTWAIT, to[i]->ai_addr, to[i]->ai_addrlen);
				connect(other, to[i]->ai_addr, to[i]->ai_addrlen);
				if (round % 256 == 0) { /* the established one may have been destroyed: a new one in its place */
					close(stream[i]);
					stream[i] = other;
				} else {
					close(other);
				}
				close(fresh);
			}
		}
		++*tried;
		usleep(atoi(argv[2]));
	}
}

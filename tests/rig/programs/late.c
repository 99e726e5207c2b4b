/*
 * Asks io_uring, with a thread of the kernel's own that takes what is asked (SQPOLL), for two things MS milliseconds later: a
 * datagram to HOST PORT (IPv4) and a byte in FILE. Then it does nothing any more.
 *
 *   late HOST PORT FILE MS        prints "asked", or why not
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 5000 };
	struct sockaddr_in to = { .sin_family = AF_INET };

	if (argc < 5)
		return 2;
	inet_pton(AF_INET, argv[1], &to.sin_addr);
	to.sin_port = htons(atoi(argv[2]));
	struct __kernel_timespec delay = { .tv_sec = atoi(argv[4]) / 1000, .tv_nsec = atoi(argv[4]) % 1000 * 1000000ll };
	int udp = socket(AF_INET, SOCK_DGRAM, 0), file = open(argv[3], O_WRONLY);
	int fd = syscall(SYS_io_uring_setup, 8, &p);

	if (fd < 0 || udp < 0 || file < 0 || connect(udp, (void *)&to, sizeof(to)) < 0) {
		printf("%s\n", strerror(errno));
		return 0;
	}
	char *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
			IORING_OFF_SQ_RING);
	struct io_uring_sqe *sqes = mmap(0, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
					 fd, IORING_OFF_SQES);

	/* A timer that runs out is a failure, which a hard link outlives. */
	for (int i = 0; i < 2; i++) {
		sqes[2 * i] = (struct io_uring_sqe){ .opcode = IORING_OP_TIMEOUT, .fd = -1, .addr = (unsigned long)&delay,
						     .len = 1, .flags = IOSQE_IO_HARDLINK };
	}
	sqes[1] = (struct io_uring_sqe){ .opcode = IORING_OP_SEND, .fd = udp, .addr = (unsigned long)"l", .len = 1 };
	sqes[3] = (struct io_uring_sqe){ .opcode = IORING_OP_WRITE, .fd = file, .addr = (unsigned long)"l", .len = 1 };
	for (int i = 0; i < 4; i++)
		((unsigned *)(sq + p.sq_off.array))[i] = i;
	__atomic_store_n((unsigned *)(sq + p.sq_off.tail), 4, __ATOMIC_RELEASE);
	syscall(SYS_io_uring_enter, fd, 4, 0, IORING_ENTER_SQ_WAKEUP, 0, 0);
	printf("asked\n");
	fflush(stdout);
	for (int i = 0; i < 100; i++)
		usleep(100000);
	return 0;
}

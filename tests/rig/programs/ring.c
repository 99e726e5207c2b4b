/*
 * One UDP sendmsg and one TCP connect to HOST PORT (IPv4) through io_uring, by its raw system calls:
 *
 *   ring HOST PORT        prints the two results, as io_uring gave them (negative: an errno)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int once(struct io_uring_sqe request)
{
	struct io_uring_params p = { 0 };
	int fd = syscall(SYS_io_uring_setup, 2, &p), result;

	if (fd < 0)
		return -errno;
	char *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
			IORING_OFF_SQ_RING);
	char *cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqes = mmap(0, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
					 fd, IORING_OFF_SQES);

	sqes[0] = request;
	*(unsigned *)(sq + p.sq_off.array) = 0;
	__atomic_store_n((unsigned *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	/* A blocking connect waits for the handshake: do not. */
	if (syscall(SYS_io_uring_enter, fd, 1, 0, 0, 0, 0) < 0)
		return -errno;
	for (int i = 0; i < 300; i++) {
		if (__atomic_load_n((unsigned *)(cq + p.cq_off.tail), __ATOMIC_ACQUIRE)) {
			result = ((struct io_uring_cqe *)(cq + p.cq_off.cqes))->res;
			close(fd);
			return result;
		}
		syscall(SYS_io_uring_enter, fd, 0, 0, IORING_ENTER_GETEVENTS, 0, 0);
		usleep(1000);
	}
	return -ETIME;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct iovec data = { "u", 1 };
	struct msghdr message = { &to, sizeof(to), &data, 1, 0, 0, 0 };
	struct io_uring_sqe request = { .opcode = IORING_OP_SENDMSG, .len = 1 };

	if (argc < 3)
		return 2;
	inet_pton(AF_INET, argv[1], &to.sin_addr);
	to.sin_port = htons(atoi(argv[2]));
	request.fd = socket(AF_INET, SOCK_DGRAM, 0);
	request.addr = (unsigned long)&message;
	int sent = request.fd < 0 ? -errno : once(request);

	request = (struct io_uring_sqe){ .opcode = IORING_OP_CONNECT, .addr = (unsigned long)&to, .off = sizeof(to) };
	request.fd = socket(AF_INET, SOCK_STREAM, 0);
	printf("%d %d\n", sent, request.fd < 0 ? -errno : once(request));
	return 0;
}

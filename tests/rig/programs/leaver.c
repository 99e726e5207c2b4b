/*
 * A workload that is cut off lets its children out, again and again, and each tries to send from outside:
 *
 *   leaver OUTSIDE TRIES move|born udp|fork|packet|bypass HOST DEVICE
 *
 * It waits for a line on stdin. Each try: a mover (on one CPU) has a child (on another) that tries in a loop already, and
 * writes its number to OUTSIDE/cgroup.procs; or has one born there. udp: a socket and a datagram; fork: a child of its own that
 * does so; packet, bypass: a frame. Told at the end, in one line: how many of the tries made a socket, sent a datagram, had a
 * child that was not killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_MS 1000
#define GRANDCHILD_MS 20
#define NEVER_MS 30000

struct shared {
	volatile int child, running;
	volatile unsigned made, sent, lived;
};

static struct shared *shared;
static struct sockaddr_in to;
static const char *what, *name;
static char procs[512];
static int outside, device;

static void on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static void send_udp(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0)
		return;
	shared->made++;
	if (sendto(fd, "x", 1, 0, (void *)&to, sizeof(to)) == 1)
		shared->sent++;
	close(fd);
}

static void send_frame(void)
{
	/* Broadcast, IPv4, of protocol 253 (RFC 3692: for experiments). */
	static const char frame[60] = {-1, -1, -1, -1, -1, -1, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, [23] = (char)253};
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = device, .sll_halen = 6};
	int fd = socket(AF_PACKET, SOCK_RAW, 0), yes = 1;

	if (fd < 0)
		return;
	if (!strcmp(what, "bypass"))
		setsockopt(fd, 263, PACKET_QDISC_BYPASS, &yes, sizeof(yes));
	sendto(fd, frame, sizeof(frame), 0, (void *)&at, sizeof(at)); /* does not fail where it goes nowhere */
	close(fd);
}

static void attempt(void)
{
	if (!strcmp(what, "packet") || !strcmp(what, "bypass"))
		return send_frame();
	if (!strcmp(what, "fork")) {
		int64_t end = now_ms() + GRANDCHILD_MS;
		pid_t pid = syscall(SYS_fork);

		if (pid == 0) {
			while (now_ms() < end)
				send_udp();
			_exit(0);
		}
		usleep(1000);
		return;
	}
	send_udp();
}

static int is_outside(void)
{
	char text[4096] = "", *line;
	int fd = open("/proc/self/cgroup", O_RDONLY);

	read(fd, text, sizeof(text) - 1);
	close(fd);
	line = strstr(text, "0::");
	return line && strstr(line, name);
}

/* It has this long from when it finds itself outside: how long its mover takes is not its affair. */
static void child(void)
{
	int64_t now = now_ms(), last = now + NEVER_MS, end = 0, look = 0;

	signal(SIGCHLD, SIG_IGN);
	shared->child = getpid();
	shared->running = 1;
	for (; now < last && (!end || now < end); now = now_ms()) {
		attempt();
		if (end || now < look)
			continue;
		look = now + 20;
		if (is_outside())
			end = now + CHILD_MS;
	}
	_exit(end ? 0 : 1);
}

static pid_t born_outside(void)
{
	struct {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
	} how = {.flags = 0x200000000ull, .exit_signal = SIGCHLD, .cgroup = outside};

	return syscall(435, &how, sizeof(how));
}

static void note_end(pid_t pid, int status)
{
	if (pid == shared->child && WIFEXITED(status) && !WEXITSTATUS(status))
		shared->lived = 1;
}

static void mover(int born)
{
	int fd = open(procs, O_WRONLY), status;
	char text[16];
	pid_t pid;

	on_cpu(0);
	pid = born ? born_outside() : fork();
	if (pid == 0) {
		if (!born)
			on_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
		child();
	}
	if (!born) {
		while (!shared->running)
			sched_yield();
		usleep(300);
		write(fd, text, sprintf(text, "%d", pid));
	}
	if (waitpid(pid, &status, 0) == pid)
		note_end(pid, status);
	_exit(0);
}

int main(int argc, char **argv)
{
	unsigned tries, made = 0, sent = 0, lived = 0;
	char line[2];

	if (argc < 7)
		return 2;
	tries = atoi(argv[2]);
	what = argv[4];
	name = strrchr(argv[1], '/');
	to.sin_family = AF_INET;
	to.sin_port = htons(4001);
	inet_aton(argv[5], &to.sin_addr);
	device = if_nametoindex(argv[6]);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", argv[1]);
	outside = open(argv[1], O_RDONLY | O_DIRECTORY);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* a mover may be killed before its child */
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 2;
	for (unsigned i = 0; i < tries; i++) {
		int status;
		pid_t pid;

		memset((void *)shared, 0, sizeof(*shared));
		if (fork() == 0)
			mover(!strcmp(argv[3], "born"));
		while ((pid = waitpid(-1, &status, 0)) > 0)
			note_end(pid, status);
		made += shared->made > 0;
		sent += shared->sent > 0;
		lived += shared->lived;
	}
	printf("made %u sent %u lived %u\n", made, sent, lived);
	return 0;
}

/*
 * A workload that is cut off lets its children out, again and again, and each tries to send from outside:
 *
 *   leaver OUTSIDE TRIES move|born udp|packet|fork|exec HOST PORT
 *
 * It waits for a line on stdin. Each try: a mover (on one CPU) has a child (on another) that already tries in a loop, and
 * writes its number to OUTSIDE/cgroup.procs; or has one born there. At the end it tells in one line what the children came
 * to: tries, how many of them made a socket, sent something, had a child of their own; how many lived on until killed here.
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

#define CHILD_SECONDS 5
#define LIVES_ON_MS 3000

struct shared {
	volatile int child, running;
	volatile unsigned made, sent, forked;
};

static struct shared *shared;
static struct sockaddr_in to;
static const char *what;
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
		int64_t end = now_ms() + 20;
		pid_t pid = syscall(SYS_fork);

		if (pid == 0) {
			while (now_ms() < end)
				send_udp();
			_exit(0);
		}
		return;
	}
	send_udp();
}

static void child(void)
{
	time_t end = time(NULL) + CHILD_SECONDS;

	signal(SIGCHLD, SIG_IGN);
	shared->running = 1;
	while (time(NULL) < end)
		attempt();
	_exit(0);
}

static pid_t born_outside(void)
{
	struct {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
	} how = {.flags = 0x200000000ull, .exit_signal = SIGCHLD, .cgroup = outside};

	return syscall(435, &how, sizeof(how));
}

static void mover(int born)
{
	char text[16];
	int fd = open(procs, O_WRONLY);
	pid_t pid;

	on_cpu(0);
	pid = born ? born_outside() : fork();
	if (pid == 0) {
		if (!born)
			on_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
		child();
	}
	shared->child = pid;
	if (!born) {
		while (!shared->running)
			sched_yield();
		usleep(300);
		write(fd, text, sprintf(text, "%d", pid));
	}
	waitpid(pid, NULL, 0);
	_exit(0);
}

int main(int argc, char **argv)
{
	unsigned tries, made = 0, sent = 0, lived = 0;
	int64_t end;
	char line[2];

	if (argc < 7)
		return 2;
	tries = atoi(argv[2]);
	what = argv[4];
	to.sin_family = AF_INET;
	to.sin_port = htons(atoi(argv[6]));
	inet_aton(argv[5], &to.sin_addr);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", argv[1]);
	outside = open(argv[1], O_RDONLY | O_DIRECTORY);
	device = argc > 7 ? if_nametoindex(argv[7]) : 0;
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 2;
	for (unsigned i = 0; i < tries; i++) {
		pid_t pid;

		memset((void *)shared, 0, sizeof(*shared));
		pid = fork();
		if (pid == 0)
			mover(!strcmp(argv[3], "born"));
		end = now_ms() + LIVES_ON_MS;
		while (!shared->child && now_ms() < end && waitpid(pid, NULL, WNOHANG) != pid)
			usleep(200);
		while (shared->child && !kill(shared->child, 0) && now_ms() < end) {
			waitpid(-1, NULL, WNOHANG);
			usleep(200);
		}
		if (shared->child && !kill(shared->child, 0)) {
			lived++;
			kill(shared->child, SIGKILL);
		}
		kill(pid, SIGKILL);
		while (waitpid(-1, NULL, 0) > 0)
			;
		made += shared->made > 0;
		sent += shared->sent > 0;
	}
	printf("tries %u made %u sent %u lived %u\n", tries, made, sent, lived);
	return 0;
}

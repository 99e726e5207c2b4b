/* Sends with its first instructions: "first tcp|udp|fork|exec ADDRESS PORT", or "first fd NUMBER", on a socket that it was
 * given. fork: a child sends over UDP. exec: it becomes "first udp". Ends with 0 when all calls have succeeded. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int send_to(int kind, const char *address, const char *port)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(port))};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int is_six = strchr(address, ':') != NULL, fd = socket(is_six ? AF_INET6 : AF_INET, kind, 0);
	char end;

	if (inet_pton(is_six ? AF_INET6 : AF_INET, address, is_six ? (void *)&six.sin6_addr : (void *)&four.sin_addr) != 1)
		return 2;
	if (connect(fd, is_six ? (void *)&six : (void *)&four, is_six ? sizeof(six) : sizeof(four)))
		return 3;
	if (send(fd, "first", 5, MSG_NOSIGNAL) != 5)
		return 4;
	if (kind == SOCK_STREAM && (shutdown(fd, SHUT_WR) || read(fd, &end, 1) != 0))
		return 5; /* the far side has taken it all in when it closes, too */
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (!strcmp(what, "fd"))
		return write(atoi(argv[2]), "first", 5) != 5;
	if (argc < 4)
		return 1;
	if (!strcmp(what, "exec"))
		return execl("/proc/self/exe", "first", "udp", argv[2], argv[3], NULL);
	if (!strcmp(what, "fork")) {
		int status, child = fork();

		if (!child)
			_exit(send_to(SOCK_DGRAM, argv[2], argv[3]));
		return waitpid(child, &status, 0) != child || status;
	}
	return send_to(strcmp(what, "udp") ? SOCK_STREAM : SOCK_DGRAM, argv[2], argv[3]);
}

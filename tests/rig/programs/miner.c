/*
 * The stand-in for every kind of miner: hashes of no worth (hashes.h) and a pool of ours, in many manners. It mines nothing.
 *
 * Settings are KEY=VALUE: from the arguments, from the file named by the first argument that has no '=' ("-": standard input),
 * or from the environment variable JOB, separated by blanks, commas or lines. It ends by itself after "seconds" (at most 300).
 *
 *   pool=ADDRESS:PORT   dialect=v1|authorize|login|eth|spaced|slow|split|batch   udp=1   unix=PATH (of who speaks to the pool)
 *   algo=sha256|sha256ni|keccak|blake2b|scrypt|cryptonight|ethash   threads=N   processes=N   duty=PERCENT   nice=N
 *   life=SECONDS (each worker process lives so long, and the next takes its place)
 *   title=TEXT (argv[0] and comm)   anonymous=1 (its code leaves its file, and runs from anonymous memory)   seconds=N
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "hashes.h"

struct setting {
	char key[16], value[108];
};
static struct setting settings[32];
static int known, pool = -1, duty = 100;
static time_t deadline;
static uint32_t (*hash)(uint32_t) = sha256d;

static void take(char *text)
{
	for (char *word = strtok(text, " ,\n\t{}\""); word && known < 32; word = strtok(NULL, " ,\n\t{}\"")) {
		char *equals = strchr(word, '=');
		if (!equals)
			continue;
		snprintf(settings[known].key, 16, "%.*s", (int)(equals - word), word);
		snprintf(settings[known++].value, 108, "%s", equals + 1);
	}
}

static void take_file(const char *path)
{
	static char text[4096];
	int fd = strcmp(path, "-") ? open(path, O_RDONLY) : 0;
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (got < 0) {
		perror(path);
		exit(2);
	}
	text[got] = 0;
	take(text);
}

static const char *get(const char *key, const char *otherwise)
{
	for (int i = known - 1; i >= 0; i--)
		if (!strcmp(settings[i].key, key))
			return settings[i].value;
	return otherwise;
}

static int number(const char *key, int otherwise)
{
	const char *value = get(key, NULL);
	return value ? atoi(value) : otherwise;
}

/* Every page of the program's own file becomes an anonymous one at the same address: nothing is left that names the file. */
static void leave_file(void)
{
	char line[512], own[256];
	ssize_t size = readlink("/proc/self/exe", own, sizeof(own) - 1);
	struct { char *start, *end; int rights; } part[16];
	int parts = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	own[size > 0 ? size : 0] = 0;
	while (maps && fgets(line, sizeof(line), maps) && parts < 16) {
		char r, w, x;
		if (!strstr(line, own) || sscanf(line, "%p-%p %c%c%c", (void **)&part[parts].start, (void **)&part[parts].end, &r, &w, &x) != 5)
			continue;
		part[parts++].rights = (r == 'r' ? PROT_READ : 0) | (w == 'w' ? PROT_WRITE : 0) | (x == 'x' ? PROT_EXEC : 0);
	}
	if (maps)
		fclose(maps);
	for (int i = 0; i < parts; i++) {
		size_t length = part[i].end - part[i].start;
		char *copy = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (copy == MAP_FAILED)
			continue;
		memcpy(copy, part[i].start, length);
		mprotect(copy, length, part[i].rights);
		mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, part[i].start);
	}
}

static int join_pool(char *where)
{
	char *colon = strrchr(where, ':');
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(colon + 1)) };
	int fd = socket(AF_INET, number("udp", 0) ? SOCK_DGRAM : SOCK_STREAM, 0);

	*colon = 0;
	if (inet_pton(AF_INET, where, &to.sin_addr) != 1 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		perror("pool");
		return -1;
	}
	return fd;
}

static int join_unix(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	for (int i = 0; i < 50 && connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0; i++)
		usleep(100000);
	return fd;
}

static void say(const char *text, size_t piece)
{
	for (size_t left = strlen(text); left;) {
		ssize_t sent = send(pool, text, left < piece ? left : piece, MSG_NOSIGNAL);
		if (sent <= 0)
			return;
		text += sent, left -= sent;
		if (left)
			usleep(2000);
	}
}

static void greet(const char *dialect)
{
	const char *login = "{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"login\",\"params\":{\"login\":\"48standin\",\"pass\":\"x\","
			    "\"agent\":\"standin/1\",\"algo\":[\"rx/0\"]}}\n";
	const char *subscribe = "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"standin/1\"]}\n";
	const char *authorize = "{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"w\",\"x\"]}\n";
	int one = 1;

	setsockopt(pool, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
	if (!strcmp(dialect, "login"))
		say(login, 4096);
	else if (!strcmp(dialect, "authorize"))
		say("{\"params\":[\"w\",\"x\"],\"id\":1,\"method\":\"mining.authorize\"}\n", 4096), say(subscribe, 4096);
	else if (!strcmp(dialect, "eth"))
		say("{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"eth_submitLogin\",\"worker\":\"r\",\"params\":[\"0x1\"]}\n", 4096);
	else if (!strcmp(dialect, "spaced"))
		say("  { \"params\" :\t[ \"standin/1\" ] , \"method\"\t:  \"mining.subscribe\" , \"id\" : 7 }\n", 4096), say(authorize, 4096);
	else if (!strcmp(dialect, "loginslow"))
		say(login, 1);
	else if (!strcmp(dialect, "slow"))
		say(subscribe, 1), say(authorize, 1);
	else if (!strcmp(dialect, "split"))
		say(login, 23);
	else if (!strcmp(dialect, "escaped"))
		say("{\"id\":1,\"method\":\"mining\\u002esubscribe\",\"params\":[]}\n{\"id\":2,\"method\":\"mining\\u002eauthorize\",\"params\":[\"w\",\"x\"]}\n", 4096);
	else
		say(subscribe, 4096), say(authorize, 4096);
}

static void *burn(void *arg)
{
	uint32_t nonce = (uint32_t)(uintptr_t)arg << 28;
	struct timespec begun, now;

	while (time(NULL) < deadline) {
		clock_gettime(CLOCK_MONOTONIC, &begun);
		do {
			for (int i = 0; i < 64; i++)
				if (!(hash(nonce++) & 0xfffff) && pool >= 0)
					say("{\"id\":4,\"method\":\"mining.submit\",\"params\":[\"w\",\"1\",\"00\",\"00\",\"01\"]}\n", 4096);
			clock_gettime(CLOCK_MONOTONIC, &now);
		} while ((now.tv_sec - begun.tv_sec) * 1000 + (now.tv_nsec - begun.tv_nsec) / 1000000 < duty);
		if (duty < 100)
			usleep((100 - duty) * 1000);
	}
	return NULL;
}

static void set_title(int argc, char **argv, const char *title)
{
	char *end = argv[argc - 1] + strlen(argv[argc - 1]), wanted[64];

	snprintf(wanted, sizeof(wanted), "%s", title);
	prctl(PR_SET_NAME, wanted);
	memset(argv[0], 0, end - argv[0]);
	snprintf(argv[0], end - argv[0], "%s", wanted);
}

int main(int argc, char **argv)
{
	static const struct { const char *name; uint32_t (*hash)(uint32_t); } algorithms[] = {
		{ "sha256", sha256d }, { "sha256ni", sha256d_ni }, { "keccak", keccak },	   { "blake2b", blake2b },
		{ "scrypt", scrypt },  { "ethash", ethash },	   { "cryptonight", cryptonight },
	};
	char where[108];
	pthread_t thread[16];

	if (getenv("JOB"))
		take(strdup(getenv("JOB")));
	for (int i = 1; i < argc; i++)
		if (strchr(argv[i], '='))
			take(strdup(argv[i]));
		else
			take_file(argv[i]);
	for (unsigned i = 0; i < sizeof(algorithms) / sizeof(*algorithms); i++)
		if (!strcmp(algorithms[i].name, get("algo", "sha256")))
			hash = algorithms[i].hash;
	deadline = time(NULL) + (number("seconds", 60) < 300 ? number("seconds", 60) : 300);
	duty = number("duty", 100);
	setpriority(PRIO_PROCESS, 0, number("nice", 0));
	if (get("title", NULL))
		set_title(argc, argv, get("title", NULL));
	if (number("anonymous", 0))
		leave_file();
	if (get("pool", NULL))
		pool = join_pool(strcpy(where, get("pool", "")));
	else if (get("unix", NULL))
		pool = join_unix(get("unix", ""));
	if (pool >= 0)
		greet(get("dialect", "v1"));
	for (int running = 0, life = number("life", 0); time(NULL) < deadline && (life || number("processes", 1) > 1);) {
		if (running == number("processes", 1)) {
			wait(NULL);
			running--;
		}
		running++;
		if (!fork()) {
			if (life && time(NULL) + life < deadline)
				deadline = time(NULL) + life;
			burn((void *)(uintptr_t)(getpid() & 15));
			_exit(0);
		}
	}
	for (int i = 1; i < number("threads", 1) && i < 16; i++)
		pthread_create(&thread[i], NULL, burn, (void *)(uintptr_t)i);
	burn(NULL);
	return 0;
}

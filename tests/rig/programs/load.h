/* What the stand-ins for loads share: words, the clock, how long to go on, memory to work in. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

#define ROL32(x, n) (((u32)(x) << (n)) | ((u32)(x) >> (32 - (n))))
#define ROL64(x, n) (((u64)(x) << (n)) | ((u64)(x) >> (64 - (n))))

static volatile u64 sink; /* what a loop computes goes here, or the compiler would leave it out */
static double until;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Of huge pages where there are any, and not all alike. */
__attribute__((unused)) static u8 *area(size_t bytes)
{
	u8 *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(p, bytes, MADV_HUGEPAGE);
	for (size_t i = 0; i < bytes; i += 8)
		*(u64 *)(p + i) = i * 0x9e3779b97f4a7c15ull;
	return p;
}

struct load {
	const char *name;
	void (*run)(u64 nonce); /* until `until` */
};

static const struct load *chosen;

__attribute__((unused)) static void *run_chosen(void *nonce)
{
	chosen->run((uintptr_t)nonce);
	return NULL;
}

/* "PROGRAM NAME SECONDS [THREADS]": main() of a program that is a table of loads. */
__attribute__((unused)) static int run_loads(const struct load *all, unsigned count, int argc, char **argv)
{
	int threads = argc > 3 ? atoi(argv[3]) : 1;
	pthread_t id[64];

	for (unsigned i = 0; argc > 2 && i < count; i++)
		if (!strcmp(argv[1], all[i].name))
			chosen = &all[i];
	if (!chosen || threads < 1 || threads > 64) {
		fprintf(stderr, "usage: %s NAME SECONDS [THREADS], NAME one of", argv[0]);
		for (unsigned i = 0; i < count; i++)
			fprintf(stderr, " %s", all[i].name);
		fprintf(stderr, "\n");
		return 2;
	}
	until = now() + (atof(argv[2]) < 600 ? atof(argv[2]) : 600);
	for (long i = 0; i < threads; i++)
		pthread_create(&id[i], NULL, run_chosen, (void *)(i + 1));
	for (int i = 0; i < threads; i++)
		pthread_join(id[i], NULL);
	return 0;
}

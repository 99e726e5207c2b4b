/* What the stand-ins for loads share: words, the clock, how long to go on, memory to work in. */
#include <stdint.h>
#include <stdlib.h>
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

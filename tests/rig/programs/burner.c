/*
 * A stand-in for a miner: logs in at a pool of ours by Stratum v1, burns double SHA-256 over a made-up header, and hands in
 * a "share" whenever a hash ends in 16 zero bits. It mines nothing: there is no chain, no difficulty and no reward.
 *
 *   burner SECONDS [HOST PORT [THREADS]]      ends by itself after SECONDS (at most 300)
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
	0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
	0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
	0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define STEP(a, b, c, d, e, f, g, h, i)                                                                          \
	do {                                                                                                     \
		uint32_t t = s[h] + (ROR(s[e], 6) ^ ROR(s[e], 11) ^ ROR(s[e], 25)) + ((s[e] & s[f]) ^ (~s[e] & s[g])) + \
			     K[i] + w[i];                                                                        \
		s[d] += t;                                                                                       \
		s[h] = t + (ROR(s[a], 2) ^ ROR(s[a], 13) ^ ROR(s[a], 22)) +                                      \
		       ((s[a] & s[b]) ^ (s[a] & s[c]) ^ (s[b] & s[c]));                                          \
	} while (0)

static void compress(uint32_t state[8], const uint32_t block[16])
{
	uint32_t w[64], s[8];

	memcpy(w, block, 64);
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		w[i] = w[i - 16] + w[i - 7] + (ROR(a, 7) ^ ROR(a, 18) ^ (a >> 3)) + (ROR(b, 17) ^ ROR(b, 19) ^ (b >> 10));
	}
	memcpy(s, state, 32);
	/* Eight steps a turn with the variables renamed, as every miner has it: nothing is moved. */
	for (int i = 0; i < 64; i += 8) {
		STEP(0, 1, 2, 3, 4, 5, 6, 7, i);
		STEP(7, 0, 1, 2, 3, 4, 5, 6, i + 1);
		STEP(6, 7, 0, 1, 2, 3, 4, 5, i + 2);
		STEP(5, 6, 7, 0, 1, 2, 3, 4, i + 3);
		STEP(4, 5, 6, 7, 0, 1, 2, 3, i + 4);
		STEP(3, 4, 5, 6, 7, 0, 1, 2, i + 5);
		STEP(2, 3, 4, 5, 6, 7, 0, 1, i + 6);
		STEP(1, 2, 3, 4, 5, 6, 7, 0, i + 7);
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

static time_t deadline;
static int pool = -1;

static void *burn(void *arg)
{
	static const uint32_t start[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	uint32_t nonce = (uint32_t)(uintptr_t)arg << 28;

	for (;; nonce++) {
		uint32_t state[8], block[16] = { 0x20000000, nonce, 0x65000000, 0x1d00ffff, [14] = 0, [15] = 640 };

		memcpy(state, start, 32);
		compress(state, block);
		memset(block, 0, sizeof(block));
		memcpy(block, state, 32);
		block[8] = 0x80000000;
		block[15] = 256;
		memcpy(state, start, 32);
		compress(state, block);
		if (!(state[7] & 0xffff) && pool >= 0) {
			char line[160];
			int n = snprintf(line, sizeof(line),
					 "{\"id\":4,\"method\":\"mining.submit\",\"params\":[\"w\",\"1\",\"00\",\"00\",\"%08x\"]}\n", nonce);
			if (write(pool, line, n) != n)
				pool = -1;
		}
		if (!(nonce & 0xfffff) && time(NULL) >= deadline)
			return NULL;
	}
}

static int join_pool(const char *host, int port)
{
	static const char hello[] = "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"standin/1\"]}\n"
				    "{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"w\",\"x\"]}\n";
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (inet_pton(AF_INET, host, &to.sin_addr) != 1 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    write(fd, hello, sizeof(hello) - 1) != sizeof(hello) - 1) {
		perror("pool");
		return -1;
	}
	return fd;
}

int main(int argc, char **argv)
{
	int seconds = argc > 1 ? atoi(argv[1]) : 10;
	long threads = argc > 4 ? atoi(argv[4]) : 1;
	pthread_t thread[8];

	deadline = time(NULL) + (seconds < 300 ? seconds : 300);
	if (argc > 3)
		pool = join_pool(argv[2], atoi(argv[3]));
	for (long i = 1; i < threads && i < 8; i++)
		pthread_create(&thread[i], NULL, burn, (void *)i);
	burn(NULL);
	return 0;
}

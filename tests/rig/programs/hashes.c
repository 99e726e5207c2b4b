/*
 * Proof-of-work stand-ins: the inner loops of hashes that coins use, over made-up input. They mine nothing: there is no chain, no
 * target, no reward and no network. What they have is the mix of instructions and the memory of the real thing.
 *
 *   hashes NAME SECONDS [THREADS [DUTY%]]       DUTY: works that share of each second and sleeps the rest
 *
 * Rolled loops on purpose where it says so: the compiler's options (-O0 … -O3, -march) then make the variants.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

#define ROL32(x, n) (((u32)(x) << (n)) | ((u32)(x) >> (32 - (n))))
#define ROL64(x, n) (((u64)(x) << (n)) | ((u64)(x) >> (64 - (n))))
#define ROR64(x, n) ROL64(x, 64 - (n))

static volatile u64 sink;

/* --- MD5, rolled: RFC 1321 as textbooks have it, the constants and the amounts in tables ------------------------- */

static u32 md5_k[64];
static const u8 md5_s[64] = { 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 5, 9,  14, 20, 5, 9,
			      14, 20, 5, 9,  14, 20, 5, 9,  14, 20, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23,
			      4, 11, 16, 23, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21 };

static void md5(u32 state[4], const u32 m[16])
{
	u32 a = state[0], b = state[1], c = state[2], d = state[3];

	for (int i = 0; i < 64; i++) {
		u32 f, t;
		int g;

		if (i < 16)
			f = (b & c) | (~b & d), g = i;
		else if (i < 32)
			f = (d & b) | (~d & c), g = (5 * i + 1) & 15;
		else if (i < 48)
			f = b ^ c ^ d, g = (3 * i + 5) & 15;
		else
			f = c ^ (b | ~d), g = (7 * i) & 15;
		t = d, d = c, c = b;
		f += a + md5_k[i] + m[g];
		b += ROL32(f, md5_s[i]);
		a = t;
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

static void do_md5(u64 nonce)
{
	u32 state[4] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476 }, m[16] = { nonce, nonce >> 32 };

	md5(state, m);
	sink += state[0];
}

/* --- SHA-1, rolled ----------------------------------------------------------------------------------------------- */

static void do_sha1(u64 nonce)
{
	u32 w[80] = { nonce, nonce >> 32 }, a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe, d = 0x10325476, e = 0xc3d2e1f0;

	for (int i = 16; i < 80; i++)
		w[i] = ROL32(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (int i = 0; i < 80; i++) {
		u32 f, k, t;

		if (i < 20)
			f = (b & c) | (~b & d), k = 0x5a827999;
		else if (i < 40)
			f = b ^ c ^ d, k = 0x6ed9eba1;
		else if (i < 60)
			f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
		else
			f = b ^ c ^ d, k = 0xca62c1d6;
		t = ROL32(a, 5) + f + e + k + w[i];
		e = d, d = c, c = ROL32(b, 30), b = a, a = t;
	}
	sink += a + b + c + d + e;
}

/* --- SHA-256 twice, rolled: no step is written out ----------------------------------------------------------------- */

static u32 sha_k[64];

static void sha256(u32 s[8], const u32 block[16])
{
	u32 w[64], v[8];

	memcpy(w, block, 64);
	memcpy(v, s, 32);
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (ROL32(w[i - 15], 25) ^ ROL32(w[i - 15], 14) ^ (w[i - 15] >> 3)) +
		       (ROL32(w[i - 2], 15) ^ ROL32(w[i - 2], 13) ^ (w[i - 2] >> 10));
	for (int i = 0; i < 64; i++) {
		u32 t1 = v[7] + (ROL32(v[4], 26) ^ ROL32(v[4], 21) ^ ROL32(v[4], 7)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) +
			 sha_k[i] + w[i];
		u32 t2 = (ROL32(v[0], 30) ^ ROL32(v[0], 19) ^ ROL32(v[0], 10)) +
			 ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		for (int j = 7; j > 0; j--)
			v[j] = v[j - 1];
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		s[i] += v[i];
}

static void do_sha256d(u64 nonce)
{
	u32 s[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	u32 block[16] = { nonce, nonce >> 32, 1, 2, 3 };

	sha256(s, block);
	memcpy(block, s, 32);
	sha256(s, block);
	sink += s[0];
}

/* --- RIPEMD-160's left line, rolled ------------------------------------------------------------------------------ */

static void do_ripemd(u64 nonce)
{
	static const u8 shift[16] = { 11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8 };
	static const u32 k[5] = { 0, 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xa953fd4e };
	u32 a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe, d = 0x10325476, e = 0xc3d2e1f0, x[16] = { nonce, nonce >> 32 };

	for (int i = 0; i < 80; i++) {
		u32 f, t;

		switch (i / 16) {
		case 0: f = b ^ c ^ d; break;
		case 1: f = (b & c) | (~b & d); break;
		case 2: f = (b | ~c) ^ d; break;
		case 3: f = (b & d) | (c & ~d); break;
		default: f = b ^ (c | ~d); break;
		}
		t = a + f + x[(i * 7 + i / 16) & 15] + k[i / 16];
		t = ROL32(t, shift[(i + i / 16) & 15]) + e;
		a = e, e = d, d = ROL32(c, 10), c = b, b = t;
	}
	sink += a ^ b ^ c ^ d ^ e;
}

/* --- BLAKE2b and BLAKE2s ------------------------------------------------------------------------------------------ */

static const u8 sigma[10][16] = {
	{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }, { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
	{ 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 }, { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
	{ 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 }, { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
	{ 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 }, { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
	{ 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 }, { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};
#define G64(a, b, c, d, x, y)                                                                                     \
	(a += b + (x), d = ROR64(d ^ a, 32), c += d, b = ROR64(b ^ c, 24), a += b + (y), d = ROR64(d ^ a, 16), c += d, \
	 b = ROR64(b ^ c, 63))
#define G32(a, b, c, d, x, y)                                                                                     \
	(a += b + (x), d = ROL32(d ^ a, 16), c += d, b = ROL32(b ^ c, 20), a += b + (y), d = ROL32(d ^ a, 24), c += d, \
	 b = ROL32(b ^ c, 25))
#define ROUND(G, v, m, s)                                                                                         \
	do {                                                                                                      \
		G(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);                                                     \
		G(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);                                                     \
		G(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);                                                    \
		G(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);                                                    \
		G(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);                                                    \
		G(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);                                                  \
		G(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);                                                   \
		G(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);                                                   \
	} while (0)

static void blake2b(u64 h[8], const u64 m[16])
{
	u64 v[16];

	memcpy(v, h, 64);
	for (int i = 0; i < 8; i++)
		v[8 + i] = 0x6a09e667f3bcc908ull * (i + 1);
	for (int r = 0; r < 12; r++)
		ROUND(G64, v, m, sigma[r % 10]);
	for (int i = 0; i < 8; i++)
		h[i] ^= v[i] ^ v[i + 8];
}

static void do_blake2b(u64 nonce)
{
	u64 h[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, m[16] = { nonce };

	blake2b(h, m);
	sink += h[0];
}

static void do_blake2s(u64 nonce)
{
	u32 v[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, m[16] = { nonce, nonce >> 32 };

	for (int r = 0; r < 10; r++)
		ROUND(G32, v, m, sigma[r]);
	sink += v[0] ^ v[8];
}

/* --- Equihash: BLAKE2b strings, then sorted by their first bits ------------------------------------------------------ */

static void do_equihash(u64 nonce)
{
	enum { N = 1 << 16 };
	static __thread u64 *rows, *other;
	static __thread u32 count[65537];

	if (!rows)
		rows = malloc(N * 8), other = malloc(N * 8);
	for (u64 i = 0; i < N; i += 4) {
		u64 h[8] = { nonce, 2, 3, 4, 5, 6, 7, 8 }, m[16] = { i };

		blake2b(h, m);
		memcpy(rows + i, h, 32);
	}
	for (int pass = 0; pass < 2; pass++) { /* radix sort, then xor of neighbours */
		memset(count, 0, sizeof(count));
		for (int i = 0; i < N; i++)
			count[(rows[i] >> (16 * pass) & 0xffff) + 1]++;
		for (int i = 0; i < 65536; i++)
			count[i + 1] += count[i];
		for (int i = 0; i < N; i++)
			other[count[rows[i] >> (16 * pass) & 0xffff]++] = rows[i];
		for (int i = 0; i + 1 < N; i++)
			rows[i] = other[i] ^ other[i + 1];
	}
	sink += rows[0];
}

/* --- Keccak-f[1600]: rolled with tables (as small implementations have it), and with rho and pi written out ---------- */

static const u64 keccak_rc[24] = {
	0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b, 0x0000000080000001,
	0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
	0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003, 0x8000000000008002, 0x8000000000000080,
	0x000000000000800a, 0x800000008000000a, 0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};
static const u8 keccak_rot[24] = { 1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44 };
static const u8 keccak_pi[24] = { 10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1 };

static void keccak(u64 s[25])
{
	for (int r = 0; r < 24; r++) {
		u64 c[5], t;

		for (int i = 0; i < 5; i++)
			c[i] = s[i] ^ s[i + 5] ^ s[i + 10] ^ s[i + 15] ^ s[i + 20];
		for (int i = 0; i < 5; i++) {
			t = c[(i + 4) % 5] ^ ROL64(c[(i + 1) % 5], 1);
			for (int j = 0; j < 25; j += 5)
				s[j + i] ^= t;
		}
		t = s[1];
		for (int i = 0; i < 24; i++) {
			u64 keep = s[keccak_pi[i]];

			s[keccak_pi[i]] = ROL64(t, keccak_rot[i]);
			t = keep;
		}
		for (int j = 0; j < 25; j += 5) {
			memcpy(c, s + j, 40);
			for (int i = 0; i < 5; i++)
				s[j + i] ^= ~c[(i + 1) % 5] & c[(i + 2) % 5];
		}
		s[0] ^= keccak_rc[r];
	}
}

static void do_keccak(u64 nonce)
{
	u64 s[25] = { nonce };

	keccak(s);
	sink += s[0];
}

/* --- Skein's Threefish-512 ---------------------------------------------------- */

#define MIX(a, b, n) (x[a] += x[b], x[b] = ROL64(x[b], n) ^ x[a])
#define MIX4(a, b, c, d, e, f, g, h, i, j, k, l) (MIX(a, b, i), MIX(c, d, j), MIX(e, f, k), MIX(g, h, l))

static void do_skein(u64 nonce)
{
	u64 x[8] = { nonce, 1, 2, 3, 4, 5, 6, 7 }, key[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 0x1bd11bdaa9fc1a22ull };

	for (int s = 0; s < 18; s += 2) {
		for (int i = 0; i < 8; i++)
			x[i] += key[(s + i) % 9];
		MIX4(0, 1, 2, 3, 4, 5, 6, 7, 46, 36, 19, 37), MIX4(2, 1, 4, 7, 6, 5, 0, 3, 33, 27, 14, 42);
		MIX4(4, 1, 6, 3, 0, 5, 2, 7, 17, 49, 36, 39), MIX4(6, 1, 0, 7, 2, 5, 4, 3, 44, 9, 54, 56);
		for (int i = 0; i < 8; i++)
			x[i] += key[(s + 1 + i) % 9];
		MIX4(0, 1, 2, 3, 4, 5, 6, 7, 39, 30, 34, 24), MIX4(2, 1, 4, 7, 6, 5, 0, 3, 13, 50, 10, 17);
		MIX4(4, 1, 6, 3, 0, 5, 2, 7, 25, 29, 39, 43), MIX4(6, 1, 0, 7, 2, 5, 4, 3, 8, 35, 56, 22);
	}
	sink += x[0];
}

/* --- SM3 -------------------------------------------------------------------------------------------------- */

static void do_sm3(u64 nonce)
{
	u32 w[68] = { nonce, nonce >> 32 }, v[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	for (int i = 16; i < 68; i++) {
		u32 x = w[i - 16] ^ w[i - 9] ^ ROL32(w[i - 3], 15);

		w[i] = x ^ ROL32(x, 15) ^ ROL32(x, 23) ^ ROL32(w[i - 13], 7) ^ w[i - 6];
	}
	for (int i = 0; i < 64; i++) {
		u32 k = i < 16 ? 0x79cc4519 : 0x7a879d8a, s1 = ROL32(v[0], 12) + v[4] + ((k << (i & 31)) | (k >> (31 - (i & 31)) >> 1));
		u32 a = ROL32(s1, 7), b = a ^ ROL32(v[0], 12);
		u32 t1 = (i < 16 ? v[0] ^ v[1] ^ v[2] : (v[0] & v[1]) | (v[0] & v[2]) | (v[1] & v[2])) + v[3] + b + (w[i] ^ w[i + 4]);
		u32 t2 = (i < 16 ? v[4] ^ v[5] ^ v[6] : (v[4] & v[5]) | (~v[4] & v[6])) + v[7] + a + w[i];

		v[3] = v[2], v[2] = ROL32(v[1], 9), v[1] = v[0], v[0] = t1;
		v[7] = v[6], v[6] = ROL32(v[5], 19), v[5] = v[4], v[4] = t2 ^ ROL32(t2, 9) ^ ROL32(t2, 17);
	}
	sink += v[0];
}

/* --- how they are run ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	void (*run)(u64);
} all[] = {
	{ "md5", do_md5 },         { "sha1", do_sha1 },       { "sha256d", do_sha256d }, { "ripemd", do_ripemd },
	{ "blake2b", do_blake2b }, { "blake2s", do_blake2s }, { "equihash", do_equihash }, { "keccak", do_keccak },
	{ "skein", do_skein },     { "sm3", do_sm3 },
};
static void (*chosen)(u64);
static double seconds, duty = 1;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *work(void *arg)
{
	double began = now(), at;
	u64 nonce = (u64)(uintptr_t)arg << 40;

	while ((at = now() - began) < seconds) {
		if (at - (long)at >= duty) {
			usleep((useconds_t)((1 - (at - (long)at)) * 1e6) + 1);
			continue;
		}
		for (int i = 0; i < (chosen == do_equihash ? 1 : 2000); i++)
			chosen(nonce++);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 3 ? atoi(argv[3]) : 1;
	pthread_t id[64];

	/* The constants, roughly as their standards have them; the exact tables are computed by whoever needs the hash. */
	for (int i = 0; i < 64; i++)
		md5_k[i] = 0xd76aa478u * (2 * i + 1), sha_k[i] = 0x428a2f98u * (2 * i + 1);
	for (unsigned i = 0; argc > 2 && i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(argv[1], all[i].name))
			chosen = all[i].run;
	if (!chosen || threads < 1 || threads > 64) {
		fprintf(stderr, "usage: hashes NAME SECONDS [THREADS [DUTY%%]], NAME one of");
		for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			fprintf(stderr, " %s", all[i].name);
		fprintf(stderr, "\n");
		return 2;
	}
	seconds = atof(argv[2]) < 600 ? atof(argv[2]) : 600;
	duty = argc > 4 ? atof(argv[4]) / 100 : 1;
	for (long i = 0; i < threads; i++)
		pthread_create(&id[i], NULL, work, (void *)i);
	for (int i = 0; i < threads; i++)
		pthread_join(id[i], NULL);
	return 0;
}

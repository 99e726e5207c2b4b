/*
 * Innocent work on bits: boards, codes, checksums, big numbers. None of it is a proof of work.
 *
 *   bitwork NAME SECONDS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "load.h"

static u64 state = 1;

static u64 splitmix(void)
{
	u64 z = state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull, z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void queens_count(u32 all, u32 columns, u32 left, u32 right)
{
	u32 free = all & ~(columns | left | right);

	if (columns == all)
		sink++;
	while (free) {
		u32 bit = free & -free;

		free ^= bit;
		queens_count(all, columns | bit, (left | bit) << 1, (right | bit) >> 1);
	}
}

static void queens(void)
{
	while (now() < until)
		queens_count(0x3ff, 0, 0, 0);
}

static u64 fill(u64 from, u64 empty, int by, u64 edge) /* Kogge-Stone */
{
	empty &= edge;
	from |= empty & (by > 0 ? from << by : from >> -by), empty &= by > 0 ? empty << by : empty >> -by;
	from |= empty & (by > 0 ? from << 2 * by : from >> -2 * by), empty &= by > 0 ? empty << 2 * by : empty >> -2 * by;
	return (by > 0 ? from << by : from >> -by) & edge;
}

static void chess(void)
{
	static const struct { int by; u64 edge; } way[8] = { { 8, ~0ull }, { -8, ~0ull }, { 1, 0xfefefefefefefefeull }, { -1, 0x7f7f7f7f7f7f7f7full },
		{ 9, 0xfefefefefefefefeull }, { 7, 0x7f7f7f7f7f7f7f7full }, { -7, 0xfefefefefefefefeull }, { -9, 0x7f7f7f7f7f7f7f7full } };
	static u64 zobrist[64][12], seen[1 << 16];
	u64 own = 0xffff, other = 0xffff000000000000ull, key = 1;

	for (int i = 0; i < 64 * 12; i++)
		zobrist[i / 12][i % 12] = splitmix();
	while (now() < until)
		for (int n = 0; n < 20000; n++) {
			u64 empty = ~(own | other), pieces = own & 0x81c3ff, moves = 0;
			int from, to, score = 0;

			for (int k = 0; k < 8; k++)
				moves |= fill(pieces, empty, way[k].by, way[k].edge) & ~own;
			if (!moves) {
				own = 0xffff, other = 0xffff000000000000ull;
				continue;
			}
			for (int skip = splitmix() % __builtin_popcountll(moves); skip; skip--)
				moves &= moves - 1;
			to = __builtin_ctzll(moves), from = __builtin_ctzll(own);
			key ^= zobrist[from][n % 12] ^ zobrist[to][n % 12];
			if (seen[key & 0xffff] == key)
				score = 7;
			seen[key & 0xffff] = key;
			own = (own & ~(1ull << from)) | 1ull << to, other &= ~(1ull << to);
			for (u64 rest = own; rest; rest &= rest - 1)
				score += __builtin_popcountll(fill(rest & -rest, empty, 9, 0xfefefefefefefefeull));
			sink += score;
			u64 swap = own;
			own = __builtin_bswap64(other), other = __builtin_bswap64(swap);
		}
}

static void life(void) /* the Game of Life, 64 cells at a time */
{
	static u64 g[1024], next[1024];

	for (int i = 0; i < 1024; i++)
		g[i] = splitmix();
	while (now() < until)
		for (int t = 0; t < 100; t++) {
			for (int i = 1; i < 1023; i++) {
				u64 n[8], one = 0, two = 0, four = 0;

				for (int k = -1, j = 0; k <= 1; k++) {
					n[j++] = g[i + k] << 1, n[j++] = g[i + k] >> 1;
					if (k)
						n[j++] = g[i + k];
				}
				for (int j = 0; j < 8; j++) {
					u64 c = one & n[j], d = two & c;

					one ^= n[j], two ^= c, four |= d;
				}
				next[i] = two & ~four & (one | g[i]);
			}
			memcpy(g, next, sizeof(g));
		}
	sink += g[5];
}

static void crc32_table(void)
{
	static u32 t[8][256];
	static u8 data[65536];

	for (u32 i = 0; i < 256; i++) {
		u32 c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
		t[0][i] = c;
	}
	for (int k = 1; k < 8; k++)
		for (int i = 0; i < 256; i++)
			t[k][i] = t[k - 1][i] >> 8 ^ t[0][t[k - 1][i] & 255];
	while (now() < until) {
		u32 c = ~0u;

		for (int turn = 0; turn < 20; turn++)
			for (int i = 0; i < 65536; i += 8) {
				u32 a, b;

				memcpy(&a, data + i, 4), memcpy(&b, data + i + 4, 4), a ^= c;
				c = t[7][a & 255] ^ t[6][a >> 8 & 255] ^ t[5][a >> 16 & 255] ^ t[4][a >> 24] ^ t[3][b & 255] ^
				    t[2][b >> 8 & 255] ^ t[1][b >> 16 & 255] ^ t[0][b >> 24];
			}
		sink += c;
	}
}

static void reed_solomon(void) /* erasure coding by log tables */
{
	static u8 logs[256], antilogs[512], data[10][4096], parity[4][4096];
	int x = 1;

	for (int i = 0; i < 255; i++)
		antilogs[i] = antilogs[i + 255] = x, logs[x] = i, x = x << 1 ^ (x & 128 ? 0x11d : 0);
	for (int i = 0; i < 10; i++)
		for (int k = 0; k < 4096; k++)
			data[i][k] = i * k + 1;
	while (now() < until)
		for (int p = 0; p < 4; p++)
			for (int i = 0; i < 10; i++)
				for (int k = 0; k < 4096; k++)
					if (data[i][k])
						parity[p][k] ^= antilogs[logs[data[i][k]] + (p * i) % 255];
	sink += parity[0][7];
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static void reed_solomon_avx2(void) /* the same, by shuffles */
{
	static u8 data[10][32768], parity[4][32768];
	__m256i low = _mm256_set1_epi32(0x1d0b0305), high = _mm256_set1_epi32(0x7b3f2217), mask = _mm256_set1_epi8(15);

	while (now() < until)
		for (int p = 0; p < 4; p++)
			for (int i = 0; i < 10; i++)
				for (int k = 0; k < 32768; k += 32) {
					__m256i d = _mm256_loadu_si256((void *)(data[i] + k)), q = _mm256_loadu_si256((void *)(parity[p] + k));
					__m256i l = _mm256_shuffle_epi8(low, _mm256_and_si256(d, mask));
					__m256i h = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64(d, 4), mask));

					_mm256_storeu_si256((void *)(parity[p] + k), _mm256_xor_si256(q, _mm256_xor_si256(l, h)));
				}
	sink += parity[0][7];
}
#endif

static void raid6(void) /* xor and doubling of 64-bit words */
{
	static u64 d[8][4096], p[4096], q[4096];

	while (now() < until)
		for (int turn = 0; turn < 20; turn++)
			for (int i = 0; i < 4096; i++) {
				u64 wp = 0, wq = 0;

				for (int k = 0; k < 8; k++) {
					u64 m = wq & 0x8080808080808080ull;

					m = (m << 1) - (m >> 7);
					wq = (wq << 1 & 0xfefefefefefefefeull) ^ (m & 0x1d1d1d1d1d1d1d1dull) ^ d[k][i];
					wp ^= d[k][i];
				}
				p[i] = wp, q[i] = wq;
			}
	sink += p[1] + q[2];
}

static void modpow(void) /* RSA's kind: Montgomery multiplication, 32 limbs */
{
	enum { L = 32 };
	u64 a[L], b[L], t[L + 2];

	for (int i = 0; i < L; i++)
		a[i] = splitmix(), b[i] = splitmix() | 1;
	while (now() < until)
		for (int turn = 0; turn < 2000; turn++) {
			memset(t, 0, sizeof(t));
			for (int i = 0; i < L; i++) {
				unsigned __int128 c = 0;
				u64 m = t[0] * 0x9e3779b97f4a7c15ull;

				for (int j = 0; j < L; j++) {
					c += (unsigned __int128)a[i] * b[j] + t[j];
					c += (u64)(m * (j + 1));
					t[j] = (u64)c, c >>= 64;
				}
				t[L] += (u64)c;
				memmove(t, t + 1, L * 8);
			}
			memcpy(a, t, sizeof(a));
		}
	sink += a[0];
}

static void base64(void)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	static u8 in[49152];
	static char out[65536];

	while (now() < until)
		for (int i = 0, o = 0; i < 49152; i += 3, o += 4) {
			u32 v = in[i] << 16 | in[i + 1] << 8 | in[i + 2];

			out[o] = digits[v >> 18], out[o + 1] = digits[v >> 12 & 63], out[o + 2] = digits[v >> 6 & 63], out[o + 3] = digits[v & 63];
			in[i] += out[o];
		}
	sink += out[3];
}

static void radix(void)
{
	enum { N = 1 << 18 };
	static u32 a[N], b[N], count[256];

	while (now() < until) {
		for (int i = 0; i < N; i++)
			a[i] = splitmix();
		for (int shift = 0; shift < 32; shift += 8) {
			u32 sum = 0;

			memset(count, 0, sizeof(count));
			for (int i = 0; i < N; i++)
				count[a[i] >> shift & 255]++;
			for (int i = 0; i < 256; i++)
				sum += count[i], count[i] = sum - count[i];
			for (int i = 0; i < N; i++)
				b[count[a[i] >> shift & 255]++] = a[i];
			memcpy(a, b, sizeof(a));
		}
	}
	sink += a[4];
}

static const struct {
	const char *name;
	void (*run)(void);
} all[] = {
	{ "queens", queens },
	{ "chess", chess },
	{ "life", life },
	{ "crc32-table", crc32_table },
	{ "reed-solomon", reed_solomon },
#ifdef __x86_64__
	{ "reed-solomon-avx2", reed_solomon_avx2 },
#endif
	{ "raid6", raid6 },
	{ "modpow", modpow },
	{ "base64", base64 },
	{ "radix", radix },
};

int main(int argc, char **argv)
{
	for (unsigned i = 0; argc > 2 && i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(argv[1], all[i].name)) {
			until = now() + (atof(argv[2]) < 600 ? atof(argv[2]) : 600);
			all[i].run();
			return 0;
		}
	fprintf(stderr, "usage: bitwork NAME SECONDS, NAME one of");
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		fprintf(stderr, " %s", all[i].name);
	fprintf(stderr, "\n");
	return 2;
}

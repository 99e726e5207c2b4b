/*
 * Innocent work that looks like hashing: hash tables and random numbers. None of it is a proof of work.
 *
 *   lookalikes NAME SECONDS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

static volatile double fsink;

/* --- hash functions of tables: keys of 8 to 24 bytes, open addressing, a third of the look-ups miss ------------------- */

static u64 siphash13(const u8 *p, size_t n)
{
	u64 v0 = 0x736f6d6570736575ull, v1 = 0x646f72616e646f6dull, v2 = 0x6c7967656e657261ull, v3 = 0x7465646279746573ull, m;
	size_t left = n;

#define SIP (v0 += v1, v2 += v3, v1 = ROL64(v1, 13), v3 = ROL64(v3, 16), v1 ^= v0, v3 ^= v2, v0 = ROL64(v0, 32),      \
	     v2 += v1, v0 += v3, v1 = ROL64(v1, 17), v3 = ROL64(v3, 21), v1 ^= v2, v3 ^= v0, v2 = ROL64(v2, 32))
	for (; left >= 8; left -= 8, p += 8) {
		memcpy(&m, p, 8);
		v3 ^= m, SIP, v0 ^= m;
	}
	m = (u64)n << 56;
	for (size_t i = 0; i < left; i++)
		m |= (u64)p[i] << 8 * i;
	v3 ^= m, SIP, v0 ^= m, v2 ^= 0xff;
	SIP, SIP, SIP;
	return v0 ^ v1 ^ v2 ^ v3;
}

static u64 wyhash(const u8 *p, size_t n)
{
	u64 seed = 0xa0761d6478bd642full, a = 0, b = 0;
	unsigned __int128 r;

	for (; n >= 16; n -= 16, p += 16) {
		memcpy(&a, p, 8), memcpy(&b, p + 8, 8);
		r = (unsigned __int128)(a ^ 0xe7037ed1a0b428dbull) * (b ^ seed);
		seed = (u64)r ^ (u64)(r >> 64);
	}
	if (n >= 8)
		memcpy(&a, p, 8);
	r = (unsigned __int128)(a ^ seed) * (0xe7037ed1a0b428dbull ^ n);
	return (u64)r ^ (u64)(r >> 64);
}

static u64 xxh64(const u8 *p, size_t n)
{
	const u64 P1 = 0x9e3779b185ebca87ull, P2 = 0xc2b2ae3d27d4eb4full, P3 = 0x165667b19e3779f9ull, P4 = 0x85ebca77c2b2ae63ull;
	u64 v[4] = { P1 + P2, P2, 0, -P1 }, h = P3 + n, k;

	if (n >= 32) {
		for (; n >= 32; n -= 32)
			for (int i = 0; i < 4; i++, p += 8)
				memcpy(&k, p, 8), v[i] = ROL64(v[i] + k * P2, 31) * P1;
		h = ROL64(v[0], 1) + ROL64(v[1], 7) + ROL64(v[2], 12) + ROL64(v[3], 18);
	}
	for (; n >= 8; n -= 8, p += 8)
		memcpy(&k, p, 8), h = ROL64(h ^ ROL64(k * P2, 31) * P1, 27) * P1 + P4;
	h ^= h >> 33, h *= P2, h ^= h >> 29, h *= P3;
	return h ^ h >> 32;
}

static u64 murmur3(const u8 *p, size_t n)
{
	u32 h = 42, k;

	for (; n >= 4; n -= 4, p += 4) {
		memcpy(&k, p, 4);
		k *= 0xcc9e2d51, k = ROL32(k, 15), k *= 0x1b873593;
		h ^= k, h = ROL32(h, 13), h = h * 5 + 0xe6546b64;
	}
	h ^= h >> 16, h *= 0x85ebca6b, h ^= h >> 13, h *= 0xc2b2ae35;
	return (u64)h * 0x9e3779b97f4a7c15ull;
}

static u64 fnv(const u8 *p, size_t n)
{
	u64 h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h ^ h >> 29;
}

static u64 jenkins(const u8 *p, size_t n) /* lookup3's kind */
{
	u32 a = 0xdeadbeef + n, b = a, c = a, k[3];

	for (; n >= 12; n -= 12, p += 12) {
		memcpy(k, p, 12), a += k[0], b += k[1], c += k[2];
		a -= c, a ^= ROL32(c, 4), c += b, b -= a, b ^= ROL32(a, 6), a += c, c -= b, c ^= ROL32(b, 8), b += a;
		a -= c, a ^= ROL32(c, 16), c += b, b -= a, b ^= ROL32(a, 19), a += c, c -= b, c ^= ROL32(b, 4), b += a;
	}
	for (size_t i = 0; i < n; i++)
		a += (u32)p[i] << 8 * (i & 3);
	c ^= b, c -= ROL32(b, 14), a ^= c, a -= ROL32(c, 11), b ^= a, b -= ROL32(a, 25), c ^= b, c -= ROL32(b, 16);
	return (u64)c * 0x9e3779b97f4a7c15ull;
}

static void table(u64 (*hash)(const u8 *, size_t))
{
	enum { SLOTS = 1 << 16, KEYS = 40000 };
	static u8 keys[KEYS][24];
	static struct { u64 hash; u8 *key; u32 length, value; } slots[SLOTS];

	for (int i = 0; i < KEYS; i++)
		snprintf((char *)keys[i], 24, "key-%d-%x", i, i * 2654435761u);
	while (now() < until) {
		memset(slots, 0, sizeof(slots));
		for (int turn = 0; turn < 4; turn++)
			for (int i = turn ? 0 : KEYS / 3; i < KEYS; i++) {
				size_t n = 8 + i % 16;
				u64 h = hash(keys[i], n), at = h & (SLOTS - 1);

				while (slots[at].key &&
				       (slots[at].hash != h || slots[at].length != n || memcmp(slots[at].key, keys[i], n)))
					at = (at + 1) & (SLOTS - 1);
				if (slots[at].key)
					slots[at].value++;
				else if (!turn)
					slots[at].hash = h, slots[at].key = keys[i], slots[at].length = n;
				else
					sink++;
			}
	}
}

static void t_siphash(void) { table(siphash13); }
static void t_wyhash(void) { table(wyhash); }
static void t_xxhash(void) { table(xxh64); }
static void t_murmur(void) { table(murmur3); }
static void t_fnv(void) { table(fnv); }
static void t_jenkins(void) { table(jenkins); }

static void siphash_long(void)
{
	static u8 text[512];

	while (now() < until)
		for (int i = 0; i < 10000; i++)
			text[i & 511]++, sink += siphash13(text, 512);
}

static void bloom(void)
{
	static u64 bits[1 << 18];

	while (now() < until)
		for (u64 i = 0; i < 100000; i++) {
			u64 h1 = murmur3((u8 *)&i, 8), h2 = fnv((u8 *)&i, 8);

			for (int k = 0; k < 7; k++) {
				u64 b = (h1 + k * h2) & ((1 << 24) - 1);

				if (i & 1)
					bits[b >> 6] |= 1ull << (b & 63);
				else
					sink += bits[b >> 6] >> (b & 63) & 1;
			}
		}
}

/* --- random numbers in simulations --------------------------------------------------------------------------------- */

static u64 s[4] = { 1, 2, 3, 4 };

static u64 xorshift128p(void)
{
	u64 a = s[0], b = s[1];

	s[0] = b, a ^= a << 23, s[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
	return s[1] + b;
}

static u64 xoshiro(void)
{
	u64 r = ROL64(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0], s[3] ^= s[1], s[1] ^= s[2], s[0] ^= s[3], s[2] ^= t, s[3] = ROL64(s[3], 45);
	return r;
}

static u64 xoroshiro(void)
{
	u64 a = s[0], b = s[1], r = a + b;

	b ^= a, s[0] = ROL64(a, 24) ^ b ^ (b << 16), s[1] = ROL64(b, 37);
	return r;
}

static u32 pcg32(void)
{
	u64 old = s[0];
	u32 x = ((old >> 18) ^ old) >> 27, r = old >> 59;

	s[0] = old * 6364136223846793005ull + 1442695040888963407ull;
	return (x >> r) | (x << (-r & 31));
}

static u64 splitmix(void)
{
	u64 z = s[0] += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull, z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static u64 sfc64(void)
{
	u64 r = s[0] + s[1] + s[3]++;

	s[0] = s[1] ^ s[1] >> 11, s[1] = s[2] + (s[2] << 3), s[2] = ROL64(s[2], 24) + r;
	return r;
}

static u32 jsf32(void) /* "small fast", held out */
{
	static u32 a = 0xf1ea5eed, b = 1, c = 2, d = 3;
	u32 e = a - ROL32(b, 27);

	a = b ^ ROL32(c, 17), b = c + d, c = d + e, d = e + a;
	return d;
}

static u32 mt[624];
static int mti = 624;

static u32 twister(void)
{
	u32 y;

	if (mti >= 624) {
		for (int i = 0; i < 624; i++) {
			y = (mt[i] & 0x80000000) | (mt[(i + 1) % 624] & 0x7fffffff);
			mt[i] = mt[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0df : 0);
		}
		mti = 0;
	}
	y = mt[mti++], y ^= y >> 11, y ^= y << 7 & 0x9d2c5680, y ^= y << 15 & 0xefc60000;
	return y ^ y >> 18;
}

/* Integer simulations: a random walk on a ring with a histogram; each generator is inlined into its own. */
#define WALK(name, draw)                                                                                                \
	static void name(void)                                                                                          \
	{                                                                                                               \
		static u32 seen[4096];                                                                                  \
		u32 at = 0;                                                                                             \
		while (now() < until)                                                                                   \
			for (int i = 0; i < 1000000; i++) {                                                             \
				u64 r = draw;                                                                           \
				at = (at + (r >> 7 & 15) - 7) & 4095;                                                   \
				seen[at]++;                                                                             \
			}                                                                                               \
		sink += seen[7];                                                                                        \
	}
WALK(w_xorshift, xorshift128p())
WALK(w_xoshiro, xoshiro())
WALK(w_xoroshiro, xoroshiro())
WALK(w_pcg, pcg32())
WALK(w_splitmix, splitmix())
WALK(w_sfc, sfc64())
WALK(w_jsf, jsf32())
WALK(w_twister, twister())

/* Nothing but the generator: what a program that fills arrays with random numbers does. */
#define FILL(name, draw)                                                                                                \
	static void name(void)                                                                                          \
	{                                                                                                               \
		static u64 out[4096];                                                                                   \
		while (now() < until)                                                                                   \
			for (int k = 0; k < 300; k++)                                                                   \
				for (int i = 0; i < 4096; i++)                                                          \
					out[i] = draw;                                                                  \
		sink += out[9];                                                                                         \
	}
FILL(f_xorshift, xorshift128p())
FILL(f_xoshiro, xoshiro())
FILL(f_xoroshiro, xoroshiro())
FILL(f_pcg, pcg32())
FILL(f_sfc, sfc64())
FILL(f_jsf, jsf32())
FILL(f_twister, twister())

static void monte_carlo(void) /* pi, in doubles */
{
	u64 in = 0;

	while (now() < until)
		for (int i = 0; i < 1000000; i++) {
			double x = (xorshift128p() >> 11) * 0x1p-53, y = (xorshift128p() >> 11) * 0x1p-53;

			in += x * x + y * y < 1;
		}
	sink += in;
}

static void noise(void) /* Perlin's kind: integer hashing of lattice points for textures */
{
	double sum = 0;

	while (now() < until)
		for (int i = 0; i < 300000; i++) {
			double x = i * 0.037, y = i * 0.011, fx = x - (int)x, fy = y - (int)y, v[4];

			for (int k = 0; k < 4; k++) {
				u32 h = ((int)x + (k & 1)) * 374761393u + ((int)y + (k >> 1)) * 668265263u;

				h = (h ^ h >> 13) * 1274126177u;
				v[k] = (h ^ h >> 16) * 0x1p-32;
			}
			sum += (v[0] * (1 - fx) + v[1] * fx) * (1 - fy) + (v[2] * (1 - fx) + v[3] * fx) * fy;
		}
	fsink = sum;
}

static const struct {
	const char *name;
	void (*run)(void);
} all[] = {
	{ "siphash-table", t_siphash },
	{ "wyhash-table", t_wyhash },
	{ "xxhash-table", t_xxhash },
	{ "murmur-table", t_murmur },
	{ "fnv-table", t_fnv },
	{ "jenkins-table", t_jenkins },
	{ "siphash-long", siphash_long },
	{ "bloom", bloom },
	{ "xorshift-walk", w_xorshift },
	{ "xoshiro-walk", w_xoshiro },
	{ "xoroshiro-walk", w_xoroshiro },
	{ "pcg-walk", w_pcg },
	{ "splitmix-walk", w_splitmix },
	{ "sfc-walk", w_sfc },
	{ "jsf-walk", w_jsf },
	{ "twister-walk", w_twister },
	{ "xorshift-fill", f_xorshift },
	{ "xoshiro-fill", f_xoshiro },
	{ "xoroshiro-fill", f_xoroshiro },
	{ "pcg-fill", f_pcg },
	{ "sfc-fill", f_sfc },
	{ "jsf-fill", f_jsf },
	{ "twister-fill", f_twister },
	{ "monte-carlo", monte_carlo },
	{ "noise", noise },
};

int main(int argc, char **argv)
{
	for (int i = 0; i < 624; i++)
		mt[i] = i * 69069u + 1;
	for (unsigned i = 0; argc > 2 && i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(argv[1], all[i].name)) {
			until = now() + (atof(argv[2]) < 600 ? atof(argv[2]) : 600);
			all[i].run();
			return 0;
		}
	fprintf(stderr, "usage: lookalikes NAME SECONDS, NAME one of");
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		fprintf(stderr, " %s", all[i].name);
	fprintf(stderr, "\n");
	return 2;
}

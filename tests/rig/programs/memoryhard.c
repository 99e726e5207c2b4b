/*
 * Proof-of-work stand-ins that are bound by memory or by AES. They mine nothing: made-up input, no target, no
 * network. What they have is the mix of instructions and the memory of the real thing.
 *
 *   memoryhard NAME SECONDS [THREADS]
 */
#include <immintrin.h>

#include "load.h"

/* scrypt's ROMix with Salsa20/8, N = 1024, r = 1 */
static void salsa8(u32 b[16])
{
	u32 x[16];

	memcpy(x, b, 64);
	for (int i = 0; i < 4; i++) {
#define Q(a, b_, c, d) (x[b_] ^= ROL32(x[a] + x[d], 7), x[c] ^= ROL32(x[b_] + x[a], 9), x[d] ^= ROL32(x[c] + x[b_], 13), \
			x[a] ^= ROL32(x[d] + x[c], 18))
		Q(0, 4, 8, 12), Q(5, 9, 13, 1), Q(10, 14, 2, 6), Q(15, 3, 7, 11);
		Q(0, 1, 2, 3), Q(5, 6, 7, 4), Q(10, 11, 8, 9), Q(15, 12, 13, 14);
	}
	for (int i = 0; i < 16; i++)
		b[i] += x[i];
}

static void scrypt(u64 nonce)
{
	u32(*v)[32] = (void *)area(1024 * 128), x[32] = { nonce };

	while (now() < until) {
		for (int pass = 0; pass < 2; pass++)
			for (int i = 0; i < 1024; i++) {
				u32 *from = v[pass ? x[16] & 1023 : i];

				for (int k = 0; k < 32; k++)
					pass ? (x[k] ^= from[k]) : (from[k] = x[k]);
				for (int k = 0; k < 16; k++)
					x[k] ^= x[k + 16];
				salsa8(x);
				for (int k = 0; k < 16; k++)
					x[k + 16] ^= x[k];
				salsa8(x + 16);
			}
	}
	sink += x[0];
}

/* Argon2d: BlaMka rounds over 16 MiB, in plain C */
static void blamka(u64 *v, const u8 i[16])
{
#define F(a, b) ((a) + (b) + 2 * (u64)(u32)(a) * (u32)(b))
#define B(a, b, c, d)                                                                                                  \
	do {                                                                                                           \
		u64 *A = v + i[a], *P = v + i[b], *C = v + i[c], *D = v + i[d];                                        \
		*A = F(*A, *P), *D = ROL64(*D ^ *A, 32), *C = F(*C, *D), *P = ROL64(*P ^ *C, 40);                      \
		*A = F(*A, *P), *D = ROL64(*D ^ *A, 48), *C = F(*C, *D), *P = ROL64(*P ^ *C, 1);                       \
	} while (0)
	B(0, 4, 8, 12); B(1, 5, 9, 13); B(2, 6, 10, 14); B(3, 7, 11, 15);
	B(0, 5, 10, 15); B(1, 6, 11, 12); B(2, 7, 8, 13); B(3, 4, 9, 14);
}

static void argon2d(u64 nonce)
{
	enum { BLOCKS = 16384 };
	u64(*m)[128] = (void *)area(BLOCKS * 1024ul), r[128], at = nonce;

	while (now() < until)
		for (int n = 1; n < BLOCKS; n++) {
			u64 *other = m[m[n - 1][0] % BLOCKS];
			u8 index[16];

			for (int k = 0; k < 128; k++)
				r[k] = m[n - 1][k] ^ other[k];
			for (int row = 0; row < 8; row++) {
				for (int k = 0; k < 16; k++)
					index[k] = 16 * row + k;
				blamka(r, index);
			}
			for (int column = 0; column < 8; column++) {
				for (int k = 0; k < 16; k++)
					index[k] = 16 * (k / 2) + 2 * column + k % 2;
				blamka(r, index);
			}
			for (int k = 0; k < 128; k++)
				m[n][k] = r[k] ^ m[n - 1][k] ^ other[k];
		}
	sink += at;
}

/* yescrypt's pwxform: wide multiplications with look-ups in a 64 KiB box, among Salsa20/2 */
static void yescrypt(u64 nonce)
{
	u64 *box = (void *)area(1 << 16), *v = (void *)area(8 << 20), x[8] = { nonce, 2, 3, 4, 5, 6, 7, 8 };

	while (now() < until)
		for (int n = 0; n < 100000; n++) {
			u64 *from = v + (x[0] & 0xfffff & ~7ull);

			for (int k = 0; k < 8; k++)
				x[k] ^= from[k], from[k] = x[k];
			for (int round = 0; round < 6; round++)
				for (int lane = 0; lane < 8; lane += 2) {
					u64 *p = box + (x[lane] >> 4 & 0xffe), *q = box + (x[lane] >> 36 & 0xffe);

					for (int k = 0; k < 2; k++)
						x[lane + k] = ((x[lane + k] >> 32) * (u32)x[lane + k] + p[k]) ^ q[k];
				}
			if (n % 16 == 0)
				salsa8((u32 *)x - 0);
		}
	sink += x[0];
}

/* CryptoNight: one AES round, one 64 by 64 bit multiplication, a 2 MiB scratchpad */
__attribute__((target("aes,sse4.1"))) static void cryptonight(u64 nonce)
{
	u8 *pad = area(2 << 20);
	u64 a = nonce * 0x9e3779b97f4a7c15ull, h = ~a;
	__m128i b = _mm_set_epi64x(a, h);

	while (now() < until)
		for (int n = 0; n < 0x80000; n++) {
			__m128i *p = (void *)(pad + (a & 0x1ffff0));
			__m128i c = _mm_aesenc_si128(_mm_load_si128(p), _mm_set_epi64x(h, a));
			u64 *q, at = _mm_cvtsi128_si64(c);
			unsigned __int128 product;

			_mm_store_si128(p, _mm_xor_si128(b, c));
			q = (u64 *)(pad + (at & 0x1ffff0));
			product = (unsigned __int128)at * q[0];
			a += (u64)(product >> 64), h += (u64)product;
			u64 x = q[0], y = q[1];
			q[0] = a, q[1] = h;
			a ^= x, h ^= y;
			b = c;
		}
	sink += a;
}

/* VerusHash's kind: Haraka (AES rounds with a mix of words), then carry-less multiplications on a small key */
__attribute__((target("aes,pclmul,sse4.1"))) static void verus(u64 nonce)
{
	__m128i *key = (void *)area(8192), s[4] = { _mm_set1_epi64x(nonce) }, acc = s[0];

	while (now() < until)
		for (int n = 0; n < 100000; n++) {
			for (int round = 0; round < 5; round++) {
				for (int k = 0; k < 8; k++)
					s[k & 3] = _mm_aesenc_si128(s[k & 3], key[round * 8 + k]);
				__m128i t = _mm_unpacklo_epi32(s[0], s[1]);

				s[0] = _mm_unpackhi_epi32(s[0], s[1]);
				s[1] = _mm_unpacklo_epi32(s[2], s[3]);
				s[2] = _mm_unpackhi_epi32(s[2], s[3]);
				s[3] = _mm_unpackhi_epi32(s[0], s[2]);
				s[0] = t;
			}
			for (int k = 0; k < 32; k++) {
				u64 at = _mm_cvtsi128_si64(acc);
				__m128i *p = key + (at & 511);
				__m128i m = _mm_clmulepi64_si128(_mm_xor_si128(*p, acc), s[k & 3], 0x10);

				acc = _mm_xor_si128(acc, m);
				*p = _mm_xor_si128(acc, s[k & 3]);
			}
			s[0] = _mm_xor_si128(s[0], acc);
		}
	sink += _mm_cvtsi128_si64(acc);
}

/* Groestl by tables: as miners without AES instructions have it */
static u64 groestl_table[8][256];

static void groestl(u64 nonce)
{
	u64 s[8] = { nonce, 1, 2, 3, 4, 5, 6, 7 };

	while (now() < until)
		for (int n = 0; n < 20000; n++) {
			for (int round = 0; round < 10; round++) {
				u64 t[8];

				for (int k = 0; k < 8; k++)
					s[k] ^= (u64)(k << 4 ^ round) << 56;
				for (int k = 0; k < 8; k++) {
					t[k] = 0;
					for (int j = 0; j < 8; j++)
						t[k] ^= groestl_table[j][s[(k + j) & 7] >> (8 * j) & 255];
				}
				memcpy(s, t, 64);
			}
			s[0] ^= n;
		}
	sink += s[0];
}

/* Kawpow's kind: Keccak-f[800] around random maths and FNV merges over a cache and a dataset */
static void kawpow(u64 nonce)
{
	u32 *data = (void *)area(64 << 20), mix[32], *cache = (void *)area(16384);

	while (now() < until)
		for (int n = 0; n < 2000; n++) {
			for (int k = 0; k < 32; k++)
				mix[k] = (u32)nonce * 0x01000193u ^ k;
			nonce++;
			for (int loop = 0; loop < 64; loop++) {
				u32 *from = data + (mix[loop & 31] & 0xfffff0);

				for (int k = 0; k < 12; k++) {
					u32 a = mix[(k * 7 + loop) & 31], b = mix[(k * 11 + 3) & 31], r;

					mix[k] = (mix[k] * 33) + cache[mix[(k + 5) & 31] & 4095];
					switch (k % 6) {
					case 0: r = a + b; break;
					case 1: r = a * b; break;
					case 2: r = ((u64)a * b) >> 32; break;
					case 3: r = ROL32(a, b & 31); break;
					case 4: r = a ^ b; break;
					default: r = __builtin_popcount(a) + __builtin_clz(b | 1); break;
					}
					mix[k + 16] = ROL32(mix[k + 16], 5) ^ r;
				}
				for (int k = 0; k < 16; k++)
					mix[k] = (mix[k] * 0x01000193u) ^ from[k];
			}
		}
	sink += mix[0];
}

/* Lyra2's kind: a BLAKE2b sponge over a 4 MiB matrix */
static void lyra2(u64 nonce)
{
	u64(*m)[16] = (void *)area(4 << 20), v[16] = { nonce };

	while (now() < until)
		for (int n = 0; n < 32768; n++) {
			u64 *a = m[n], *b = m[v[0] & 32767];

			for (int k = 0; k < 12; k++)
				v[k] ^= a[k] + b[k];
#define G(a, b, c, d) (v[a] += v[b], v[d] = ROL64(v[d] ^ v[a], 32), v[c] += v[d], v[b] = ROL64(v[b] ^ v[c], 40), \
		       v[a] += v[b], v[d] = ROL64(v[d] ^ v[a], 48), v[c] += v[d], v[b] = ROL64(v[b] ^ v[c], 1))
			G(0, 4, 8, 12); G(1, 5, 9, 13); G(2, 6, 10, 14); G(3, 7, 11, 15);
			G(0, 5, 10, 15); G(1, 6, 11, 12); G(2, 7, 8, 13); G(3, 4, 9, 14);
			for (int k = 0; k < 12; k++)
				b[k] ^= v[k];
		}
	sink += v[0];
}

/* Cuckoo Cycle: SipHash-2-4 of every edge, counted in a table of bits */
static void cuckoo(u64 nonce)
{
	u64 *bits = (void *)area(16 << 20), edge = 0;

	while (now() < until)
		for (int n = 0; n < 100000; n++, edge++) {
			u64 v0 = nonce, v1 = 0x646f72616e646f6dull, v2 = 0x6c7967656e657261ull, v3 = 0x7465646279746573ull ^ edge;
#define SIP (v0 += v1, v2 += v3, v1 = ROL64(v1, 13), v3 = ROL64(v3, 16), v1 ^= v0, v3 ^= v2, v0 = ROL64(v0, 32),      \
	     v2 += v1, v0 += v3, v1 = ROL64(v1, 17), v3 = ROL64(v3, 21), v1 ^= v2, v3 ^= v0, v2 = ROL64(v2, 32))
			SIP; SIP;
			v0 ^= edge, v2 ^= 0xff;
			SIP; SIP; SIP; SIP;
			edge += 0;
			u64 node = (v0 ^ v1 ^ v2 ^ v3) & ((1 << 27) - 1);
			bits[node / 64 % (2 << 20)] ^= 1ull << (node & 63);
		}
	sink += bits[0];
}

static const struct load all[] = {
	{ "scrypt", scrypt },   { "argon2d", argon2d }, { "yescrypt", yescrypt }, { "cryptonight", cryptonight },
	{ "verus", verus },     { "groestl", groestl }, { "kawpow", kawpow },     { "lyra2", lyra2 },
	{ "cuckoo", cuckoo },
};

int main(int argc, char **argv)
{
	for (int j = 0; j < 8; j++)
		for (u64 i = 0; i < 256; i++)
			groestl_table[j][i] = ROL64(i * 0x9e3779b97f4a7c15ull ^ i << 7, 8 * j);
	return run_loads(all, sizeof(all) / sizeof(all[0]), argc, argv);
}

/*
 * Proof-of-work's usual loops, small and plain: each takes a nonce and gives 32 bits of a digest. What they compute is
 * of no use to anybody; what counts is the machine code, which is what a miner of that family spends its time in.
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t K256[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
	0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
	0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
	0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const uint32_t START256[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
				      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

#define ROR32(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define ROL32(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define ROL64(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

/* The rounds rolled, as small miners have it. */
static void sha256_block(uint32_t state[8], const uint32_t block[16])
{
	uint32_t w[64], s[8];

	memcpy(w, block, 64);
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		w[i] = w[i - 16] + w[i - 7] + (ROR32(a, 7) ^ ROR32(a, 18) ^ (a >> 3)) + (ROR32(b, 17) ^ ROR32(b, 19) ^ (b >> 10));
	}
	memcpy(s, state, 32);
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = s[7] + (ROR32(s[4], 6) ^ ROR32(s[4], 11) ^ ROR32(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K256[i] + w[i];
		uint32_t t2 = (ROR32(s[0], 2) ^ ROR32(s[0], 13) ^ ROR32(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
		s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t1, s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

__attribute__((target("sha,sse4.1"))) static void sha256_block_ni(uint32_t state[8], const uint32_t block[16])
{
	__m128i abef, cdgh, s0, s1, m[4], tmp = _mm_loadu_si128((const __m128i *)&state[0]);

	cdgh = _mm_loadu_si128((const __m128i *)&state[4]);
	tmp = _mm_shuffle_epi32(tmp, 0xB1), cdgh = _mm_shuffle_epi32(cdgh, 0x1B);
	abef = _mm_alignr_epi8(tmp, cdgh, 8), cdgh = _mm_blend_epi16(cdgh, tmp, 0xF0);
	s0 = abef, s1 = cdgh;
	for (int i = 0; i < 4; i++)
		m[i] = _mm_loadu_si128((const __m128i *)&block[4 * i]);
	for (int i = 0; i < 16; i++) {
		__m128i k = _mm_add_epi32(m[i & 3], _mm_loadu_si128((const __m128i *)&K256[4 * i]));
		s1 = _mm_sha256rnds2_epu32(s1, s0, k);
		s0 = _mm_sha256rnds2_epu32(s0, s1, _mm_shuffle_epi32(k, 0x0E));
		tmp = _mm_add_epi32(_mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]), _mm_alignr_epi8(m[(i + 3) & 3], m[(i + 2) & 3], 4));
		m[i & 3] = _mm_sha256msg2_epu32(tmp, m[(i + 3) & 3]);
	}
	_mm_storeu_si128((__m128i *)&state[0], _mm_add_epi32(s0, abef));
	_mm_storeu_si128((__m128i *)&state[4], _mm_add_epi32(s1, cdgh));
}

static uint32_t sha256d_by(void (*compress)(uint32_t *, const uint32_t *), uint32_t nonce)
{
	uint32_t state[8], block[16] = { 0x20000000, nonce, 0x65000000, 0x1d00ffff, [15] = 640 };

	memcpy(state, START256, 32);
	compress(state, block);
	memset(block, 0, sizeof(block));
	memcpy(block, state, 32);
	block[8] = 0x80000000, block[15] = 256;
	memcpy(state, START256, 32);
	compress(state, block);
	return state[7];
}

static uint32_t sha256d(uint32_t nonce) { return sha256d_by(sha256_block, nonce); }
static uint32_t sha256d_ni(uint32_t nonce) { return sha256d_by(sha256_block_ni, nonce); }

/* Keccak-f[1600] with its loops rolled and the rotations in a table: compact code with little arithmetic in it. */
static uint32_t keccak(uint32_t nonce)
{
	static const uint8_t turn[24] = { 1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44 };
	static const uint8_t lane[24] = { 10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1 };
	uint64_t a[25] = { nonce, 1 }, b[5], t, lfsr = 1;

	for (int round = 0; round < 24; round++) {
		for (int i = 0; i < 5; i++)
			b[i] = a[i] ^ a[i + 5] ^ a[i + 10] ^ a[i + 15] ^ a[i + 20];
		for (int i = 0; i < 5; i++) {
			t = b[(i + 4) % 5] ^ ROL64(b[(i + 1) % 5], 1);
			for (int j = 0; j < 25; j += 5)
				a[j + i] ^= t;
		}
		t = a[1];
		for (int i = 0; i < 24; i++) {
			uint64_t old = a[lane[i]];
			a[lane[i]] = ROL64(t, turn[i]);
			t = old;
		}
		for (int j = 0; j < 25; j += 5) {
			memcpy(b, a + j, 40);
			for (int i = 0; i < 5; i++)
				a[j + i] = b[i] ^ (~b[(i + 1) % 5] & b[(i + 2) % 5]);
		}
		a[0] ^= lfsr = lfsr * 6364136223846793005ull + 1;
	}
	return (uint32_t)a[0];
}

/* BLAKE2b's round function over a fixed message. */
static uint32_t blake2b(uint32_t nonce)
{
	static const uint64_t iv[8] = { 0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
					0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179 };
	uint64_t v[16], m[16] = { nonce };

	for (int i = 0; i < 8; i++)
		v[i] = v[i + 8] = iv[i];
	for (int r = 0; r < 12; r++)
		for (int i = 0; i < 8; i++) {
			int a = i & 3, b = 4 + ((i + (i >= 4)) & 3), c = 8 + ((i + 2 * (i >= 4)) & 3), d = 12 + ((i + 3 * (i >= 4)) & 3);
			v[a] += v[b] + m[(2 * i + r) & 15], v[d] = ROL64(v[d] ^ v[a], 32), v[c] += v[d], v[b] = ROL64(v[b] ^ v[c], 40);
			v[a] += v[b] + m[(2 * i + r + 1) & 15], v[d] = ROL64(v[d] ^ v[a], 48), v[c] += v[d], v[b] = ROL64(v[b] ^ v[c], 1);
		}
	return (uint32_t)(v[0] ^ v[8]);
}

/* scrypt's core: Salsa20/8 over 128 KiB, written in order and read at random. */
static uint32_t scrypt(uint32_t nonce)
{
	static __thread uint32_t *pad;
	uint32_t x[32] = { nonce, 2, 3 };

	if (!pad)
		pad = malloc(1024 * 128);
	for (int n = 0; n < 2048; n++) {
		uint32_t *row = pad + 32 * (n < 1024 ? (uint32_t)n : x[16] & 1023);
		for (int i = 0; i < 32; i++)
			if (n < 1024)
				row[i] = x[i];
			else
				x[i] ^= row[i];
		for (int half = 0; half < 32; half += 16) {
			uint32_t s[16];
			for (int i = 0; i < 16; i++)
				s[i] = x[half + i] ^= x[(half ^ 16) + i];
			for (int r = 0; r < 4; r++) {
#define QUARTER(a, b, c, d) \
	s[b] ^= ROL32(s[a] + s[d], 7), s[c] ^= ROL32(s[b] + s[a], 9), s[d] ^= ROL32(s[c] + s[b], 13), s[a] ^= ROL32(s[d] + s[c], 18)
				QUARTER(0, 4, 8, 12), QUARTER(5, 9, 13, 1), QUARTER(10, 14, 2, 6), QUARTER(15, 3, 7, 11);
				QUARTER(0, 1, 2, 3), QUARTER(5, 6, 7, 4), QUARTER(10, 11, 8, 9), QUARTER(15, 12, 13, 14);
			}
			for (int i = 0; i < 16; i++)
				x[half + i] += s[i];
		}
	}
	return x[0];
}

/* CryptoNight's family: AES rounds and a wide multiplication at random places of 2 MiB. */
__attribute__((target("aes,sse4.1"))) static uint32_t cryptonight(uint32_t nonce)
{
	static __thread __m128i *pad;
	__m128i a = _mm_set_epi32(nonce, 1, 2, 3), b = _mm_set_epi32(4, 5, 6, 7);

	if (!pad) {
		pad = aligned_alloc(64, 2 << 20);
		for (int i = 0; i < (2 << 20) / 16; i++)
			pad[i] = _mm_set_epi32(i, i ^ 77, i * 3, nonce);
	}
	for (int i = 0; i < 1 << 14; i++) {
		__m128i *at = &pad[_mm_extract_epi64(a, 0) & ((2 << 20) / 16 - 1)];
		__m128i c = _mm_aesenc_si128(*at, a);
		*at = _mm_xor_si128(b, c);
		at = &pad[_mm_extract_epi64(c, 0) & ((2 << 20) / 16 - 1)];
		unsigned __int128 product = (unsigned __int128)(uint64_t)_mm_extract_epi64(c, 0) * (uint64_t)_mm_extract_epi64(*at, 0);
		a = _mm_add_epi64(a, _mm_set_epi64x((int64_t)product, (int64_t)(product >> 64)));
		__m128i kept = *at;
		*at = a;
		a = _mm_xor_si128(a, kept), b = c;
	}
	return (uint32_t)_mm_extract_epi32(a, 0);
}

/* Memory-hard without AES: random reads of 64 MiB mixed by multiplication, as Ethash's family does it (FNV). */
static uint32_t ethash(uint32_t nonce)
{
	static __thread uint32_t *dag;
	uint32_t mix[32];

	if (!dag) {
		dag = malloc(64 << 20);
		for (uint32_t i = 0; i < (64 << 20) / 4; i++)
			dag[i] = (i ^ 0x811c9dc5) * 0x01000193;
	}
	for (int i = 0; i < 32; i++)
		mix[i] = nonce * 0x01000193 ^ (uint32_t)i;
	for (uint32_t r = 0; r < 64; r++) {
		const uint32_t *row = dag + 32 * (((nonce ^ r) * 0x01000193 ^ mix[r % 32]) % ((64u << 20) / 128));
		for (int i = 0; i < 32; i++)
			mix[i] = mix[i] * 0x01000193 ^ row[i];
	}
	for (int i = 1; i < 32; i++)
		mix[0] = mix[0] * 0x01000193 ^ mix[i];
	return mix[0];
}

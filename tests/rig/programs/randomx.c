/*
 * A stand-in for RandomX: it mines nothing (made-up input, no target, no network), but has its way of working.
 *
 *   randomx NAME SECONDS [THREADS], NAME randomx or randomx-hidden
 */
#include "load.h"

/*
 * RandomX's kind: programs of random instructions, in its published frequencies, made at run time in anonymous memory and run over a 2 MiB
 * scratchpad. A new program every so often. HIDE: between runs the code is made unreadable and overwritten.
 */
static void emit(u8 **p, const char *bytes, int n)
{
	memcpy(*p, bytes, n);
	*p += n;
}

static u8 *compile(u8 *code, u64 *seed)
{
	u8 *p = code;

	for (int n = 0; n < 256; n++) {
		u64 r = *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
		u8 d = r >> 33 & 3, s = r >> 40 & 3, fp = 0xc0 | (r >> 44 & 3) << 3 | (4 + (r >> 46 & 3));
		unsigned what = r >> 50 & 255;

		if (what < 16) /* lea r8+d, [r8+d + s*4] */
			emit(&p, (char[]){ 0x4f, 0x8d, 0x04 | d << 3, 0x80 | s << 3 | d }, 4);
		else if (what < 46) /* sub / add */
			emit(&p, (char[]){ 0x4d, what & 1 ? 0x2b : 0x03, 0xc0 | d << 3 | s }, 3);
		else if (what < 66) /* imul */
			emit(&p, (char[]){ 0x4d, 0x0f, 0xaf, 0xc0 | d << 3 | s }, 4);
		else if (what < 74) /* mov rax, r; mul s; mov d, rdx */
			emit(&p, (char[]){ 0x4c, 0x89, 0xc0 | d << 3, 0x49, 0xf7, 0xe0 | s, 0x49, 0x89, 0xd0 | d }, 9);
		else if (what < 91) /* xor */
			emit(&p, (char[]){ 0x4d, 0x33, 0xc0 | d << 3 | s }, 3);
		else if (what < 99) /* ror r, imm */
			emit(&p, (char[]){ 0x49, 0xc1, 0xc8 | d, 1 + (r & 62) }, 4);
		else if (what < 131) /* load: mov eax, r; and eax, mask; xor d, [rsi + rax] */
			emit(&p, (char[]){ 0x44, 0x89, 0xc0 | s << 3, 0x25, 0xf8, 0xff, 0x1f, 0, 0x4c, 0x33, 0x04 | d << 3, 0x06 }, 12);
		else if (what < 147) /* store */
			emit(&p, (char[]){ 0x44, 0x89, 0xc0 | d << 3, 0x25, 0xf8, 0xff, 0x1f, 0, 0x4c, 0x89, 0x04 | s << 3, 0x06 }, 12);
		else if (what < 183) /* addpd / subpd */
			emit(&p, (char[]){ 0x66, 0x0f, what & 1 ? 0x58 : 0x5c, fp }, 4);
		else if (what < 215) /* mulpd */
			emit(&p, (char[]){ 0x66, 0x0f, 0x59, fp }, 4);
		else if (what < 219) /* divpd xmm, xmm7 */
			emit(&p, (char[]){ 0x66, 0x0f, 0x5e, 0xc7 | (fp & 0x18) }, 4);
		else if (what < 225) /* sqrtpd */
			emit(&p, (char[]){ 0x66, 0x0f, 0x51, fp }, 4);
		else if (what < 231) /* xorpd */
			emit(&p, (char[]){ 0x66, 0x0f, 0x57, fp }, 4);
		else if (what < 250) /* test r, imm; jz next */
			emit(&p, (char[]){ 0x49, 0x81, 0xc0 | d, 1, 2, 0, 0, 0x49, 0xf7, 0xc0 | d, 0, (char)0xff, 0, 0, 0x74, 0 }, 16);
	}
	emit(&p, (char[]){ (char)0xc3 }, 1);
	return p;
}

static int hides;

static void randomx(u64 nonce)
{
	size_t size = 64 << 10;
	u8 *code = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u8 *pad = area((2 << 20) + 64);
	u64 seed = nonce + 88172645463325252ull;

	while (now() < until) {
		if (hides)
			mprotect(code, size, PROT_READ | PROT_WRITE | PROT_EXEC);
		compile(code, &seed);
		for (int n = 0; n < 4096; n++) {
			u64 a = seed, b = n, c = nonce, d = seed >> 7;

			__asm__ volatile("mov %1, %%r8; mov %2, %%r9; mov %3, %%r10; mov %4, %%r11; mov %5, %%rsi; call *%6;"
					 "mov %%r8, %0"
					 : "=&r"(a)
					 : "r"(a), "m"(b), "m"(c), "m"(d), "m"(pad), "m"(code)
					 : "r8", "r9", "r10", "r11", "rax", "rdx", "rsi", "rcx", "rdi", "memory", "cc", "xmm0", "xmm1", "xmm2",
					   "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
			seed ^= a;
		}
		if (hides) {
			memset(code, 0xcc, size);
			mprotect(code, size, PROT_NONE);
		}
	}
	sink += seed;
}

static void randomx_hidden(u64 nonce)
{
	hides = 1;
	randomx(nonce);
}

static const struct load all[] = { { "randomx", randomx }, { "randomx-hidden", randomx_hidden } };

int main(int argc, char **argv)
{
	return run_loads(all, sizeof(all) / sizeof(all[0]), argc, argv);
}

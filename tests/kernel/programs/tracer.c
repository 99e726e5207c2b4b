/* Its very first instructions make a file named by argv[1]: if the file is there, the program has run. */
__attribute__((naked, noreturn)) void _start(void)
{
	__asm__ volatile(
		"mov 16(%rsp), %rdi\n\t" /* argv[1] */
		"mov $85, %eax\n\t"      /* creat */
		"mov $0600, %esi\n\t"
		"syscall\n\t"
		"mov $60, %eax\n\t" /* exit */
		"xor %edi, %edi\n\t"
		"syscall\n\t");
}

"""Other kernels: Debian's 5.10, 6.1 and 6.12 in QEMU, without KVM, with this project's own tests run inside."""

#!/bin/bash
# Process 1 of a machine that runs one command and switches itself off. What the command prints goes to /mnt/output, its
# exit status to /mnt/status: the folder that the host shares.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
ip link set lo up
hostname killswitch-vm
cd /opt/killswitch
bash /mnt/command >/mnt/output 2>&1
echo $? >/mnt/status
sync
echo o >/proc/sysrq-trigger
sleep 60

#!/bin/busybox sh
# The first process of the machine: finds the disks, lays the project and the kernel's modules into the root, and hands over.
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
for module in /modules/*.ko; do /bin/busybox insmod $module || echo "initramfs: cannot load $module"; done
set -e
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox mount -t ext4 -o ro /dev/vdb /root/lib/modules
/bin/busybox mount -t ext4 -o noatime /dev/vdc /root/opt/killswitch
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /root/mnt
/bin/busybox mount --move /dev /root/dev
init=/opt/killswitch/tests/vm/guest/init.sh
for word in $(/bin/busybox cat /proc/cmdline); do case $word in ks.init=*) init=${word#ks.init=} ;; esac; done
/bin/busybox umount /proc
exec /bin/busybox switch_root /root $init

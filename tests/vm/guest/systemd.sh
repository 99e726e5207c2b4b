#!/bin/bash
# Process 1 before systemd: lays in the unit that runs the stages of the test, keeps what is of no use here, and hands over.
# The disk is written to, and keeps it over a reboot.
set -e
install -m 644 /opt/killswitch/tests/vm/guest/units/* /etc/systemd/system/
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -sf /etc/systemd/system/ks-vm.service /etc/systemd/system/multi-user.target.wants/
for unit in ssh.service serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
  e2scrub_reap.service e2scrub_all.timer fstrim.timer dpkg-db-backup.timer systemd-timesyncd.service; do
  ln -sf /dev/null /etc/systemd/system/$unit
done
echo killswitch-vm >/etc/hostname
exec /lib/systemd/systemd

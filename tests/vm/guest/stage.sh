#!/bin/bash
# One stage each boot: the next line of /mnt/stages, "HOW TO END<TAB>COMMAND". What the commands print goes to /mnt/output; the
# worst exit status to /mnt/status when all stages are through.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
stage=$(($(cat /mnt/stage 2>/dev/null || echo 0) + 1))
echo $stage >/mnt/stage
IFS=$'\t' read -r end command < <(sed -n ${stage}p /mnt/stages)
journalctl --boot --follow --output=short-monotonic --no-pager >/mnt/journal-live-$stage 2>&1 &
status=99 # a stage that there is not: the machine came up once too often
[ -z "$command" ] || { cd /opt/killswitch && bash -c "$command" >>/mnt/output 2>&1; status=$?; }
journalctl --boot --no-pager --output=short-monotonic >/mnt/journal-$stage 2>&1
worst=$(cat /mnt/worst 2>/dev/null || echo 0)
[ $status -le $worst ] || echo $status >/mnt/worst
# A stage that failed makes the next ones meaningless.
[ $status -eq 0 ] || end=end
case $end in
  reboot) systemctl reboot ;;
  # As the power does it: nothing is told, nothing is written.
  reset) echo b >/proc/sysrq-trigger ;;
  *)
    cat /mnt/worst >/mnt/status 2>/dev/null || echo 0 >/mnt/status
    sync
    echo o >/proc/sysrq-trigger ;;
esac

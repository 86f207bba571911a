# SPDX-License-Identifier: Apache-2.0
# The host's job: KVM with the parameters that were asked for, the monitor with its guest, and beside
# it the agent as on any host. The spool goes to the disk as it grows.
echo 20 >/proc/sys/vm/dirty_writeback_centisecs
echo 20 >/proc/sys/vm/dirty_expire_centisecs
for m in $(cat /mods/kvm-order); do
    [ $m = kvm-intel ] && parameters="$KVM_INTEL" || parameters=
    insmod /mods/$m.ko $parameters || exit 3
done
cd /out
eval "exec /job/vmm $VMM" >vmm.txt 2>&1 &
vmm=$!
until grep -q ready vmm.txt; do
    kill -0 $vmm 2>/dev/null || exit 4
    usleep 20000
done
echo LAB guest waits >/dev/console
(
    PYTHONPATH=/job python3 -m pmlkit.kvm.agent /job/job.json $vmm - 2>agent.txt
    echo $? >agent.status
) | dd of=/dev/sdb bs=64k seek=$SPOOL_BLOCK 2>/dev/null &
until [ -e /job/go ]; do
    [ -s agent.status ] && kill $vmm && break
    usleep 20000
done
wait $vmm
status=$?
echo LAB guest ended >/dev/console
wait
dmesg >dmesg.txt
[ "$(cat agent.status)" = 0 ] || status=5
exit $status

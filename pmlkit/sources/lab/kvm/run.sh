# SPDX-License-Identifier: Apache-2.0
# The host's job: KVM with the requested parameters, the VMM with its guest, and the agent as on any
# host. The spool goes to the disk as it grows.
echo 20 >/proc/sys/vm/dirty_writeback_centisecs
echo 20 >/proc/sys/vm/dirty_expire_centisecs
for m in $(cat /mods/kvm-order); do
    [ $m = kvm-intel ] && parameters="$KVM_INTEL" || parameters=
    insmod /mods/$m.ko $parameters || exit 3
done
cd /out

# agent VM: log it; the spool goes to standard output
agent() {
    PYTHONPATH=/job python3 -m pmlkit.kvm.agent /job/job.json $1 - 2>agent.txt
    echo $? >agent.status
}

# Wait until a file has a word; fail if the VMM ($vmm) ends before.
until_says() {
    until grep -q "$2" $1 2>/dev/null; do
        kill -0 $vmm 2>/dev/null || return 1
        usleep 20000
    done
}

# Our own monitor switches logging on and off, and ends the guest.
own() {
    eval "exec /job/vmm $VMM" >vmm.txt 2>&1 &
    vmm=$!
    until_says vmm.txt ready || exit 4
    echo LAB guest waits >/dev/console
    agent $vmm | dd of=/dev/sdb bs=64k seek=$SPOOL_BLOCK 2>/dev/null &
    until [ -e /job/go ]; do
        [ -s agent.status ] && kill $vmm && break
        usleep 20000
    done
    wait $vmm
}

# start_qemu: its guest reports when it is set up, and never rests; it leaves time to the others
start_qemu() {
    eval "LD_LIBRARY_PATH=/job/qemu exec /job/qemu/qemu $VMM" >vmm.txt 2>&1 &
    vmm=$!
    renice -n 10 -p $vmm
    until_says guest.txt ready || exit 4
}

# The agent lets QEMU measure its dirty rate, which switches logging on.
qemu() {
    : >report.txt
    start_qemu
    echo LAB guest waits >/dev/console
    agent /job/qmp | dd of=/dev/sdb bs=64k seek=$SPOOL_BLOCK 2>/dev/null
    kill $vmm
    wait $vmm
}

$JOB
status=$?
echo LAB guest ended >/dev/console
wait
dmesg >dmesg.txt
[ "$(cat agent.status)" = 0 ] || status=5
exit $status

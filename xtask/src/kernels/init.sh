#!/bin/busybox sh
# The first process of a machine in software. What it prints on the second serial line, xtask reads; the kernel has the first.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t devtmpfs dev /dev
exec >/dev/ttyS1 2>&1 </dev/null
export PATH=/usr/bin:/bin HOME=/tmp PORTAL_LAB_BINARIES=/binaries
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
echo "portal: kernel $(uname -r) $(uname -v)"
for module in /modules/*.ko; do
    insmod "$module" || echo "portal: refused $module"
done
ip link set lo up
for program in /tests/*/run; do
    directory=${program%/run}
    echo "portal: begins ${directory##*/}"
    cd "$directory"
    start=$(date +%s)
    # One at a time: two processors in software are slow, and some tests count what happens in the whole machine.
    PORTAL_DIFFERENTIAL_FRAMES=@FRAMES@ ./run --test-threads=1 --show-output $(cat arguments)
    echo "portal: ended $? $(($(date +%s) - start))"
done
echo "portal: done"
# The serial line is slower than this.
sleep 1
poweroff -f

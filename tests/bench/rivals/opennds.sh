#!/bin/sh
# openNDS in a mount namespace of its own (`unshare --mount sh opennds.sh CONFIGURATION LEASES`): its paths below /tmp are fixed, and it writes
# into /etc. Here it has both for itself.
set -eu
configuration=$(cat "$1")
leases=$(cat "$2")
mount --make-rprivate /
mount -t tmpfs tmpfs /tmp
printf '%s\n' "$configuration" > /tmp/opennds.conf
# It lets nobody in whose address its DHCP server has not given out.
printf '%s\n' "$leases" > /tmp/dhcp.leases
mkdir /tmp/etc /tmp/bin
cp -a /etc/. /tmp/etc/
mount --bind /tmp/etc /etc
# openNDS 9.10 renames the chains of the table `filter` by nft and then calls iptables, whose nft flavour refuses the chains that it finds
# ("CHAIN_ADD failed (Operation not supported)", iptables 1.8.9, Linux 6.18). With the legacy flavour it works.
for name in iptables ip6tables; do
    if command -v "$name-legacy" > /dev/null; then ln -s "$(command -v "$name-legacy")" "/tmp/bin/$name"; fi
done
PATH="/tmp/bin:$PATH" exec opennds -f -d 1 -c /tmp/opennds.conf

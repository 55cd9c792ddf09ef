# Stand-in for OpenWrt's: the test says in /tmp/network which device an interface has, once it is up.
# shellcheck shell=dash
network_get_device() { eval "$1=\$(sed -n 's/^$2 //p' /tmp/network) && [ -n \"\$$1\" ]"; }

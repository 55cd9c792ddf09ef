#!/bin/sh
# What a package consists of: install.sh calamary|calamary-redirector FOLDER-OF-PROGRAMS ROOT
#
# For the feed's Makefile and for build-ipk.sh, so that both make the same package. Nothing but the programs is more than
# a few kilobytes.
set -eu
package=$1 programs=$2 root=$3
files=$(dirname "$0")/files

put() { # MODE FROM TO
	mkdir -p "$root/${3%/*}"
	install -m "$1" "$2" "$root/$3"
}

# fw4 passes links over that lead nowhere: without interception there is nothing in /var/run.
include() { # FOLDER FILE
	mkdir -p "$root/usr/share/nftables.d/$1"
	ln -sfn "/var/run/$package/$2" "$root/usr/share/nftables.d/$1/50-$package.nft"
}

put 0755 "$programs/$package" "usr/sbin/$package"
put 0755 "$files/calamary.init" "etc/init.d/$package"
put 0644 "$files/capabilities.json" "etc/capabilities/$package.json"
put 0600 "$files/$package.config" "etc/config/$package"
put 0755 "$files/uci-defaults" "etc/uci-defaults/50-$package"
include ruleset-post fw4.nft
include chain-pre/input fw4-input.nft

# Kept by a system upgrade, with lists that the owner has added.
mkdir -p "$root/lib/upgrade/keep.d"
echo /etc/calamary/ >"$root/lib/upgrade/keep.d/$package"

# Readable for the user that the daemon runs as.
case $package in
calamary)
	put 0644 "$files/config.yml" etc/calamary/config.yml
	put 0644 "$files/lists/allow.txt" etc/calamary/lists/allow.txt
	put 0644 "$files/lists/deny.txt" etc/calamary/lists/deny.txt
	;;
calamary-redirector)
	put 0644 "$files/redirector.yml" etc/calamary/redirector.yml
	;;
*)
	echo "$0: no package $package" >&2
	exit 2
	;;
esac

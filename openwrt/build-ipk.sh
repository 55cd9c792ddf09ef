#!/usr/bin/env bash
# Packages for OpenWrt from programs that are built already, without an SDK.
#
#   openwrt/build-ipk.sh BINARY_DIR OUT_DIR
#
# BINARY_DIR is what cross/build.sh wrote: BINARY_DIR/TRIPLE/calamary and BINARY_DIR/TRIPLE/calamary-redirector, static.
# Writes OUT_DIR/NAME_VERSION_ARCH.ipk, one for each of OpenWrt's names for an architecture that a program runs on, and
# luci-app-calamary_VERSION_all.ipk; also .apk where `apk mkpkg` (apk-tools 3) is there. Two runs on the same programs
# write the same bytes. What stands in the packages is said by openwrt/*/Makefile and openwrt/calamary/install.sh, the same
# as for a build with the SDK. Needs GNU tar and gzip, no root. The exit status is 2 for arguments that are wrong.
set -euo pipefail

if [ $# -ne 2 ] || [ ! -d "$1" ]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$2"
programs=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

# OpenWrt's names for what a program of ours runs on.
architectures() {
  case $1 in
  x86_64-unknown-linux-musl) echo x86_64 ;;
  i686-unknown-linux-musl) echo i386_pentium4 ;;
  aarch64-unknown-linux-musl) echo aarch64_cortex-a53 aarch64_cortex-a72 aarch64_cortex-a76 aarch64_generic ;;
  armv7-unknown-linux-musleabihf)
    echo arm_cortex-a5_vfpv4 arm_cortex-a7_neon-vfpv4 arm_cortex-a7_vfpv4 arm_cortex-a8_vfpv3 arm_cortex-a9_neon \
      arm_cortex-a9_vfpv3-d16 arm_cortex-a15_neon-vfpv4
    ;;
  arm-unknown-linux-musleabi) echo arm_arm1176jzf-s_vfp arm_mpcore arm_cortex-a7 arm_cortex-a9 ;;
  armv5te-unknown-linux-musleabi) echo arm_arm926ej-s arm_xscale ;;
  mips-unknown-linux-musl) echo mips_24kc ;;
  mipsel-unknown-linux-musl) echo mipsel_24kc mipsel_24kc_24kf mipsel_74kc ;;
  riscv64gc-unknown-linux-musl) echo riscv64_generic riscv64_riscv64 ;;
  *) return 1 ;;
  esac
}

# Arguments: the folder of a package, a variable of its Makefile.
variable() { sed -n "s/^ *$2:= *//p" "$1/Makefile"; }

# Arguments: the folder, the package, what of it: the lines of `define Package/NAME/WHAT`.
block() { sed -n "\|^define Package/$2$3\$|,/^endef/{/^define/d;/^endef/d;s/\\\$\\\$/\$/g;p}" "$1/Makefile"; }

# What a package needs, without what a static program has no need of.
dependencies() { tr -d + | sed 's/[$](.*)//' | xargs; }

# Packs a folder whose files have no owner, no time and no order of their own.
pack() { tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$1" -cf - "${@:2}" | gzip -9n; }

# Arguments: name, version, architecture, depends, title, user or nothing. In $work/root the files; in $work/control those
# scripts and lists that the package has.
write_ipk() {
  local file=$out/$1_$2_$3.ipk
  pack "$work/root" . >"$work/data.tar.gz"
  {
    printf 'Package: %s\nVersion: %s\nDepends: %s\n' "$1" "$2" "${4// /, }"
    printf 'License: MIT OR Apache-2.0\nSection: net\n'
    [ -z "$6" ] || printf 'Require-User: %s\n' "$6"
    printf 'Architecture: %s\nInstalled-Size: %s\n' "$3" "$(gzip -dc "$work/data.tar.gz" | wc -c)"
    printf 'Description: %s\n' "$5"
  } >"$work/control/control"
  # shellcheck disable=SC2016 # for the router's shell
  printf '%s\n' '#!/bin/sh' '[ "${IPKG_NO_SCRIPT}" = 1 ] && exit 0' '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0' \
    '. "${IPKG_INSTROOT}/lib/functions.sh"' 'default_postinst "$0" "$@"' >"$work/control/postinst"
  # shellcheck disable=SC2016
  printf '%s\n' '#!/bin/sh' '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0' \
    '. "${IPKG_INSTROOT}/lib/functions.sh"' 'default_prerm "$0" "$@"' >"$work/control/prerm"
  chmod 755 "$work/control"/p*
  pack "$work/control" . >"$work/control.tar.gz"
  echo 2.0 >"$work/debian-binary"
  pack "$work" ./debian-binary ./data.tar.gz ./control.tar.gz >"$file"
  echo "$file"
}

# The same as .apk, with what default_postinst and default_prerm of an apk system look for below /lib/apk/packages.
write_apk() {
  local name=$1 version=$2 architecture=$3 depends=$4 title=$5 user=$6 info=$work/root/lib/apk/packages scripts=$work/apk
  local file=$out/${name}_${version}_$architecture.apk
  mkdir -p "$info" "$scripts"
  (cd "$work/root" && find . \( -type f -o -type l \) -printf '/%P\n' | LC_ALL=C sort) >"$work/list"
  mv "$work/list" "$info/$name.list"
  [ -z "$user" ] || echo "$user" >"$info/$name.rusers"
  if [ -f "$work/control/conffiles" ]; then
    cp "$work/control/conffiles" "$info/$name.conffiles"
    while read -r path; do echo "$path $(sha256sum <"$work/root$path" | cut -d' ' -f1)"; done \
      <"$work/control/conffiles" >"$info/$name.conffiles_static"
  fi
  # shellcheck disable=SC2016 # for the router's shell
  {
    printf '%s\n' '#!/bin/sh' '[ "${IPKG_NO_SCRIPT}" = 1 ] && exit 0' '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0' \
      '. "${IPKG_INSTROOT}/lib/functions.sh"' 'export root="${IPKG_INSTROOT}"' "export pkgname=$name" \
      add_group_and_user default_postinst
    [ ! -f "$work/control/postinst-pkg" ] || sed 1d "$work/control/postinst-pkg"
  } >"$scripts/post-install"
  { printf '#!/bin/sh\nexport PKG_UPGRADE=1\n' && sed 1d "$scripts/post-install"; } >"$scripts/post-upgrade"
  # shellcheck disable=SC2016
  printf '%s\n' '#!/bin/sh' '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0' '. "${IPKG_INSTROOT}/lib/functions.sh"' \
    'export root="${IPKG_INSTROOT}"' "export pkgname=$name" default_prerm >"$scripts/pre-deinstall"
  SOURCE_DATE_EPOCH=0 apk mkpkg --info "name:$name" --info "version:$version" --info "arch:${architecture/#all/noarch}" \
    --info "description:$title" --info 'license:MIT OR Apache-2.0' --info "depends:$depends" \
    --script "post-install:$scripts/post-install" --script "post-upgrade:$scripts/post-upgrade" \
    --script "pre-deinstall:$scripts/pre-deinstall" --files "$work/root" --output "$file"
  echo "$file"
}

# Arguments: as write_ipk's.
write_package() {
  write_ipk "$@"
  if apk mkpkg --help >/dev/null 2>&1; then write_apk "$@"; fi
}

version_of() { echo "$(variable "$1" PKG_VERSION)-r$(variable "$1" PKG_RELEASE)"; }

# Arguments: the package, the folder of its program, the architecture.
program_package() {
  local name=$1 variables
  rm -rf "${work:?}"/*
  mkdir -p "$work/root" "$work/control"
  calamary/install.sh "$name" "$2" "$work/root"
  block calamary "$name" /conffiles >"$work/control/conffiles"
  block calamary "$name" /postinst >"$work/control/postinst-pkg"
  chmod 755 "$work/control/postinst-pkg"
  variables=$(block calamary "$name" '')
  write_package "$name" "$(version_of calamary)" "$3" "$(sed -n 's/^ *DEPENDS:=//p' <<<"$variables" | dependencies)" \
    "$(block calamary "$name" /description | xargs)" "$(sed -n 's/^ *USERID:=//p' <<<"$variables")"
}

luci_package() {
  rm -rf "${work:?}"/*
  mkdir -p "$work/root/www" "$work/control"
  cp -R luci-app-calamary/root/. "$work/root/"
  cp -R luci-app-calamary/htdocs/. "$work/root/www/"
  # What luci.mk does: the menu is read anew, and rpcd learns of the object and its rights.
  printf '%s\n' '#!/bin/sh' "rm -rf /tmp/luci-indexcache* /tmp/luci-modulecache" '/etc/init.d/rpcd reload' 'exit 0' \
    >"$work/control/postinst-pkg"
  chmod 755 "$work/control/postinst-pkg"
  write_package luci-app-calamary "$(version_of luci-app-calamary)" all \
    "$(variable luci-app-calamary LUCI_DEPENDS | dependencies)" "$(variable luci-app-calamary LUCI_DESCRIPTION)" ''
}

written=0
for folder in "$programs"/*/; do
  triple=$(basename "$folder")
  [ -f "$folder/calamary" ] || continue
  names=$(architectures "$triple") || { echo "$0: OpenWrt has no name for $triple: passed over" >&2; continue; }
  for architecture in $names; do
    for name in calamary calamary-redirector; do program_package "$name" "$folder" "$architecture"; done
  done
  written=1
done
[ "$written" = 1 ] || { echo "$0: no programs in $1" >&2; exit 2; }
luci_package

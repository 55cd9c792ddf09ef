# shellcheck shell=bash
# What builds for routers need, fetched into a folder of their own: a Rust compiler with std's source, and zig, which is
# C compiler, libc and linker for every CPU at once. To be sourced from the project's folder. Nothing outside the cache
# is changed, and no root is needed.
#
#   CALAMARY_CROSS_CACHE   the cache; default: calamary-cross in $XDG_CACHE_HOME or ~/.cache. It may be empty, and what is
#                          in it is used without a network.
#   RUST_TOOLCHAIN         a rustup toolchain that has the component rust-src (nightly), instead of Debian's compiler.
#
# MIPS is a tier 3 target: nobody ships a std for it, so std is built from source, for every CPU alike.

zig_version=0.15.2
# The compiler that Debian keeps current for its browsers; the source package is always of the same version.
debian_packages=(rustc-web cargo-web rust-web-src)

# The exit status for "cannot be done on this machine": a tool is missing, or a registry is out of reach.
readonly UNAVAILABLE=3

say() { printf '%s\n' "$*" >&2; }

unavailable() {
  say "$0: $*"
  exit "$UNAVAILABLE"
}

# Arguments: PROGRAM:DEBIAN-PACKAGE… Names all that are missing, not only the first.
need_tools() {
  local need missing=0
  for need in "$@"; do
    command -v "${need%%:*}" >/dev/null && continue
    say "$0: ${need%%:*} is missing: apt-get install ${need##*:}"
    missing=1
  done
  [ "$missing" -eq 0 ] || exit "$UNAVAILABLE"
}

# zig as a wheel of PyPI, which has it for every kind of machine.
fetch_zig() {
  local folder=$cache/zig-$zig_version
  if [ ! -d "$folder" ]; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || unavailable 'venv is missing: apt-get install python3-venv'
    say "fetching zig $zig_version from PyPI"
    rm -rf "$folder.part"
    python3 -m venv "$folder.part"
    "$folder.part/bin/pip" install --quiet --disable-pip-version-check "ziglang==$zig_version" >&2 ||
      unavailable "PyPI does not give ziglang $zig_version, and it is not in $cache"
    mv "$folder.part" "$folder"
  fi
  zig=$(find "$folder" -path '*/ziglang/zig' -type f)
}

# Debian's compiler, unpacked and not installed: it would be in the way of rustup's.
fetch_debian_rust() {
  local folder=$cache/debian-rust names package
  [ ! -d "$folder" ] || return 0
  need_tools apt-get:apt dpkg-deb:dpkg
  if ! apt-cache show "${debian_packages[@]}" >/dev/null 2>&1; then
    apt-get update -qq >&2 || unavailable 'apt-get update failed: run it as root, with the Debian registry in reach'
  fi
  say "fetching ${debian_packages[*]} from Debian"
  # Whatever apt would have to install for them; they themselves also where they are installed already.
  names=$(apt-get --simulate --no-install-recommends install "${debian_packages[@]}") ||
    unavailable "apt knows no ${debian_packages[*]}: Debian 12 does; elsewhere, use RUST_TOOLCHAIN=nightly"
  mapfile -t names < <({ awk '/^Inst /{print $2}' <<<"$names"; printf '%s\n' "${debian_packages[@]}"; } | sort -u)
  rm -rf "$folder.part" "$folder.packages"
  mkdir -p "$folder.part" "$folder.packages"
  (cd "$folder.packages" && apt-get download -qq "${names[@]}" >&2) ||
    unavailable "the Debian registry does not give ${debian_packages[*]}, and they are not in $cache"
  for package in "$folder.packages"/*.deb; do dpkg-deb -x "$package" "$folder.part"; done
  rm -rf "$folder.packages"
  mv "$folder.part" "$folder"
}

# Writes a program into $bin, whole or not at all: other builds may be using it.
install_program() {
  cat >"$bin/.$1.$$"
  chmod +x "$bin/.$1.$$"
  mv "$bin/.$1.$$" "$bin/$1"
}

install_rust() {
  local program libraries
  if [ -n "${RUST_TOOLCHAIN:-}" ]; then
    need_tools rustup:rustup
    for program in cargo rustc rustdoc; do
      install_program "$program" <<<"#!/bin/sh
exec rustup run '$RUST_TOOLCHAIN' $program \"\$@\""
    done
  else
    fetch_debian_rust
    libraries=$(find "$cache/debian-rust/usr/lib" -maxdepth 1 -name '*-linux-gnu')
    for program in cargo rustc rustdoc; do
      install_program "$program" <<<"#!/bin/sh
export LD_LIBRARY_PATH='$libraries'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
exec '$cache/debian-rust/usr/bin/$program' \"\$@\""
    done
  fi
  sysroot=$("$bin/rustc" --print sysroot)
  [ -f "$sysroot/lib/rustlib/src/rust/library/std/Cargo.toml" ] ||
    unavailable "$sysroot has no source of std: rustup component add rust-src --toolchain ${RUST_TOOLCHAIN:-nightly}"
}

# Fetches what is missing; afterwards cargo and rustc on the PATH are those of the cache. Sets $zig, $bin, $sysroot.
prepare_toolchain() {
  need_tools python3:python3 cc:gcc flock:util-linux
  cache=${CALAMARY_CROSS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/calamary-cross}
  mkdir -p "$cache"
  cache=$(cd "$cache" && pwd)
  bin=$cache/bin-${RUST_TOOLCHAIN:-debian}
  mkdir -p "$bin"
  exec 9>"$cache/lock"
  flock 9
  fetch_zig
  install_rust
  install_program ar <<<"#!/bin/sh
exec '$zig' ar \"\$@\""
  exec 9>&-
  export ZIG=$zig ZIG_GLOBAL_CACHE_DIR=$cache/zig-cache ZIG_LOCAL_CACHE_DIR=$cache/zig-cache
  # What is unstable about building std is that cargo may change the options' names.
  export PATH="$bin:$PATH" RUSTC="$bin/rustc" RUSTDOC="$bin/rustdoc" RUSTC_BOOTSTRAP=1
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN RUSTC_WRAPPER CARGO_BUILD_TARGET
}

# Fetches the crates of the project and of std; without a network, those that cargo has are used.
fetch_crates() {
  cargo fetch --quiet --locked -Zbuild-std=std,panic_abort --target "$1" 2>/dev/null ||
    cargo fetch --quiet --locked --offline -Zbuild-std=std,panic_abort --target "$1" >&2 ||
    unavailable 'crates.io cannot be reached, and not every crate of Cargo.lock has been fetched before'
}

# A folder of its own for these builds: another compiler's would be rebuilt at every change between them.
use_target_folder() {
  CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/cross
  mkdir -p "$CARGO_TARGET_DIR"
  CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)
  export CARGO_TARGET_DIR
}

# The programs to be built; all, if there are none.
programs=()

wants() { [ "${#programs[@]}" -eq 0 ] || [[ " ${programs[*]} " == *" $1 "* ]]; }

# Builds the programs of the package, each with its own features, with the size profile. Arguments: the target, the folder
# to put them into, further flags for rustc as one word, then further options for cargo to build calamary with.
build_programs() {
  local target=$1 into=$2 flags=$3 lean=$CARGO_TARGET_DIR/lean-$1.o
  shift 3
  aim_at "$target"
  "$bin/cc-$target" -Os -ffunction-sections -c cross/lean.c -o "$lean"
  add_flags "$target" "-Zunstable-options -Cpanic=immediate-abort -Cforce-unwind-tables=no -Zlocation-detail=none -Clink-arg=$lean $flags"
  if wants calamary && ! is_minimal "$@"; then build_program "$target" "$into" calamary "$@"; fi
  # Nobody prints a value as a programmer would in these; rustls words its errors like that.
  add_flags "$target" -Zfmt-debug=none
  if wants calamary && is_minimal "$@"; then build_program "$target" "$into" calamary "$@"; fi
  # Datagrams cost it what big-endian MIPS, where code is largest, has no room for in its budget (docs/size.md).
  local datagrams=(--features udp)
  [[ $target != mips-* ]] || datagrams=()
  if wants calamary-redirector; then
    build_program "$target" "$into" calamary-redirector --no-default-features "${datagrams[@]}"
  fi
}

is_minimal() { [[ " $* " == *" --no-default-features "* ]]; }

# Arguments: the target, the folder, the program, further options for cargo. In one folder are those with the same flags: std
# with others would take the place of the one before. And cargo builds one thing at a time in a folder.
build_program() {
  local target=$1 into=$2 program=$3 kind=full
  shift 3
  if is_minimal "$@"; then kind=minimal; fi
  CARGO_TARGET_DIR=$CARGO_TARGET_DIR/$target/$kind cargo build --quiet --offline --locked --profile router --bin "$program" --target "$target" \
    -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size -Zunstable-options --artifact-dir "$into" \
    -Zpanic-immediate-abort --config 'profile.router.panic="immediate-abort"' "$@"
}

# Tells cargo and cc-rs how to compile for a target.
aim_at() {
  local target=$1 variable=${1//-/_} stamp=$CARGO_TARGET_DIR/$1/.cross
  # cargo does not see that the linker or what goes with it is another one.
  [ -z "$(find cross/cc.sh cross/toolchain.sh cross/lean.c -newer "$stamp" 2>&1)" ] || rm -rf "${CARGO_TARGET_DIR:?}/$target"
  mkdir -p "${stamp%/*}" && touch "$stamp"
  install_program "cc-$target" <cross/cc.sh
  export "CC_$variable=$bin/cc-$target" "AR_$variable=$bin/ar"
  export "CFLAGS_$variable=-fno-asynchronous-unwind-tables -fno-unwind-tables $(path_maps -ffile-prefix-map)"
  export "CARGO_TARGET_${variable^^}_LINKER=$bin/cc-$target"
  # rustc has no libc of its own for tier 3; and no target here may ask for a loader. zig's libc is made for size then, too.
  # SHA-256 and SHA-512 with their rounds as loops are 60 KB smaller.
  export "CARGO_TARGET_${variable^^}_RUSTFLAGS=-Clink-self-contained=no -Clink-arg=-Os -Ctarget-feature=+crt-static \
-Crelocation-model=static --cfg=sha2_backend_soft=\"compact\" $(path_maps --remap-path-prefix)"
}

# Adds flags for rustc to a target's.
add_flags() {
  local variable=${1//-/_}
  variable=CARGO_TARGET_${variable^^}_RUSTFLAGS
  export "$variable=${!variable} $2"
}

# OPTION=FROM=TO for every folder whose path would otherwise be in the program: the same source then gives the same
# bytes, whoever builds it and wherever.
path_maps() {
  local registry
  printf '%s=%s=. ' "$1" "$PWD"
  printf '%s=%s=/std ' "$1" "$sysroot/lib/rustlib/src/rust"
  for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do printf '%s=%s=/crates ' "$1" "$registry"; done
  printf '%s=%s=/target ' "$1" "$CARGO_TARGET_DIR"
}

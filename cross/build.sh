#!/usr/bin/env bash
# Static programs for routers' CPUs, from one machine.
#
#   cross/build.sh [--target TRIPLE]... [--program NAME]... [--out DIR] [--no-default-features] [--setup-only]
#
# Writes DIR/TRIPLE/PROGRAM for every program of the package, or those that are named, DIR/SHA256SUMS and DIR/SIZES.md. Without --target: the six
# below; armv5te-unknown-linux-musleabi, i686-unknown-linux-musl and riscv64gc-unknown-linux-musl on request. DIR is
# target/routers by default.
#
# Two builds of one source with one toolchain are equal, bit for bit, in whatever folders they are made. What it needs and
# where it keeps it: docs/building.md, cross/toolchain.sh. The exit status is 0 if every target was built, 1 if not, 2 for
# arguments that are wrong, 3 if a tool is missing or a registry cannot be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/toolchain.sh

default_targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf
  arm-unknown-linux-musleabi mips-unknown-linux-musl mipsel-unknown-linux-musl)

usage() {
  say "usage: $0 [--target TRIPLE]... [--program NAME]... [--out DIR] [--no-default-features] [--setup-only]"
  exit 2
}

targets=() features=() setup_only=0 out=
while [ $# -gt 0 ]; do
  case $1 in
  --target) targets+=("${2:?--target needs a triple}") && shift ;;
  --program) programs+=("${2:?--program needs a name}") && shift ;;
  --out) out=${2:?--out needs a folder} && shift ;;
  --no-default-features) features+=("$1") ;;
  --setup-only) setup_only=1 ;;
  *) usage ;;
  esac
  shift
done
[ "${#targets[@]}" -gt 0 ] || targets=("${default_targets[@]}")
for program in "${programs[@]}"; do
  case $program in
  calamary | calamary-redirector) ;;
  *) say "$0: unknown program $program" && exit 2 ;;
  esac
done
for target in "${targets[@]}"; do
  grep -q "^$target)" cross/cc.sh || { say "$0: unknown target $target; known are: $(sed -n 's/^\([a-z0-9_-]*\)) cpu=.*/\1/p' cross/cc.sh | xargs)"; exit 2; }
done

# One program of one target: static, cut to what is loaded, and its line of the size table.
finish() {
  local program=$1 target=$2 path=$out/$2/$1
  if readelf -lW "$path" | grep -q INTERP || readelf -dW "$path" | grep -q NEEDED; then
    say "$target/$program is not static"
    return 1
  fi
  python3 cross/sstrip.py "$path"
  printf '| %s | %s | %s | %s |\n' "$target" "$program" "$(stat -c %s "$path")" "$(xz -9c "$path" | wc -c)"
}

# Builds one target and prints its lines of the size table.
build() {
  local target=$1 staged=$CARGO_TARGET_DIR/programs/$1 log=$CARGO_TARGET_DIR/$1.log started=$SECONDS path
  rm -rf "$staged" "${out:?}/$target"
  mkdir -p "$out/$target"
  if ! build_programs "$target" "$staged" "" "${features[@]}" >"$log" 2>&1; then
    say "$target FAILED; the end of $log:"
    tail -n 20 "$log" >&2
    return 1
  fi
  for path in "$staged"/*; do
    cp "$path" "$out/$target/"
    finish "${path##*/}" "$target" || return 1
  done
  say "$target: built in $((SECONDS - started)) s"
}

need_tools readelf:binutils xz:xz-utils sha256sum:coreutils
prepare_toolchain
use_target_folder
out=${out:-${CARGO_TARGET_DIR%/cross}/routers}
fetch_crates "${targets[0]}"
[ "$setup_only" -eq 0 ] || exit 0
mkdir -p "$out"
out=$(cd "$out" && pwd)

# As many targets at a time as there are cores: most of the work is one crate at a program's end, on one of them.
# Jobs in the background do not hear of ^C.
trap 'trap - TERM; kill -TERM 0' INT
sizes=$(mktemp -d)
trap 'rm -rf "$sizes"' EXIT
for target in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
  { build "$target" || touch "$sizes/failed"; } >"$sizes/$target" &
done
wait
{
  printf '%s, zig %s, opt-level z%s.\n\n' "$(rustc --version)" "$zig_version" "${features[*]:+, ${features[*]}}"
  printf '| target | program | bytes | as xz |\n| --- | --- | --- | --- |\n'
  for target in "${targets[@]}"; do cat "$sizes/$target"; done
} >"$out/SIZES.md"
(cd "$out" && find . -mindepth 2 -type f -printf '%P\n' | sort | xargs sha256sum) >"$out/SHA256SUMS"
cat "$out/SIZES.md"
[ ! -e "$sizes/failed" ]

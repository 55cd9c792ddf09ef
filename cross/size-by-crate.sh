#!/usr/bin/env bash
# Whose code a router's program consists of: a table by crate.
#
#   cross/size-by-crate.sh [--target TRIPLE] [--no-default-features]
#
# Builds the programs as cross/build.sh does, but with their symbols, and adds up the symbols' sizes by the crate that
# defines them. What std's generics are compiled to for somebody (a Vec's growth, a map's lookup) therefore counts as std's.
# Constants (strings, tables that have no name of their own) are one line: nothing says who needs them. Needs cross/build.sh's
# tools. The default target is big-endian MIPS, the one with budgets.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/toolchain.sh

target=mips-unknown-linux-musl features=()
while [ $# -gt 0 ]; do
  case $1 in
  --target) target=${2:?--target needs a triple} && shift ;;
  --no-default-features) features+=("$1") ;;
  *) say "usage: $0 [--target TRIPLE] [--no-default-features]" && exit 2 ;;
  esac
  shift
done

need_tools readelf:binutils
prepare_toolchain
use_target_folder
fetch_crates "$target"
staged=$CARGO_TARGET_DIR/programs/$target-with-symbols
rm -rf "$staged"
# In this mangling, every symbol begins with the crate that defines it. zig takes symbols away unless it is asked for them.
CARGO_PROFILE_ROUTER_STRIP=none build_programs "$target" "$staged" "-Csymbol-mangling-version=v0 -Clink-arg=-g" "${features[@]}" >&2
for program in "$staged"/*; do
  printf '%s, %s%s:\n\n' "${program##*/}" "$target" "${features[*]:+, ${features[*]}}"
  { readelf -SW "$program" && readelf -sW "$program"; } | python3 cross/size-by-crate.py
done

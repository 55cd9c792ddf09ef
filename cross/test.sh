#!/usr/bin/env bash
# The library's unit tests on another CPU, under qemu-user: 32 bits and big-endian are where parsers go wrong unseen.
#
#   cross/test.sh [--target TRIPLE] [FILTER]...
#
# The default target is big-endian MIPS. Filters are the test runner's: parts of tests' names, of which one must fit.
# Needs what cross/build.sh needs, and qemu-user. The exit status is 0 if all passed, 3 if a tool or a registry is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/toolchain.sh

target=mips-unknown-linux-musl filters=()
while [ $# -gt 0 ]; do
  case $1 in
  --target) target=${2:?--target needs a triple} && shift ;;
  -*) say "usage: $0 [--target TRIPLE] [FILTER]..." && exit 2 ;;
  *) filters+=("$1") ;;
  esac
  shift
done

case $target in
mips-*) emulator=(qemu-mips -cpu 24Kc) ;;
mipsel-*) emulator=(qemu-mipsel -cpu 24Kc) ;;
armv7-*) emulator=(qemu-arm -cpu cortex-a7) ;;
arm-*) emulator=(qemu-arm -cpu arm1136) ;;
armv5te-*) emulator=(qemu-arm -cpu arm926) ;;
aarch64-*) emulator=(qemu-aarch64 -cpu cortex-a53) ;;
riscv64gc-*) emulator=(qemu-riscv64) ;;
x86_64-*) emulator=(qemu-x86_64) ;;
*) say "$0: unknown target $target" && exit 2 ;;
esac

need_tools "${emulator[0]}:qemu-user"
prepare_toolchain
use_target_folder
fetch_crates "$target"
aim_at "$target"
variable=${target//-/_}
# The second is for tests that run their program again.
export "CARGO_TARGET_${variable^^}_RUNNER=${emulator[*]}" CALAMARY_TEST_RUNNER="${emulator[*]}"
# A test may expect a panic, so these unwind, other than the programs.
cargo test --offline --locked --lib --profile emulated --target "$target" -Zbuild-std=std,panic_unwind,test \
  -- "${filters[@]}"

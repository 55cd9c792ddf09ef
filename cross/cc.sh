#!/usr/bin/env bash
# zig's C compiler and linker for the target in this program's name, cc-TRIPLE; $ZIG is where zig is.
#
# The CPU is decided here alone. rustc and cc-rs also pass their ideas of it, which zig either does not know or takes for a
# different ABI, so they are dropped.
set -euo pipefail

target=${0##*/cc-}
case $target in
x86_64-unknown-linux-musl) cpu=(-target x86_64-linux-musl) ;;
i686-unknown-linux-musl) cpu=(-target x86-linux-musl -mcpu=pentium4) ;;
aarch64-unknown-linux-musl) cpu=(-target aarch64-linux-musl) ;;
armv7-unknown-linux-musleabihf) cpu=(-target arm-linux-musleabihf -mcpu=generic+v7a+vfp3-d32+thumb2-neon) ;;
arm-unknown-linux-musleabi) cpu=(-target arm-linux-musleabi -mcpu=arm1136j_s+strict_align) ;;
armv5te-unknown-linux-musleabi) cpu=(-target arm-linux-musleabi -mcpu=arm926ej_s+soft_float+strict_align) ;;
mips-unknown-linux-musl) cpu=(-target mips-linux-musleabi -mcpu=mips32r2+soft_float) ;;
mipsel-unknown-linux-musl) cpu=(-target mipsel-linux-musleabi -mcpu=mips32r2+soft_float) ;;
riscv64gc-unknown-linux-musl) cpu=(-target riscv64-linux-musl) ;;
*)
  echo "$0: no CPU is known for $target; cross/cc.sh lists them" >&2
  exit 1
  ;;
esac

arguments=()
for argument in "$@"; do
  case $argument in
  --target=* | -march=* | -mcpu=* | -mabi=* | -mfloat-abi=* | -mfpu=* | -mips32* | -msoft-float | -m64 | -m32 | -Wl,-melf_i386) ;;
  *) arguments+=("$argument") ;;
  esac
done
exec "$ZIG" cc "${cpu[@]}" "${arguments[@]}"

#!/usr/bin/env bash
# Whether the programs are as small as a router needs them; measured on big-endian MIPS, where code is largest.
#
#   cross/budgets.sh DIR MINIMAL
#
# DIR is what cross/build.sh wrote, MINIMAL the same with --no-default-features. The exit status is 1 if a program is over
# its budget or not there.
set -euo pipefail

target=mips-unknown-linux-musl
[ $# -eq 2 ] || { echo "usage: $0 DIR MINIMAL" >&2; exit 2; }
full=$1 minimal=$2
over=0

# Arguments: the program's path, its budget in bytes, its budget in bytes as xz.
hold() {
  local path=$1 bytes packed verdict=ok
  if [ ! -f "$path" ]; then echo "$path is not there" && over=1 && return; fi
  bytes=$(stat -c %s "$path")
  packed=$(xz -9c "$path" | wc -c)
  if [ "$bytes" -gt "$2" ] || [ "$packed" -gt "$3" ]; then verdict='OVER BUDGET' over=1; fi
  printf '%-60s %9d of %9d bytes, %7d of %7d as xz: %s\n' "$path" "$bytes" "$2" "$packed" "$3" "$verdict"
}

hold "$full/$target/calamary" 2000000 700000
hold "$minimal/$target/calamary" 800000 300000
# One row for every program: a new one without a budget would grow unseen.
for path in "$full/$target"/*; do
  case ${path##*/} in
  calamary) ;;
  calamary-redirector) hold "$path" 400000 150000 ;;
  *) echo "$path has no budget in $0" && over=1 ;;
  esac
done
exit "$over"

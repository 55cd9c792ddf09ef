#!/usr/bin/env bash
# Fuzzes the parsers and state machines: tests/fuzz.sh [--seconds N] [--jobs N] [--seed N] [--list] [TARGET…]
#
# Builds every target once with the stable toolchain and runs each for N seconds (default 30), as many at a time as
# there are cores. Exit 0 if nothing was found; otherwise it says how to see each finding again. Without --seed a fresh
# tree is searched the same way each time, so that a gate does not close by luck: who looks for something new gives
# another one. Needs a C++ compiler; neither a nightly toolchain nor cargo-fuzz. See fuzz/README.md.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
seconds=30
seed=1
jobs=$(nproc 2>/dev/null || echo 2)
rss_limit_mb=1024
# Of one input, by the clock on the wall. The slowest ones take some milliseconds; a busy machine may stall longer.
timeout_seconds=60

usage() {
    sed -n '2s/^# //p' "$0"
    exit "$1"
}

targets=()
while (($#)); do
    case $1 in
    --seconds) seconds=${2:?$1 needs a number} && shift 2 ;;
    --jobs) jobs=${2:?$1 needs a number} && shift 2 ;;
    --seed) seed=${2:?$1 needs a number} && shift 2 ;;
    --list) sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' "$root/fuzz/Cargo.toml" && exit 0 ;;
    -h | --help) usage 0 ;;
    -*) usage 2 >&2 ;;
    *) targets+=("$1") && shift ;;
    esac
done
((${#targets[@]})) || mapfile -t targets < <("$0" --list)

# Largest input: what a target can make use of, and no more, as libFuzzer is fastest with small ones.
max_len() {
    case $1 in
    authority | why_facts) echo 512 ;;
    chunked_body | proxy_protocol | socks5 | dns_message | dns_strip | names | list_file | decide | resolver) echo 1024 ;;
    *) echo 4096 ;;
    esac
}

out=${CARGO_TARGET_DIR:-$root/target}
[[ $out == /* ]] || out=$root/$out
out=$out/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# What `cargo fuzz` passes, without the sanitizers that only a nightly compiler has. With --target, build scripts and
# procedural macros are spared.
coverage=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0
    --cfg fuzzing
)
build=(cargo build --quiet --release --manifest-path "$root/fuzz/Cargo.toml" --target "$host" --target-dir "$out")
for target in "${targets[@]}"; do
    [[ -f $root/fuzz/fuzz_targets/$target.rs ]] || { echo "no such target: $target" >&2 && exit 2; }
    build+=(--bin "$target")
done
RUSTFLAGS="${coverage[*]}" "${build[@]}"
binaries=$out/$host/release

# Seeds: small ones are committed, the others come from the tests' vectors, which are hex.
seed_corpus() {
    local target=$1 into=$2 file flow line
    if [[ -d $root/fuzz/seeds/$target ]]; then
        cp "$root/fuzz/seeds/$target"/* "$into"
    fi
    case $target in
    client_hello | identify | quic_initial)
        for file in "$root"/tests/vectors/tls/*.hex; do
            # shellcheck disable=SC2059 # The format is the data.
            printf "$(tr -d '[:space:]' <"$file" | sed 's/../\\x&/g')" >"$into/$(basename "$file" .hex)"
        done
        ;;
    datagram)
        # One in a line; the target reads each behind its length.
        for file in "$root"/tests/vectors/quic/*.hex; do
            flow=$into/$(basename "$file" .hex)
            while read -r line; do
                # shellcheck disable=SC2059
                printf "$(printf '%04x%s' $((${#line} / 2)) "$line" | sed 's/../\\x&/g')"
            done <"$file" >"$flow"
        done
        ;;
    dns_strip)
        # The first line is the message before.
        for file in "$root"/tests/vectors/dns/*.hex; do
            # shellcheck disable=SC2059
            printf "$(head -n 1 "$file" | sed 's/../\\x&/g')" >"$into/$(basename "$file" .hex)"
        done
        ;;
    config) cp "$root/src/config/default.yml" "$root/fuzz/fuzz_targets"/*.yml "$into" ;;
    esac
}

run() {
    local target=$1 dir=$out/run/$1 status=0
    mkdir -p "$dir/corpus" "$dir/seeds" "$dir/findings"
    rm -f "$dir/seeds"/* "$dir/findings"/*
    seed_corpus "$target" "$dir/seeds"
    local options=(
        -seed="$seed" -max_total_time="$seconds" -max_len="$(max_len "$target")" -timeout="$timeout_seconds"
        -rss_limit_mb="$rss_limit_mb" -artifact_prefix="$dir/findings/" -print_final_stats=1
    )
    # A dictionary says in its first line whom it helps; libFuzzer takes one file.
    local dict
    for dict in "$root"/fuzz/dicts/*.dict; do
        if head -n 1 "$dict" | grep -qw "$target"; then
            cat "$dict"
        fi
    done >"$dir/dict"
    [[ ! -s $dir/dict ]] || options+=(-dict="$dir/dict")
    "$binaries/$target" "${options[@]}" "$dir/corpus" "$dir/seeds" >"$dir/log" 2>&1 || status=$?

    local executions coverage
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/log")
    # There is none if a seed fails already.
    coverage=$(grep -o 'cov: [0-9]*' "$dir/log" | tail -n 1) || coverage=
    if ((status == 0)); then
        printf '%-15s ok      %10s executions  %s\n' "$target" "${executions:-?}" "${coverage:-cov: ?}"
        return 0
    fi
    printf '%-15s FAILED  %10s executions  %s\n' "$target" "${executions:-?}" "${coverage:-cov: ?}"
    grep -m 1 -A 3 -E 'panicked at|ERROR: libFuzzer|SUMMARY' "$dir/log" | sed 's/^/    /' || tail -n 5 "$dir/log"
    local finding
    for finding in "$dir/findings"/*; do
        [[ -e $finding ]] && printf '    again: %q %q\n' "$binaries/$target" "$finding"
    done
    printf '    log:   %q\n' "$dir/log"
    return 1
}

# Every run is waited for, whatever the others find.
status=0
running=0
for target in "${targets[@]}"; do
    if ((running >= jobs)); then
        wait -n || status=1
        running=$((running - 1))
    fi
    run "$target" &
    running=$((running + 1))
done
while ((running > 0)); do
    wait -n || status=1
    running=$((running - 1))
done
exit "$status"

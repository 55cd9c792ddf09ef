#!/usr/bin/env bash
# Everything that must hold before a change is taken: format, lints, documentation, scripts, fuzz smoke, then all tests.
#
# Works on a fresh Debian 12 with a Rust toolchain. As root, what the tests need is installed and the tests in network
# namespaces run; otherwise they are skipped, loudly. CALAMARY_REQUIRE_NETNS=1 makes a skipped test a failure, and a
# program that is missing, too. The exit status is 0 only if nothing failed; the test runner's own summary is the last
# thing printed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

# program:package
needs=(promtool:prometheus ip:iproute2 nft:nftables unshare:util-linux curl:curl openssl:openssl nginx:nginx chromium:chromium certutil:libnss3-tools cc:gcc
  c++:g++ git:git shellcheck:shellcheck man:man-db script:bsdutils haproxy:haproxy keepalived:keepalived iptables:iptables setcap:libcap2-bin
  systemd-analyze:systemd nc.openbsd:netcat-openbsd python3:python3 readelf:binutils xz:xz-utils
  qemu-mips:qemu-user busybox:busybox dig:bind9-dnsutils)

missing_packages() {
  local need
  for need in "${needs[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${need%%:*}" >/dev/null || printf '%s\n' "${need##*:}"
  done
  # PySocks is a module of the system's own Python, not a program.
  /usr/bin/python3 -c 'import socks' 2>/dev/null || printf 'python3-socks\n'
  python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
}

install_missing() {
  local packages
  mapfile -t packages < <(missing_packages)
  [ "${#packages[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || true
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null || true
  fi
  for package in $(missing_packages); do
    echo "missing: $package (Debian package); what needs it is skipped"
    [ "${CALAMARY_REQUIRE_NETNS:-0}" != 1 ] || failed=1
  done
}

failed=0

# Runs one step, quietly when it passes. A failure is remembered, so that one run shows them all.
step() {
  local name=$1 log started=$SECONDS
  shift
  log=$(mktemp)
  printf '%-44s' "$name"
  if "$@" >"$log" 2>&1; then
    echo "ok ($((SECONDS - started)) s)"
    grep -a '^SKIPPED' "$log" || true
    rm -f "$log"
  else
    echo FAILED
    cat "$log"
    rm -f "$log"
    failed=1
  fi
}

# shellcheck disable=SC2317 # called through step
check_scripts() {
  # Those for a router's shell are told by their first line.
  { git ls-files --cached --others --exclude-standard | grep -E '\.sh$|^\.ci/run$' &&
    git grep --untracked -l '^#!/bin/sh' -- openwrt ':!*Makefile'; } | sort -u | xargs -r shellcheck
}

# shellcheck disable=SC2317 # called through step
check_man_page() {
  local warnings
  warnings=$(LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l docs/calamary.8 docs/calamary-redirector.8 2>&1 >/dev/null)
  [ -z "$warnings" ] || { echo "$warnings"; return 1; }
}

# What to build for routers: all that is supported where a dependency or the build itself may be another one, and on
# Mondays, when the registries may have changed; otherwise the four CPUs that differ most.
router_targets() {
  local base triple
  base=$(git merge-base HEAD origin/main 2>/dev/null) || base=
  if [ -z "$base" ] || [ "$base" = "$(git rev-parse HEAD)" ]; then base=HEAD^; fi
  if [ "$(date +%u)" = 1 ] || ! git diff --quiet "$base" -- Cargo.lock cross 2>/dev/null; then return; fi
  for triple in mips-unknown-linux-musl mipsel-unknown-linux-musl armv7-unknown-linux-musleabihf aarch64-unknown-linux-musl
  do
    printf '%s\n' --target "$triple"
  done
}

# Builds the programs for routers, holds them against their budgets, and leaves them for tests/router_builds.rs.
router_builds() {
  local targets routers=${CARGO_TARGET_DIR:-target}/routers
  if ! cross/build.sh --setup-only; then
    echo 'SKIPPED: nothing can be built for routers here'
    [ "${CALAMARY_REQUIRE_NETNS:-0}" != 1 ] || failed=1
    return
  fi
  mapfile -t targets < <(router_targets)
  step 'programs' cross/build.sh "${targets[@]}" --out "$routers"
  step 'programs, no default features' cross/build.sh --target mips-unknown-linux-musl --program calamary \
    --no-default-features --out "$routers-minimal"
  step 'size budgets' cross/budgets.sh "$routers" "$routers-minimal"
  step 'unit tests on big-endian MIPS' cross/test.sh
  CALAMARY_ROUTER_BUILDS=$(cd "$routers" && pwd)
  export CALAMARY_ROUTER_BUILDS
}

# aioquic is in no package of Debian 12: a Python of its own has it, for tests/quic_clients.rs.
install_aioquic() {
  local venv=${CARGO_TARGET_DIR:-target}/aioquic
  if ! "$venv/bin/python" -c 'import aioquic' 2>/dev/null; then
    say 'installing aioquic'
    if python3 -m venv "$venv"; then "$venv/bin/pip" install -q aioquic==1.7.2 || true; fi
  fi
  if "$venv/bin/python" -c 'import aioquic' 2>/dev/null; then
    CALAMARY_AIOQUIC=$(cd "$venv" && pwd)/bin/python
    export CALAMARY_AIOQUIC
  else
    echo 'missing: aioquic (PyPI); what needs it is skipped'
    [ "${CALAMARY_REQUIRE_NETNS:-0}" != 1 ] || failed=1
  fi
}

export PATH="$PATH:/usr/sbin:/sbin"
install_missing
install_aioquic

if cargo fetch --locked >/dev/null 2>&1; then offline=(--locked); else offline=(--locked --offline); fi

say 'lints'
step 'format' cargo fmt --check
step 'clippy' cargo clippy "${offline[@]}" --all-targets -- -D warnings
step 'clippy, no default features' cargo clippy "${offline[@]}" --all-targets --no-default-features -- -D warnings
step 'documentation' env RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc "${offline[@]}" --no-deps --document-private-items
if command -v shellcheck >/dev/null; then step 'shell scripts' check_scripts; fi
if command -v man >/dev/null; then step 'manual page' check_man_page; fi
if [ -x tests/fuzz.sh ]; then
  say 'fuzz smoke: the build, then every target for 30 seconds'
  tests/fuzz.sh || failed=1
fi

say 'router builds'
router_builds

say 'tests'
step 'unit tests, no default features' cargo test "${offline[@]}" --lib --no-default-features
if [ "$failed" -ne 0 ]; then echo 'something above FAILED: this run will not pass, whatever the tests say'; fi
cargo test "${offline[@]}" --no-fail-fast || failed=1
exit "$failed"

#!/usr/bin/env bash
# Every check of the project, by name:  ./ci.sh [JOB ...]   (no name: all of them, in this order)
#
#   fmt       formatting
#   test      README's test command: every crate, every doc example
#   lint      clippy over everything, warnings are errors
#   structure the rules that no compiler checks: dependencies, rooms for unsafe code, atomics, file sizes
#   features  each crate with no features and with all of them
#   msrv      the workspace with the oldest Rust that it promises
#   nostd     the no_std crates linked without libc and without an allocator, and run; and built for targets without an
#             operating system
#   stack     how much stack the codecs take
#   loom      the models of every atomic protocol
#   docs      rustdoc, warnings are errors
#   examples  every example, with its own checks
#   bench     every bench in smoke mode, and the instruction counts of the gate, the hot paths and the harness against
#             their limits
#   fuzz      every fuzz target, built and run for a few seconds (FUZZ_SECONDS, default 5)
#   module    pnode.ko built and booted in a stock kernel, with its self-test
#
# By name only, for they take long:
#
#   weaken    every memory order taken away in turn: the models must notice
#   mutants   every line of core, buddy and compress changed in turn: the tests must notice (MUTANTS_SHARD=3/20 for a sample,
#             MUTANTS_CRATES for some crates)
#   soak      a machine under everything at once, 30 minutes in all (PNODE_SOAK_SECONDS for each of six parts)
#   package   every crate packed and built from its package
#   tsan      memory that changes owners through the allocator, under ThreadSanitizer
#   aarch64   the harness and its tests on an emulated 64-bit ARM processor
#   miri      the tests of core and buddy under Miri, with strict provenance, and their threads on many seeds (MIRI_SEEDS=0..4)
#   semver    what the public interfaces lost or changed since the last release (or PNODE_BASELINE=COMMIT)
#   debug     the module's tests on a kernel with KASAN, lockdep and kmemleak, which is built first
#   style     the C half of the module read by checkpatch, sparse and the compiler with W=1
#
# A job that needs what this machine does not have says SKIPPED and why, and does not fail.
set -uo pipefail
cd "$(dirname "$0")"

JOBS=(fmt structure test lint features msrv nostd stack loom docs examples bench fuzz module)
ON_DEMAND=(weaken mutants soak package tsan miri aarch64 semver style debug)
FUZZ_SECONDS=${FUZZ_SECONDS:-5}
LOOM_CRATES=(pnode-core pnode-buddy pnode-compress)
NO_STD_CRATES=(pnode-core pnode-buddy pnode-compress pnode-kernel)

skipped() { echo "SKIPPED: $*"; SKIP=1; }

# Asks apt for the packages of commands that are missing; says so if it cannot.
need() { # command package ...
  command -v "$1" >/dev/null && return 0
  local command=$1
  shift
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null 2>&1
  fi
  command -v "$command" >/dev/null || { skipped "no $command on this machine (package $*)"; return 1; }
}

job_fmt() { cargo fmt --all --check; }

job_structure() { tests/structure; }

# The soak takes 10 s on each fault backend here, half of them with little memory; plain `cargo test` gives it 3 s in all.
job_test() { PNODE_SOAK_SECONDS=${PNODE_SOAK_SECONDS:-5} cargo test --quiet; }

job_lint() { cargo clippy --quiet --workspace --all-targets --all-features && cargo clippy --quiet --workspace --all-targets; }

job_features() {
  local crate
  for crate in "${NO_STD_CRATES[@]}" pnode-user pnode; do
    cargo check --quiet -p "$crate" --no-default-features && cargo check --quiet -p "$crate" --all-features || return 1
  done
  cargo test --quiet --workspace --all-features --lib
}

job_nostd() {
  local profile
  for profile in dev release; do
    cargo run --quiet --manifest-path tests/nostd-proof/Cargo.toml --profile "$profile" || return 1
  done
  # Targets that have nothing but `core`. The atomics are of 64 bits, so processors without those are none of them.
  local target crate
  for target in x86_64-unknown-none aarch64-unknown-none; do
    if ! timeout 60 rustup target add "$target" >/dev/null 2>&1; then
      echo "nostd for $target: SKIPPED, its core library is not to be had here"
      continue
    fi
    for crate in "${NO_STD_CRATES[@]}"; do
      cargo check --quiet -p "$crate" --target "$target" || return 1
    done
    echo "nostd for $target: ok"
  done
}

job_loom() {
  local crate
  for crate in "${LOOM_CRATES[@]}"; do
    RUSTFLAGS="--cfg loom" cargo test --quiet --release -p "$crate" --features loom --test loom --target-dir target/loom || return 1
  done
}

job_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --all-features --no-deps; }

job_examples() {
  local file name log=target/example.log
  cargo build --quiet --release --examples || return 1
  for file in examples/*.rs examples/*/main.rs; do
    [ -e "$file" ] || continue
    name=$(basename "${file%/main.rs}" .rs)
    if "target/release/examples/$name" </dev/null >"$log" 2>&1; then
      echo "example $name: ok, $(wc -l <"$log") lines"
    else
      echo "example $name: exit $?"
      tail -40 "$log"
      return 1
    fi
    "target/release/examples/$name" --help >"$log" || { echo "example $name: no --help"; return 1; }
    grep -q -e '--machine FILE' "$log" || continue
    if ! "target/release/examples/$name" --machine examples/machines/two_sockets.machine </dev/null >"$log" 2>&1; then
      echo "example $name --machine: failed"
      tail -40 "$log"
      return 1
    fi
  done
  # What is recorded can be replayed, and a damaged trace is refused.
  local trace=target/example.trace
  target/release/examples/trace_replay --frames 4096 --events 20000 --record "$trace" >/dev/null &&
    target/release/examples/trace_replay --replay "$trace" --svg target/example.svg >"$log" 2>&1 || { tail "$log"; return 1; }
  echo "-0" >>"$trace"
  if target/release/examples/trace_replay --replay "$trace" >"$log" 2>&1; then echo "trace_replay took a damaged trace"; return 1; fi
  # What happened is written down, and a table has the fields that programs read.
  target/release/examples/far_tier --trace target/example.csv >"$log" && head -1 target/example.csv | grep -q '^number,what,node,pfn,' ||
    { tail "$log"; return 1; }
  # One policy alone, and one that the owner of the node did not consent to.
  target/release/examples/mempolicy --membind cxl --pages 100 --move gpu --show >"$log" || { tail "$log"; return 1; }
  if target/release/examples/mempolicy --membind card >"$log" 2>&1; then echo "mempolicy bound to a closed node"; return 1; fi
  # A check that cannot fail is none: each mistake that the example can build must show as a leak.
  target/release/examples/isolation --every-door | tail -1
  return "${PIPESTATUS[0]}"
}

job_bench() {
  cargo bench --quiet -- --test || return 1
  # Instruction counts do not depend on the load, so their limits are checked here.
  need valgrind valgrind || return 0
  cargo bench --quiet --bench gate && cargo bench --quiet --bench hot && cargo bench --quiet --bench harness
}

job_fuzz() {
  cargo +nightly --version >/dev/null 2>&1 || { skipped "no nightly compiler, which libFuzzer's flags need"; return 0; }
  need c++ g++ || return 0
  cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz || { skipped "cargo-fuzz cannot be installed"; return 0; }
  local target log=target/fuzz.log seeds dictionary
  cargo +nightly fuzz build || return 1
  # The decoder starts from the objects that pin the formats: the tag, the size of a page, the bytes.
  mkdir -p fuzz/corpus/codec_decode
  local kind number tag bytes
  while read -r kind number tag bytes; do
    printf "$(sed 's/../\\x&/g' <<<"${tag}00$bytes")" >"fuzz/corpus/codec_decode/golden-$kind-$number"
  done <crates/pnode-compress/tests/golden/objects.txt
  for target in $(cargo +nightly fuzz list); do
    # What a target starts from, and the words that its inputs are made of, where somebody wrote them down.
    seeds=() dictionary=()
    [ -d "fuzz/seeds/$target" ] && mkdir -p "fuzz/corpus/$target" && seeds=("fuzz/corpus/$target" "fuzz/seeds/$target")
    [ -f "fuzz/seeds/$target.dict" ] && dictionary=("-dict=fuzz/seeds/$target.dict")
    if cargo +nightly fuzz run "$target" "${seeds[@]}" -- "${dictionary[@]}" -max_total_time="$FUZZ_SECONDS" -timeout=30 -rss_limit_mb=4096 >"$log" 2>&1; then
      echo "fuzz $target: $(grep -o 'stat::number_of_executed_units: *[0-9]*\|Done [0-9]* runs.*' "$log" | tail -1)"
    else
      echo "fuzz $target failed"
      tail -60 "$log"
      return 1
    fi
  done
}

job_weaken() { cargo run --quiet --release --manifest-path tests/weaken/Cargo.toml; }

job_mutants() {
  cargo mutants --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-mutants || { skipped "cargo-mutants cannot be installed"; return 0; }
  local crate output
  mkdir -p target/mutants
  for crate in ${MUTANTS_CRATES:-"${LOOM_CRATES[@]}"}; do
    output=target/mutants/$crate
    # Debug assertions stay; a little optimisation saves more than it costs.
    CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 nice -n 19 cargo mutants --package "$crate" --test-workspace false --all-features \
      ${MUTANTS_SHARD:+--shard "$MUTANTS_SHARD" --sharding round-robin} --timeout 45 --jobs 1 --output "$output" -- --lib --tests
    # 2 and 3: some were missed, some never ended. Whether that is explained, the score says.
    case $? in 0 | 2 | 3) tests/mutants/score "$output" || return 1 ;; *) return 1 ;; esac
  done
}

# The test divides itself into six parts: three backends, with and without room.
job_soak() { PNODE_SOAK_SECONDS=${PNODE_SOAK_SECONDS:-300} cargo test --quiet --release -p pnode-user --test soak; }

# With the sources of the standard library it is instrumented, too. Without, only tests that synchronise by nothing of it can be
# judged, which is why `handover` has nothing but the allocator between its threads.
job_tsan() {
  local target=x86_64-unknown-linux-gnu
  [[ $(rustc -vV) == *"host: $target"* ]] || { skipped "only tried on $target"; return 0; }
  cargo +nightly --version >/dev/null 2>&1 || { skipped "no nightly compiler, which the sanitizer needs"; return 0; }
  if [ -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]; then
    RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test --quiet -Zbuild-std --release --target "$target" --target-dir target/tsan-std \
      -p pnode-buddy --test handover
    return
  fi
  RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" TSAN_OPTIONS="suppressions=$PWD/tests/tsan-suppressions.txt" \
    cargo +nightly test --quiet --release --target "$target" --target-dir target/tsan -p pnode-buddy --test handover -- --test-threads=1
}

# Every 64-bit page fault is another signal frame, so the harness runs on the second architecture too: on an emulated processor.
job_aarch64() {
  local target=aarch64-unknown-linux-gnu
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
  rustup target add "$target" >/dev/null 2>&1 || { skipped "no standard library for $target"; return 0; }
  need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross && need qemu-aarch64 qemu-user || return 0
  cargo clippy --quiet -p pnode-user --target "$target" --all-targets &&
    # Limits of a process would be those of its emulator.
    cargo test --quiet -p pnode-user --target "$target" --lib --tests -- --skip few_descriptors_little_address_space
}

# Tests of pnode-buddy that fill large zones are left out: they take too long there. Worlds that tests leak on purpose are no finding,
# and the environment names cases and seeds, which isolation would hide.
job_miri() {
  cargo +nightly miri --version >/dev/null 2>&1 || { skipped "no Miri on this machine (rustup component add miri --toolchain nightly)"; return 0; }
  local flags="-Zmiri-strict-provenance -Zmiri-ignore-leaks -Zmiri-disable-isolation"
  PROPTEST_CASES=4 MIRIFLAGS=$flags cargo +nightly miri test --quiet -p pnode-core --all-features --lib --tests &&
    MIRIFLAGS=$flags cargo +nightly miri test --quiet -p pnode-buddy --test edges &&
    MIRIFLAGS="$flags -Zmiri-many-seeds=${MIRI_SEEDS:-0..4}" cargo +nightly miri test --quiet -p pnode-core --test registry -- zones_change_hands &&
    MIRIFLAGS="$flags -Zmiri-many-seeds=${MIRI_SEEDS:-0..4}" cargo +nightly miri test --quiet -p pnode-buddy --test handover -- in_one_area &&
    MIRIFLAGS=$flags cargo +nightly miri test --quiet -p pnode-compress --test codec_hostile --test codec_roundtrip &&
    MIRIFLAGS=$flags cargo +nightly miri test --quiet -p pnode-compress --test store_shared -- threads_that
}

job_semver() {
  local baseline=${PNODE_BASELINE:-$(git describe --tags --match 'v*' --abbrev=0 2>/dev/null)}
  [ -n "$baseline" ] || { skipped "no release to compare with; PNODE_BASELINE=COMMIT names another baseline"; return 0; }
  cargo semver-checks --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-semver-checks || { skipped "cargo-semver-checks cannot be installed"; return 0; }
  local crate
  for crate in "${NO_STD_CRATES[@]}" pnode-user pnode; do
    cargo semver-checks --package "$crate" --baseline-rev "$baseline" || return 1
  done
}

job_package() { cargo package --quiet --workspace --allow-dirty; }

# Runs a script that exits with 77 where it lacks something.
or_skipped() {
  "$@"
  local status=$?
  if [ $status = 77 ]; then skipped "see the line above"; return 0; fi
  return $status
}

job_stack() { or_skipped tests/stack; }

job_msrv() { or_skipped tests/msrv; }

job_module() { or_skipped crates/pnode-kernel/module/selftest ivshmem small soft; }

job_debug() { or_skipped crates/pnode-kernel/module/selftest debug ivshmem; }

job_style() { or_skipped crates/pnode-kernel/module/style; }

[ $# -gt 0 ] || set -- "${JOBS[@]}"
mkdir -p target
failed=() summary=()
for job in "$@"; do
  case " ${JOBS[*]} ${ON_DEMAND[*]} " in *" $job "*) ;; *) echo "no job called $job; there are: ${JOBS[*]} ${ON_DEMAND[*]}" >&2; exit 2 ;; esac
  echo "== $job"
  SKIP=
  start=$SECONDS
  if "job_$job"; then result=${SKIP:+SKIPPED}; result=${result:-ok}; else result=FAILED; failed+=("$job"); fi
  summary+=("$(printf '%-9s %-8s %4d s' "$job" "$result" $((SECONDS - start)))")
  echo "== ${summary[-1]}"
done
echo; printf '%s\n' "${summary[@]}"
echo "$(($# - ${#failed[@]})) passed, ${#failed[@]} failed"
[ ${#failed[@]} = 0 ]

#!/bin/sh
# Instructions and locked operations an operation, counted by callgrind: the difference of a long and a short run, so
# that preparing does not count, in a zone of 1 GiB. Exact, whatever else the machine does. Needs valgrind.
set -eu
cd "$(dirname "$0")"
cargo build --release --quiet
out=$(mktemp)
trap 'rm -f "$out"' EXIT
count() {
    valgrind --tool=callgrind --callgrind-out-file="$out" --collect-bus=yes \
        ./target/release/pnode-bench-frames --count "$1" "$2" "$3" 2>&1 | awk '/Collected/ { print $4, $5 }'
}
printf '%-26s %-14s %14s %8s\n' allocator work instructions locked
for work in "o0 alloc" "o0 free rnd" "o0 pair" "o9 pair" "mix geo 90%"; do
    for peer in "harness only" "pnode cached" "pnode core" "pnode Zone" "frame-alloc SummaryBuddy" "frame-alloc Depot"; do
        echo "$(count "$peer" "$work" 20000) $(count "$peer" "$work" 200000)" |
            awk -v peer="$peer" -v work="$work" \
                '{ printf "%-26s %-14s %14.1f %8.3f\n", peer, work, ($3 - $1) / 180000, ($4 - $2) / 180000 }'
    done
done

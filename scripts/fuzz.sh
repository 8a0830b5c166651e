#!/bin/bash
# Runs one libFuzzer target of build/asan for some seconds. Usage: fuzz.sh TARGET SECONDS
#
# Seeds are read from tests/data/fuzz/TARGET where it exists; what is found stays in build/asan/corpus/TARGET, so later
# runs start where this one ended. A failing input is written to build/asan and named in the output.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${1:?usage: fuzz.sh TARGET SECONDS}
corpus=build/asan/corpus/$target
mkdir -p "$corpus"
folders=("$corpus")
[[ -d tests/data/fuzz/$target ]] && folders+=("tests/data/fuzz/$target")
exec "build/asan/$target" -max_total_time="${2:?}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
  -artifact_prefix="build/asan/$target-" "${folders[@]}"

#!/bin/bash
# Everything that needs a CUDA device, as one command: its tests, then for each model the same answer wherever the
# layers run, then tokens per second. Needs the cuda preset's build, whole or only its programs beside each other.
#   bench/cuda.sh BUILD MODEL...
set -euo pipefail
build=${1:?usage: bench/cuda.sh BUILD MODEL...}; shift

for tests in "$build/plumb_cuda_test --gtest_filter=*OnDevice*" \
             "$build/plumb_engine_test --gtest_filter=OnDevice*"; do
  echo "== $tests"
  $tests | grep -E '^\[  (PASSED|FAILED|SKIPPED)|Failure|different' || { echo "failed: $tests"; exit 1; }
done
for model in "$@"; do
  echo "== $model: logits and answers by layers on the device"
  layers=$("$build/plumb" inspect -m "$model" | grep -o '[0-9]* layers' | head -n 1 | cut -d ' ' -f 1)
  for ngl in 0 1 $((layers / 2)) $((layers - 1)) "$layers"; do
    answer=$("$build/plumb" run -m "$model" --backend cuda -ngl "$ngl" -p 'The capital of France is' -n 32 --temp 0 2>/dev/null)
    logits=$("$build/plumb" logits -m "$model" --backend cuda -ngl "$ngl" -p 'The capital of France is' 2>/dev/null | sha256sum)
    echo "-ngl $ngl: answer $(sha256sum <<<"$answer" | cut -c 1-12), logits ${logits:0:12}"
  done
  echo "$answer" | head -n 3
  for ngl in -1 $((layers / 2)); do "$build/plumb" bench -m "$model" --backend cuda -ngl "$ngl" -p 512 -n 128 -r 3; done
done

#!/bin/bash
# Everything that needs a CUDA device, as one command: its tests, then for each model the same answer wherever the
# layers run, then tokens per second, with --act f16 first. Needs the cuda preset's build, whole or only its programs
# beside each other.
# Where there are two devices, -sm tensor takes both, else the first twice.
#   bench/cuda.sh BUILD MODEL...
set -euo pipefail
build=${1:?usage: bench/cuda.sh BUILD MODEL...}; shift
devices=0,0; [[ $(nvidia-smi -L | wc -l) == 1 ]] || devices=0,1
scratch=$(mktemp -d); trap 'rm -r "$scratch"' EXIT

for tests in "$build/plumb_cuda_test --gtest_filter=*OnDevice*" \
             "$build/plumb_engine_test --gtest_filter=OnDevice*"; do
  echo "== $tests"
  $tests | grep -E '^\[  (PASSED|FAILED|SKIPPED)|Failure|different' || { echo "failed: $tests"; exit 1; }
done
for model in "$@"; do
  echo "== $model: logits and answers by layers on the device"
  layers=$("$build/plumb" inspect "$model" | sed -n 's/.*\.block_count .* //p')
  for ngl in 0 1 $((layers / 2)) $((layers - 1)) "$layers"; do
    cuda=(-m "$model" --backend cuda -ngl "$ngl" -p 'The capital of France is')
    answer=$("$build/plumb" run "${cuda[@]}" -n 32 --temp 0 -q)
    "$build/plumb" logits "${cuda[@]}" --all -o "$scratch/logits.npy" >/dev/null
    echo "-ngl $ngl: answer $(sha256sum <<<"$answer" | cut -c 1-12), logits of all tokens $(
      sha256sum "$scratch/logits.npy" | cut -c 1-12)" | tee -a "$scratch/hashes"
  done
  [[ $(cut -d : -f 2 "$scratch/hashes" | sort -u | wc -l) == 1 ]] || { echo "failed: they differ"; exit 1; }
  rm "$scratch/hashes"
  hashes=$(for piece in 2048 512 64 37; do
    "$build/plumb" logits -m "$model" --backend cuda --act f16 -ub "$piece" -f "$0" -o "$scratch/logits.npy" >/dev/null
    sha256sum <"$scratch/logits.npy"
  done | sort -u | wc -l)
  [[ $hashes == 1 ]] || { echo "failed: with --act f16 the pieces of a prompt change bits"; exit 1; }
  if [[ $("$build/plumb" inspect "$model" | sed -n 's/.*\.head_count_kv .* //p') != 1 ]]; then
    for act in f16 16; do
      hashes=$(for on in "--device 0" "-sm tensor --device $devices"; do
        for piece in 512 1; do
          "$build/plumb" logits -m "$model" --backend cuda --act $act $on -ub "$piece" -p 'The capital of France is' \
            -o "$scratch/logits.npy" >/dev/null
          echo "$piece $(sha256sum <"$scratch/logits.npy")"
        done
      done | sort -u | wc -l)
      [[ $hashes == 2 ]] || { echo "failed: with --act $act devices $devices change bits"; exit 1; }
    done
  fi
  echo "$answer" | head -n 3
  "$build/plumb" bench -m "$model" --backend cuda --act f16 -p 512 -n 128 -r 3
  for ngl in -1 $((layers / 2)); do "$build/plumb" bench -m "$model" --backend cuda -ngl "$ngl" -p 512 -n 128 -r 3; done
done

#!/bin/bash
# Fails when an object compiled for a newer instruction set holds weak symbols. Usage: check_isa_leaks.sh BUILD_FOLDER
#
# The linker keeps one copy of a weak symbol (an inline function, a template of the standard library) for the whole
# program. If it keeps the copy with AVX-512 in it, the program dies on a machine without. So the files named avx2*,
# avx512* and neon* instantiate in anonymous namespaces only. Meaningful for optimised builds: others inline nothing.
set -euo pipefail

build=${1:?usage: check_isa_leaks.sh BUILD_FOLDER}
objects=0
leaks=0
while IFS= read -r -d '' object; do
  objects=$((objects + 1))
  weak=$(nm -C --defined-only "$object" | grep -E '^[0-9a-f]* [WwVvu] ' || true)
  if [[ -n $weak ]]; then
    leaks=$((leaks + 1))
    printf '%s:\n%s\n' "${object#"$build"/}" "$weak"
  fi
done < <(find "$build" -path '*/plumb_cpu*' \( -name '*avx2*.o' -o -name '*avx512*.o' -o -name '*neon*.o' \) -print0)

echo "isa leaks: $leaks of $objects objects with their own instruction set hold weak symbols"
[[ $leaks == 0 ]]

"""Files with a fault in them, loaded by an unmodified llama.cpp: `plumb diff` must find the place.

    python3 bench/poisoned.py [MODEL.gguf ...]     # default: SmolLM2; a Python with llama-cpp-python and gguf

`plumb faults poison` writes each fault that wrong weights can carry (families A to E) into a copy of the file; llama.cpp computes
with the copy and is recorded by its callback; the trace is compared with the healthy file. Which tensors are wrong says the
package gguf, by their bytes: the value that diff names first must be computed from one, and replay may mark no operation that
reads none. Prints a table.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "oracle"), str(ROOT / "scripts")]

import diff_test as d  # noqa: E402
import fetch  # noqa: E402
from gguf import GGUFReader  # noqa: E402

TEXT = "The quick brown fox jumps over the lazy dog. It was"
READS = {"token_embd": ["token_embd", "logits"], "output": ["logits"]}


def tensors(path):
    return {t.name: t for t in GGUFReader(path).tensors}


def wrong_values(right, path):
    """Names of the values that are computed from a tensor which differs; a head of its own ends the embedding's use as one."""
    there, wrong = tensors(path), set()
    for name, tensor in right.items():
        if name in there and there[name].tensor_type == tensor.tensor_type and (there[name].data == tensor.data).all():
            continue
        stem = name.removesuffix(".weight")
        blk, kind = stem.rsplit(".", 1) if "." in stem else ("", stem)
        wrong |= {f"{blk}.{value}".lstrip(".") for value in READS.get(kind, [kind])}
    if "output.weight" in there and "output.weight" not in right:
        head, embedding = there["output.weight"], right["token_embd.weight"]
        same = head.tensor_type == embedding.tensor_type and (head.data == embedding.data).all()
        wrong = wrong - {"logits"} if same else wrong | {"logits"}
    return wrong


def one_model(path):
    right = tensors(path)
    entries = [e for e in json.loads(subprocess.run([d.h.PLUMB, "faults", "list", "--json"], capture_output=True, text=True, check=True).stdout)
               if e["poison"] and not e["control"] and e["id"][0] in "ABCDE"]
    count = dict.fromkeys(("files", "placed", "exact", "harmless", "refused", "metadata"), 0)
    with tempfile.TemporaryDirectory() as work:
        poisoned, trace = Path(work) / "poisoned.gguf", Path(work) / "t"
        for e in entries:
            made = subprocess.run([d.h.PLUMB, "faults", "poison", e["id"], "-m", path, "-o", poisoned], capture_output=True, text=True)
            if made.returncode:
                continue  # the model has nothing that the fault could change
            wrong = wrong_values(right, poisoned)
            recorded = subprocess.run([d.h.PLUMB, "record", "--python", sys.executable, "llamacpp", "-m", poisoned, "-p", TEXT, "-o", trace],
                                      capture_output=True, text=True)
            if recorded.returncode:
                count["refused"] += 1
                print(f"  {e['id']}: {(recorded.stderr.strip().splitlines() or ['it failed'])[-1]}", flush=True)
            elif not wrong:
                count["metadata"] += 1  # no tensor differs
            else:
                code, found = d.diff(trace, "-m", path)
                differ = set(found["differ"])
                if code == 0:
                    count["harmless"] += 1
                    print(f"  {e['id']}: the same; {len(wrong)} values read other weights", flush=True)
                else:
                    placed, exact = found["first"] in wrong, differ <= wrong
                    count["files"] += 1
                    count["placed"] += placed
                    count["exact"] += exact
                    if not (placed and exact):
                        print(f"  {e['id']}: first {found['first']}, marked beside them {sorted(differ - wrong)[:8]}, of {len(wrong)}", flush=True)
            subprocess.run(["rm", "-rf", str(trace), str(poisoned)])
    print(f"{Path(path).stem}: {count}", flush=True)
    return count["placed"] >= 0.95 * count["files"] and count["exact"] >= 0.95 * count["files"]


if __name__ == "__main__":
    paths = sys.argv[1:] or [str(fetch.fetch("smollm2"))]
    sys.exit(0 if all([one_model(p) for p in paths]) else 1)

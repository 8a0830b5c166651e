"""Writes tests/golden/greedy_*.txt: what two real models say greedily, by the NumPy oracle in f64.

    python3 tests/make_golden.py [smollm2|gemma]        about three minutes; read the diff before you commit it

Each entry holds the prompt's text and ids, 64 greedy ids and the smallest difference between the best and the second
logit on the way. A prompt where that margin is under MARGIN is left out: there f32 may honestly choose otherwise.
The ids come from the model's own vocabulary, by the PyPI package `tokenizers` (BPE) or the merge loop below (SPM).
"""

import json
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "oracle"))
import numpy_model  # noqa: E402

MARGIN = 0.002
COUNT = 20
GENERATED = 64
PROMPTS = [
    "Hello world\n",
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    if n < 2:\n        return",
    "#include <stdio.h>\n\nint main(void) {\n",
    "SELECT name, price FROM products WHERE",
    "The three laws of thermodynamics state that",
    "To make a good cup of tea, first",
    "Q: What is 17 times 3?\nA:",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 1, 2, 3, 5, 8, 13,",
    "La capitale de la France est",
    "El perro corre por",
    "Die Hauptstadt von Deutschland ist",
    "Water boils at 100 degrees Celsius because",
    "{\"name\": \"Alice\", \"age\": 30, \"city\":",
    "The quick brown fox jumps over",
    "In 1969, Neil Armstrong",
    "for (int i = 0; i < n; ++i) {",
    "Photosynthesis is the process by which plants",
    "# Introduction\n\nThis document describes",
    "import numpy as np\n\nx = np.",
    "The mitochondria is",
    "Shakespeare wrote many plays, including",
    "A list of fruits:\n- apple\n- banana\n-",
    "She opened the door and saw",
    "Roses are red, violets are",
    "The derivative of x squared is",
]


def bpe_ids(weights, text):
    """Byte-level BPE with SmolLM2's pre-tokenizer: digits apart, then GPT-2's pattern."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    fields = weights.reader.fields
    vocabulary = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer.encode(text).ids


def spm_ids(weights, text):
    """SentencePiece's BPE: merge the neighbouring pair whose joined piece scores highest, leftmost first."""
    fields = weights.reader.fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    scores = fields["tokenizer.ggml.scores"].contents()
    ids = {token: i for i, token in enumerate(tokens)}
    pieces = list(text.replace(" ", "\u2581"))
    while True:
        pairs = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(zip(pieces, pieces[1:])) if a + b in ids]
        if not pairs:
            return [fields["tokenizer.ggml.bos_token_id"].contents()] + [ids[piece] for piece in pieces]
        i = min(pairs)[1]
        pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]


def write(name, tokenize):
    path = subprocess.run([sys.executable, TESTS.parent / "scripts" / "fetch.py", name], check=True,
                          capture_output=True, text=True).stdout.strip()
    model = numpy_model.Model(path)
    prompts = [(text, tokenize(model.w, text)) for text in PROMPTS]
    entries = []
    for (text, ids), (greedy, margin) in zip(prompts, model.greedy([ids for _, ids in prompts], GENERATED)):
        print(f"{margin:.6f} {len(ids):3d} {text!r}", file=sys.stderr)
        if margin >= MARGIN and len(ids) <= 20:
            entries.append(f"text {json.dumps(text)}\nids {','.join(map(str, ids))}\n"
                           f"greedy {','.join(map(str, greedy))}\nmargin {margin:.6f}\n")
    if len(entries) < COUNT:
        sys.exit(f"only {len(entries)} prompts have a margin of {MARGIN}: add prompts")
    head = (f"# {Path(path).name}: {GENERATED} greedy ids after each prompt, by tests/oracle/numpy_model.py in f64.\n"
            "# margin: the smallest difference of the two best logits on the way. Made by tests/make_golden.py.\n\n")
    (TESTS / "golden" / f"greedy_{name}.txt").write_text(head + "\n".join(entries[:COUNT]))


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["smollm2", "gemma"]:
        write(wanted, {"smollm2": bpe_ids, "gemma": spm_ids}[wanted])

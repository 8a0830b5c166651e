"""What the recorders share: packages that may be missing, their command line, and how they end.

Exit status, as of plumb itself: 1 a package or the engine fails, 4 wrong arguments, 5 no such file, 6 the trace exists,
130 Ctrl-C.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


def fail(text, status=1):
    """Ends the program with one line."""
    print(f"{os.environ.get('PLUMB_RECORD', 'record')}: {text}", file=sys.stderr)
    sys.exit(status)


def module(name, packages):
    """The imported module; packages: what `pip install` needs for all of the recorder."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        fail(f"needs {' '.join(packages.split())} for Python: {e}\n"
             f"  install with: {sys.executable} -m pip install {packages}\n"
             "  or choose an interpreter that has it: plumb record --python FILE ... (or PLUMB_PYTHON)")


class Parser(argparse.ArgumentParser):
    def error(self, message):
        fail(f"{message}; --help says more", 4)


def parser(document, prompt="text"):
    """-p, --tokens and -o; the recorder adds its own."""
    p = Parser(prog=os.environ.get("PLUMB_RECORD"), description=document,
               formatter_class=argparse.RawDescriptionHelpFormatter)
    group = p.add_mutually_exclusive_group(required=True)
    group.add_argument("-p", "--prompt", help=prompt)
    group.add_argument("--tokens", type=ids, help="token ids instead: 1,2,3")
    p.add_argument("-o", "--output", required=True, type=new_path, help="the trace, which does not exist yet")
    return p


def ids(text):
    found = [int(word) for word in text.replace(",", " ").split()]
    if not found or min(found) < 0:
        raise ValueError
    return found


def count(text):
    if int(text) < 0:
        raise ValueError
    return int(text)


def new_path(text):
    path = Path(text)
    if path.exists():
        fail(f"{text} exists; a trace is never overwritten", 6)
    if not path.parent.is_dir():
        fail(f"{path.parent} is no folder to write to", 6)
    return path


def existing(text):
    if not Path(text).exists():
        fail(f"{text}: no such file or folder", 5)
    return Path(text)


def tokenize(model, text, special=True):
    """The ids of a text by the tokenizer of a GGUF file, as plumb reads it; without `special` neither BOS nor EOS."""
    plumb = os.environ.get("PLUMB_PROGRAM", "plumb")
    try:
        r = subprocess.run([plumb, "tokenize", "-m", model, "-p", text, "--ids", *([] if special else ["--no-bos"])], capture_output=True, text=True)
    except OSError as e:
        fail(f"{plumb} is not there to tokenize ({e.strerror}); give --tokens")
    if r.returncode:
        fail(r.stderr.strip(), r.returncode)
    return json.loads(r.stdout)


def write_json(path, value):
    """An evidence file under its name only when it is complete; never over another file."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; evidence is never overwritten")
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "w") as out:
            json.dump(value, out)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def run(main):
    """main(arguments), with an end that a shell understands and no half-written trace."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except FileExistsError as e:
        fail(str(e), 6)

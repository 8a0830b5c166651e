#!/usr/bin/env python3
"""Sources, scripts and documents are ASCII without carriage returns; other text lives in test data.

ASCII cannot hide look-alike letters or reversed text in a diff. Looks at every file that git knows or would add, but
for test data (tests/data, tests/golden, testdata folders), foreign logs (cases/) and binary files.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = re.compile(r"(^|/)(tests/(data|golden)|testdata)/|(^|/)cases/[^/]+/[^/]+[.]log$|\.(png|ico|woff2|gguf|npy|bin)$")
FOREIGN = re.compile(rb"[^\n\t\x20-\x7e]")


def main():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    offences, n_files = [], 0
    for place in sorted(set(filter(None, listed))):
        path = ROOT / place
        if DATA.search(place) or not path.is_file():
            continue
        n_files += 1
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            found = FOREIGN.search(line)
            if found:
                offences.append(f"{place}:{number}: byte {line[found.start()]:#04x} at column {found.start() + 1}")
                break
    print("\n".join(offences) or f"ascii: {n_files} files")
    sys.exit(1 if offences else 0)


main()

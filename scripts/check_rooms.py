#!/usr/bin/env python3
"""Compares every #include in src/ with docs/rooms.tsv and fails on an arrow that is not in the table.

A room may include itself, the rooms of its line, and the libraries of its line; tests may include test libraries too.
The table stands in dependency order, so a room may name earlier rooms only. The link lines of CMakeLists.txt
(plumb_room) are held to the same table. Prints one line per offence: file:line: what is wrong.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')

# First part of an include path -> the name of the library in docs/rooms.tsv.
LIBRARIES = {"fmt": "fmt", "nlohmann": "nlohmann", "xxhash.h": "xxhash", "pcre2.h": "pcre2",
             "utf8proc.h": "utf8proc", "CLI": "CLI", "toml++": "toml", "spdlog": "spdlog", "boost": "boost",
             "histedit.h": "libedit", "mpi.h": "mpi"}
TEST_LIBRARIES = {"gtest", "gmock", "rapidcheck", "rapidcheck.h", "benchmark"}
# Header files of the system and the compiler: any room may include the former, cpu alone the latter.
SYSTEM = {"sys", "linux", "unistd.h", "regex.h", "fcntl.h", "pthread.h", "sched.h", "signal.h", "dlfcn.h", "poll.h", "termios.h",
          "dirent.h", "pwd.h", "cpuid.h", "locale.h", "langinfo.h"}
# CUDA's own headers, and what the processor that stands in for it in tests needs.
CUDA = {"cuda_runtime.h", "cuda_fp16.h", "ucontext.h"}
INTRINSICS = {"immintrin.h", "x86intrin.h", "arm_neon.h", "arm_sve.h"}


def read_table(path):
    """room -> (rooms it may include, libraries it may include)."""
    table = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#") or not line:
            continue
        name, rooms, libraries = line.split("\t")
        rooms = set(rooms.split()) - {"-"}
        for room in rooms - table.keys():
            sys.exit(f"{path}:{number}: {name} may include {room}, which is not an earlier line")
        table[name] = (rooms, set(libraries.split()) - {"-"})
    return table


def complaint(table, room, path, kind, target):
    """What is wrong with this include, or None."""
    rooms, libraries = table[room]
    first = target.split("/")[0]
    if kind == '"':
        if not (ROOT / "src" / target).is_file():
            return f"no such file below src/: {target}"
        if first != room and first not in rooms:
            return f"{room} may not include {first} ({target})"
    elif first in LIBRARIES:
        if LIBRARIES[first] not in libraries:
            return f"{room} may not include the library {LIBRARIES[first]} ({target})"
    elif first in TEST_LIBRARIES:
        if not re.search(r"_(test|fuzz|bench)\.(cpp|h)$|test_util", path.name):
            return f"only tests may include {target}"
    elif first in INTRINSICS:
        if room != "cpu":
            return f"only cpu may include {target}"
    elif first in CUDA:
        return None if room == "cuda" else f"<{target}> belongs to cuda"
    elif first not in SYSTEM and not re.fullmatch(r"[a-z0-9_]+", target):  # C++ headers have no dot
        return f"<{target}> is neither a C++ header nor named in scripts/check_rooms.py"
    return None


def check_sources(table):
    offences = []
    for path in sorted((ROOT / "src").rglob("*")):
        if path.suffix not in {".h", ".cpp", ".inc", ".cu", ".cuh"}:
            continue
        place = path.relative_to(ROOT)
        room = place.parts[1]
        if room not in table:
            offences.append(f"{place}: {room} is not a room of docs/rooms.tsv")
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            found = match and complaint(table, room, path, match[1], match[2])
            if found:
                offences.append(f"{place}:{number}: {found}")
    return offences


def check_links(table):
    offences = []
    cmake = (ROOT / "CMakeLists.txt").read_text()
    for room, arguments in re.findall(r"^\s*plumb_room\((\w+)([^)]*)\)", cmake, re.M):
        if room == "name":
            continue
        linked = re.search(r"ROOMS((?:\s+[a-z]+)+)", arguments)
        for other in set(linked[1].split() if linked else []) - table.get(room, (set(), set()))[0]:
            offences.append(f"CMakeLists.txt: {room} may not link {other}")
    return offences


def main():
    table = read_table(ROOT / "docs" / "rooms.tsv")
    offences = check_sources(table) + check_links(table)
    print("\n".join(offences) or f"rooms: {len(table)} rooms, no arrow that docs/rooms.tsv lacks")
    sys.exit(1 if offences else 0)


main()

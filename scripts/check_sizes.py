#!/usr/bin/env python3
"""Files stay under 400 lines and functions under 60, so that each can be read in one sitting.

Tables and generated data live apart, in *.inc, or are named in TABLES. Functions are found by matching braces in the
text without comments and strings: a block that opens at file, namespace or class level after a parameter list.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_LIMIT, FUNCTION_LIMIT, DEV_LIMIT = 400, 60, 120
TABLES = set()  # paths of hand-written tables that may be longer
FOLDERS = ["src", "tests", "scripts", "bench", "python", "include"]
SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
IGNORED = re.compile(r"""
    //[^\n]* | /\*.*?\*/ | R"([^\s()\\]*)\(.*?\)\1" |
    "(?:\\.|[^"\\\n])*" | (?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+' | ^[ \t]*\#(?:\\\n|[^\n])*""", re.S | re.X | re.M)


def blank(match):
    """As many lines as the match, and nothing on them; a string leaves a mark, for it may stand in an argument list."""
    return "\n" * match[0].count("\n")


def functions(text):
    """Yields (first line, last line) of every function definition."""
    text = IGNORED.sub(blank, text)
    stack, header_at, line = [], None, 1  # stack: for each open brace its kind and the line where its header began
    header = ""
    for character in text:
        if character == "{":
            inside_scopes = all(kind == "scope" for kind, _ in stack)
            is_scope = SCOPE.search(header) and not re.search(r"\)\s*(const|noexcept|override|->.*)?\s*$", header)
            kind = "block"
            if inside_scopes and is_scope:
                kind = "scope"
            elif inside_scopes and ")" in header and not re.search(r"=\s*$", header):
                kind = "function"
            stack.append((kind, header_at or line))
        elif character == "}" and stack:
            kind, first = stack.pop()
            if kind == "function":
                yield first, line
        if character in "{};":
            header, header_at = "", None
        else:
            header += character
            if header_at is None and not character.isspace():
                header_at = line
        line += character == "\n"


def main():
    offences, longest, n_functions, n_files = [], 0, 0, 0
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*")):
        place = str(path.relative_to(ROOT))
        if path.suffix not in {".h", ".cpp", ".cu", ".cuh", ".py", ".sh"} or place in TABLES:
            continue
        text = path.read_text(errors="replace")
        n_files += 1
        if text.count("\n") > FILE_LIMIT:
            offences.append(f"{place}: {text.count(chr(10))} lines, at most {FILE_LIMIT}")
        if path.suffix in {".py", ".sh"}:
            continue
        for first, last in functions(text):
            n_functions += 1
            longest = max(longest, last - first + 1)
            if last - first + 1 > FUNCTION_LIMIT:
                offences.append(f"{place}:{first}: function of {last - first + 1} lines, at most {FUNCTION_LIMIT}")
    if (ROOT / "dev").read_text().count("\n") >= DEV_LIMIT:
        offences.append(f"dev: {DEV_LIMIT} lines or more")
    print("\n".join(offences) or f"sizes: {n_files} files, {n_functions} functions, the longest {longest} lines")
    sys.exit(1 if offences else 0)


main()

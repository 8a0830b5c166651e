#!/usr/bin/env python3
"""The checks of the house reject what they are there to reject: each gets a small tree with one offence."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent / "scripts"
TABLE = "# room\tmay include\tlibraries\nbase\t-\tfmt\nquant\tbase\tfmt\ncpu\tbase quant\t-\n"


class CheckScriptsTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        shutil.copytree(SCRIPTS, self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.write("docs/rooms.tsv", TABLE)
        self.write("CMakeLists.txt", "plumb_room(base)\nplumb_room(quant ROOMS base)\n")
        self.write("dev", "#!/bin/bash\n")
        self.write("src/base/a.h", "#include <string>\n#include <fmt/format.h>\n")
        self.write("src/quant/b.cpp", '#include "base/a.h"\n#include "quant/b.inc"\n')
        self.write("src/quant/b.inc", "1,\n")

    def tearDown(self):
        self.folder.cleanup()

    def write(self, place, text):
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_check(self, name):
        done = subprocess.run([sys.executable, self.root / "scripts" / f"check_{name}.py"], cwd=self.root,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    def assert_rejected(self, name, *words):
        status, output = self.run_check(name)
        self.assertNotEqual(status, 0, output)
        for word in words:
            self.assertIn(word, output)

    def test_rooms_accept_a_tree_that_keeps_to_the_table(self):
        self.assertEqual(self.run_check("rooms")[0], 0)

    def test_rooms_reject_an_arrow_that_points_up(self):
        self.write("src/base/c.cpp", '#include "base/a.h"\n#include "quant/b.inc"\n')
        self.assert_rejected("rooms", "src/base/c.cpp:2", "base may not include quant")

    def test_rooms_reject_a_library_of_another_room(self):
        self.write("src/cpu/c.cpp", "#include <fmt/format.h>\n")
        self.assert_rejected("rooms", "src/cpu/c.cpp:1", "library fmt")

    def test_rooms_reject_test_libraries_outside_tests(self):
        self.write("src/cpu/c.cpp", "#include <gtest/gtest.h>\n")
        self.assert_rejected("rooms", "only tests")

    def test_rooms_reject_intrinsics_outside_cpu(self):
        self.write("src/quant/c.h", "#include <immintrin.h>\n")
        self.assert_rejected("rooms", "only cpu")

    def test_rooms_reject_unknown_headers_rooms_and_files(self):
        self.write("src/base/c.h", "#include <openssl/sha.h>\n")
        self.write("src/attic/d.h", "\n")
        self.write("src/base/e.h", '#include "base/missing.h"\n')
        self.assert_rejected("rooms", "<openssl/sha.h>", "attic is not a room", "no such file")

    def test_rooms_reject_a_link_that_the_table_lacks(self):
        self.write("CMakeLists.txt", "plumb_room(base ROOMS quant)\n")
        self.assert_rejected("rooms", "base may not link quant")

    def test_rooms_reject_a_table_out_of_order(self):
        self.write("docs/rooms.tsv", "base\tquant\t-\nquant\t-\t-\n")
        self.assert_rejected("rooms", "not an earlier line")

    def test_sizes_accept_60_lines_and_reject_61(self):
        body = "  // a brace in a comment {\n" + '  call("{");\n' * 57
        self.write("src/base/c.cpp", f"namespace a {{\nint f(int x) {{\n{body}}}\n}}\n")
        self.assertEqual(self.run_check("sizes")[0], 0)
        self.write("src/base/c.cpp", f"namespace a {{\nclass B {{\n int f(int x) const {{\n{body};\n}}\n}};\n}}\n")
        self.assert_rejected("sizes", "src/base/c.cpp:3", "61 lines")

    def test_sizes_count_tests_and_constructors_as_functions_but_no_tables(self):
        body = "  1,\n" * 80
        self.write("src/base/c.cpp", f"int table[] = {{\n{body}}};\n")
        self.assertEqual(self.run_check("sizes")[0], 0)
        body = "  call();\n" * 80
        self.write("src/base/c.cpp", f"TEST(A, B) {{\n{body}}}\nA::A(int x)\n    : x_(x) {{\n{body}}}\n")
        self.assert_rejected("sizes", "c.cpp:1:", "c.cpp:83:")

    def test_sizes_reject_files_over_400_lines_but_not_tables(self):
        self.write("src/quant/b.inc", "1,\n" * 500)
        self.assertEqual(self.run_check("sizes")[0], 0)
        self.write("src/base/c.h", "\n" * 401)
        self.assert_rejected("sizes", "src/base/c.h: 401 lines")

    def test_ascii_rejects_foreign_letters_outside_test_data(self):
        subprocess.run(["git", "init", "-q", self.root], check=True)
        self.write("tests/data/x.txt", "\u00e4\n")
        self.assertEqual(self.run_check("ascii")[0], 0)
        self.write("src/base/c.h", "int a;\n// \u0430\n")
        self.assert_rejected("ascii", "src/base/c.h:2", "column 4")

    def test_isa_leaks_reject_weak_symbols_in_objects_of_an_instruction_set(self):
        objects = self.root / "build/CMakeFiles/plumb_cpu.dir/src/cpu"
        objects.mkdir(parents=True)
        script = self.root / "scripts/check_isa_leaks.sh"

        def leaks(code):
            subprocess.run(["g++", "-O2", "-x", "c++", "-", "-c", "-o", objects / "avx2.cpp.o"], input=code, text=True,
                           check=True)
            return subprocess.run(["bash", script, self.root / "build"], stdout=subprocess.DEVNULL).returncode

        self.assertEqual(leaks("namespace { int f(int x) { return x; } } int (*p)(int) = f;"), 0)
        self.assertEqual(leaks("inline int f(int x) { return x; } int (*p)(int) = f;"), 1)


if __name__ == "__main__":
    unittest.main()

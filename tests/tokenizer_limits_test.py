"""Ten megabytes of one kind of text take under a second and little memory with every published vocabulary.

Runs the gtest of src/text/tokenizer_limits_test.cpp that needs the vocabularies, which scripts/fetch.py keeps in a cache.

Usage: tokenizer_limits_test.py PROGRAM, where PROGRAM is plumb_text_test.
"""

import os
import subprocess
import sys

from tokenizer_vectors_test import folder

TEST = "TokenizerLimits.TenMegabytesOfOneKindTakeLessThanASecondPerPublishedTokenizer"


def main():
    done = subprocess.run([sys.argv[1], f"--gtest_filter={TEST}"], stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, PLUMB_VOCABS=str(folder()), PLUMB_TIMES="1"))
    print(done.stdout)
    return done.returncode or (0 if f"[       OK ] {TEST}" in done.stdout else 1)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Writes src/quant/iq_grids.inc: the codebooks of the IQ formats, as the `gguf` package from PyPI holds them.

The package stores each codeword as two bytes in hex; they become one little-endian 16-bit number. It also holds the
sign table that quant/iq_grids.h computes; the script checks that formula. Run: make_iq_grids.py > src/quant/iq_grids.inc
"""
from gguf import quants

GRIDS = [("kGridIQ1", quants.IQ1_S, 2048), ("kGridIQ2_XXS", quants.IQ2_XXS, 256), ("kGridIQ2_XS", quants.IQ2_XS, 512),
         ("kGridIQ2_S", quants.IQ2_S, 1024), ("kGridIQ3_XXS", quants.IQ3_XXS, 256), ("kGridIQ3_S", quants.IQ3_S, 512)]


def main():
    assert list(quants.IQ2_XXS.ksigns) == [i | (i.bit_count() & 1) << 7 for i in range(128)]
    print("// Codewords of the IQ formats; data, written by scripts/make_iq_grids.py. See quant/iq_grids.h.")
    for name, quant, size in GRIDS:
        data = bytes.fromhex(quant.grid_hex.decode("ascii"))
        words = [int.from_bytes(data[2 * i:2 * i + 2], "little") for i in range(size)]
        assert len(data) == 2 * size
        print(f"\ninline constexpr uint16_t {name}[{size}] = {{")
        for i in range(0, size, 16):
            print("    " + " ".join(f"{w}," for w in words[i:i + 16]))
        print("};")


main()

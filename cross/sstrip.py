#!/usr/bin/env python3
"""Cuts from ELF programs what no kernel loads: the section headers, and everything outside the program headers' segments.

Usage: sstrip.py PROGRAM...    On MIPS that is a tenth of a program which strip has already been over.
"""

import struct
import sys

# Per class of 32 and 64 bits: where the header has the program headers' and the section headers' offsets, their format,
# where it has the size and number of program headers, where the number of section headers; in a program header, where the
# segment's offset and its size in the file are.
LAYOUT = {
    1: {"phoff": 28, "shoff": 32, "word": "I", "phentsize": 42, "shnum": 48, "offset": 4, "filesz": 16},
    2: {"phoff": 32, "shoff": 40, "word": "Q", "phentsize": 54, "shnum": 60, "offset": 8, "filesz": 32},
}


def sstrip(elf: bytearray) -> bytearray:
    if elf[:4] != b"\x7fELF" or elf[4] not in LAYOUT:
        raise ValueError("not an ELF program")
    at = LAYOUT[elf[4]]
    order = "<" if elf[5] == 1 else ">"
    word = order + at["word"]
    (phoff,) = struct.unpack_from(word, elf, at["phoff"])
    phentsize, phnum = struct.unpack_from(order + "HH", elf, at["phentsize"])
    end = phoff + phentsize * phnum
    for header in range(phoff, end, phentsize):
        (offset,) = struct.unpack_from(word, elf, header + at["offset"])
        (filesz,) = struct.unpack_from(word, elf, header + at["filesz"])
        if filesz:
            end = max(end, offset + filesz)
    struct.pack_into(word, elf, at["shoff"], 0)
    struct.pack_into(order + "HH", elf, at["shnum"], 0, 0)
    return elf[:end]


for path in sys.argv[1:]:
    with open(path, "r+b") as program:
        stripped = sstrip(bytearray(program.read()))
        program.seek(0)
        program.write(stripped)
        program.truncate()

#!/usr/bin/env python3
"""Adds up symbols by crate: reads `readelf -SW` and `readelf -sW` of one program, prints a Markdown table."""

import re
import sys
from collections import Counter

SECTION = re.compile(r"^\s*\[\s*(\d+)\] (\S+)\s+\S+\s+[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) [0-9a-f]+ +(\S*) ")
SYMBOL = re.compile(r"^\s*\d+: ([0-9a-f]+)\s+(\d+|0x[0-9a-f]+) (FUNC|OBJECT) +\w+ +\w+ .*?(\d+) (\S+)$")
# In the v0 mangling a crate's root is C, an optional disambiguator, and the name with its length before it.
CRATE = re.compile(r"C(?:s[0-9A-Za-z]*_)?(\d+)_?([A-Za-z]\w*)")

STD = {"std", "core", "alloc", "panic_abort", "compiler_builtins", "hashbrown", "memchr", "rustc_demangle", "addr2line",
       "gimli", "object", "miniz_oxide", "adler2", "std_detect", "unwind", "cfg_if", "rustc_std_workspace_core"}


def crate(symbol: str) -> str:
    found = CRATE.search(symbol) if symbol.startswith("_R") else None
    if found is None:
        return "C libraries"
    name = found[2][: int(found[1])]
    return "std" if name in STD else name


sizes, loaded, seen = Counter(), {}, set()
for line in sys.stdin:
    if section := SECTION.match(line):
        # Only what is in memory and in the file counts.
        if "A" in section[4] and section[2] not in (".bss", ".tbss", ".sbss"):
            loaded[section[1]] = int(section[3], 16)
    elif symbol := SYMBOL.match(line):
        address, size, _, index, name = symbol.groups()
        # Functions that turned out equal are one piece of code with several names.
        if index in loaded and (address, index) not in seen:
            seen.add((address, index))
            sizes[crate(name)] += int(size, 0)

total = sum(loaded.values())
sizes["constants and tables"] = total - sum(sizes.values())
print("| crate | bytes | share |\n| --- | --- | --- |")
for name, size in sizes.most_common():
    print(f"| {name} | {size:,} | {100 * size / total:.1f} % |")
print(f"| total | {total:,} | 100 % |")

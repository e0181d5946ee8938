"""Makes a C program out of the header that prints the binary interface: sizes, offsets, numbers, functions.

    abi.py blkdelta.h > abi.c

The compiler says where each field is and which number each name has; functions are printed as the header declares them.
Trade-off: the header is read with patterns that fit what cbindgen writes, and nothing else. What they did not find would
be missing in the table and the comparison would show it, because the table was looked through when it was committed.
"""

import re
import sys

text = re.sub(r"//[^\n]*|/\*.*?\*/", "", open(sys.argv[1], encoding="utf-8").read(), flags=re.S)

print("#include <stdio.h>\n#include <stddef.h>\n#include <blkdelta.h>\n\nint main(void) {")

for name, value in re.findall(r"^#define (BLKDELTA_\w+) (\d+)$", text, re.M):
    print(f'    printf("constant {name} %d\\n", {name});')

for name in re.findall(r"\bBLKDELTA_\w+(?= = -?\d)", text):
    print(f'    printf("number {name} %d\\n", (int){name});')

for name, fields in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", text, re.S):
    print(f'    printf("struct {name} %zu\\n", sizeof(struct {name}));')
    for declaration in filter(None, map(str.strip, fields.split(";"))):
        field = re.search(r"(\w+)(\[\d+\])?$", declaration).group(1)
        place = f"offsetof(struct {name}, {field})"
        print(f'    printf("  %3zu {declaration}\\n", {place});')

for declaration in re.findall(r"^typedef [^;{]*\(\*\w+\)\([^;]*\);", text, re.M):
    print(f'    puts("callback {" ".join(declaration.split())}");')

for declaration in re.findall(r"^(?!typedef)\w[^;{}#]*?\bblkdelta_\w+\([^;]*\);", text, re.M):
    print(f'    puts("function {" ".join(declaration.split())}");')

print("    return 0;\n}")

"""`python -m tests.tools.house [FIGURE…]`: prints what each figure counts, a line each. `make bench-house` prints the counts."""

import sys

from tests.tools.house.figures import FINDINGS, REMEDIES


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in FINDINGS]
    if unknown:
        print(f"no figure {', '.join(unknown)}; there are {', '.join(FINDINGS)}", file=sys.stderr)
        return 2
    for name in names or FINDINGS:
        found = FINDINGS[name]()
        print(f"{name}: {len(found)}")
        for one in found:
            print(f"  {one}")
        if found:
            print(f"  {REMEDIES[name]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

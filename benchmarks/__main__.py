"""Makes the figures that need nothing but this machine, and names the others with their commands.

    .venv/bin/python -m benchmarks [--list]

How a figure is made stands at the head of its file; what is in brackets there may be left out.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def commands() -> dict[str, list[str]]:
    """Per file that makes a figure, the words of its command after ``python``, without what may be left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("[!_]*.py")):
        text = path.read_text()
        if '__name__ == "__main__"' not in text:
            continue
        said = ast.get_docstring(ast.parse(text)) or ""
        line = re.search(rf"^ *\S*python ((?:-m benchmarks\.|benchmarks/){path.stem}\b.*)$", said, re.MULTILINE)
        if line is None:
            raise SystemExit(f"{path.name} does not say by which command it is run")
        found[path.name] = re.sub(r"\[[^]]*\]|#.*", " ", line[1]).split()
    return found


def runs_alone(words: list[str]) -> bool:
    return len(words) == (2 if words[0] == "-m" else 1)


def main() -> int:
    found = commands()
    alone = {name: words for name, words in found.items() if runs_alone(words)}
    failed = []
    for name, words in alone.items():
        print(f"== python {' '.join(words)}", flush=True)
        if "--list" not in sys.argv and subprocess.run([sys.executable, *words], cwd=HERE.parent).returncode:
            failed.append(name)
    print("\nThese need what is not here, data for the most part; the head of each file says what:")
    for words in (words for name, words in found.items() if name not in alone):
        print(f"   python {' '.join(words)}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Programs that are told of findings, each a process of its own, and strict: what is not by the standard is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import ROOT


@dataclass(frozen=True)
class Told:
    """A program that runs."""

    folder: Path
    port: int

    @property
    def heard(self) -> list[dict[str, Any]]:
        """What it was told, in order, as it wrote it down."""
        file = self.folder / "heard.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def answers(self, *said: Any) -> None:
        """What it says next, one to each message; then it takes all again."""
        (self.folder / "next.json").write_text(json.dumps(said))


@contextmanager
def receiver(kind: str, folder: Path, *arguments: str, **environment: str) -> Iterator[Told]:
    """``tests/receivers/KIND.py``, as a program; it prints its port when it listens."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"tests.receivers.{kind}", str(folder), *arguments]
    around = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=around, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield Told(folder, int(process.stdout.readline()))
        finally:
            process.kill()


def hear(folder: Path, **what: Any) -> None:
    """Write down what came."""
    with (folder / "heard.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\n")


def next_answer(folder: Path) -> Any:
    """What a test wants said now; None: what the program says by itself."""
    file = folder / "next.json"
    said = json.loads(file.read_text()) if file.exists() else []
    if not said:
        return None
    file.write_text(json.dumps(said[1:]))
    return said[0]

"""highdicom's table of the standard's modules, read piece by piece: whole, it takes 110 MiB and keeps 70 of them.

highdicom asks it whether an IOD has an attribute, of a few modules. Here each is decoded when it is asked for. This is
the only place that touches names which highdicom does not promise: where they, or the file, are other than expected,
all stays as highdicom has it.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import highdicom
from highdicom import _standard_utils, base, image

_NAME = "get_module_attribute_map"
_FILE = Path(highdicom.__file__).parent / "_standard" / "module_attribute_map.json"
_HEAD = re.compile(rb'^  "([a-z0-9-]+)": (?=\[)', re.MULTILINE)  # of a module, two blanks in


class Modules(Mapping[str, list[Any]]):
    """By the name of a module its attributes, decoded when they are asked for."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self._text = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        heads = list(_HEAD.finditer(self._text))
        ends = [*(head.start() for head in heads[1:]), self._text.rfind(b"}")]
        self._places = {head[1].decode(): (head.end(), end) for head, end in zip(heads, ends, strict=True)}
        self._decoded = cache(self._decode)

    def _decode(self, name: str) -> list[Any]:
        start, end = self._places[name]
        found: list[Any] = json.loads(self._text[start:end].rstrip().rstrip(b","))
        return found

    def __getitem__(self, name: str) -> list[Any]:
        return self._decoded(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def install() -> None:
    """Have highdicom ask these, once and for all."""
    users = [module for module in (_standard_utils, base, image) if hasattr(module, _NAME)]
    if not _FILE.exists() or len(users) < 3:
        return
    modules = Modules(_FILE)
    if not {"patient", "sop-common", "general-image"} <= set(modules):
        return
    for user in users:
        setattr(user, _NAME, lambda: modules)

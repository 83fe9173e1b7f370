"""The versions of models that are on this machine, and which of them the pipelines use. No tensors here, and no torch.

What ships lies in ``pipelines/weights``; a site's own versions in a folder of its data, with a file that says which is
in use, and one that tells who changed it when:

    models/active.json               {"mr_brain": ["1.0.0", "1.1.0"]}: the last is in use, those before it were
    models/history.jsonl             a line per import, promotion and rollback
    models/mr_brain/1.1.0/           mr_brain-1.1.0.json, .safetensors and, where there is one, .md
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[1] / "weights"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")  # of a name or version: it becomes a folder


class ModelFault(ValueError):
    """What was asked of the installed models cannot be done; the sentence says why."""


@dataclass(frozen=True)
class Installed:
    """One version of one model.

    Attributes:
        card: Its JSON; the weights lie beside it.
        held: What the card says.
    """

    card: Path
    held: dict[str, Any]

    @classmethod
    def read(cls, card: Path) -> Installed:
        """
        Raises:
            ModelFault: If it is no card of a model.
        """
        try:
            held = json.loads(card.read_text())
            name, version, sha256 = held["name"], held["version"], held["sha256"]
        except OSError as error:
            raise ModelFault(f"{card} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFault(f"{card} is no model card: JSON with name, version and sha256 ({error})") from error
        for key, value in (("name", name), ("version", version)):
            if not isinstance(value, str) or not _WORD.fullmatch(value):
                raise ModelFault(f"{card}: {key} is {value!r}; letters, digits, dots, dashes, 64 at most")
        if not re.fullmatch("[0-9a-f]{64}", str(sha256)):
            raise ModelFault(f"{card}: sha256 is {sha256!r}, not a SHA-256 in hexadecimal")
        return cls(card, held)

    @property
    def name(self) -> str:
        return str(self.held["name"])

    @property
    def version(self) -> str:
        return str(self.held["version"])

    @property
    def weights(self) -> Path:
        return self.card.with_suffix(".safetensors")

    @property
    def is_shipped(self) -> bool:
        return self.card.parent == SHIPPED

    @property
    def networks(self) -> str:
        """Role and number of members, in words."""
        roles = [each["role"] if isinstance(each, dict) else "outline" for each in self.held.get("networks", [])]
        return ", ".join(f"{role} × {roles.count(role)}" for role in dict.fromkeys(roles)) or "not said"

    @property
    def terms(self) -> str:
        """The line of the card for people that speaks of the licence."""
        page = self.card.with_suffix(".md")
        lines = page.read_text().splitlines() if page.is_file() else []
        said = next((line for line in lines if re.search(r"terms of the weights|licen[cs]e", line, re.IGNORECASE)), "")
        text = re.sub(r"[*`#]", "", said).strip(" |-")
        return re.sub(r"^(terms of the weights|licen[cs]e)\s*[|:]\s*", "", text, flags=re.IGNORECASE) or "not said"

    def fault(self) -> str | None:
        """What is wrong with the weights; None if they are byte for byte those that the card names."""
        try:
            with self.weights.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{self.weights.name} cannot be read: {error.strerror}"
        sha256 = self.held["sha256"]
        return None if digest == sha256 else f"the SHA-256 of {self.weights.name} is {digest}, not {sha256}"


@dataclass(frozen=True)
class Models:
    """All models of this machine: what ships, and what lies in ``folder``."""

    folder: Path

    def all(self) -> list[Installed]:
        """
        Raises:
            ModelFault: If a card cannot be read; the others are of no use to whoever then sees half a list.
        """
        cards = [*sorted(SHIPPED.glob("*.json")), *sorted(self.folder.glob("*/*/*.json"))]
        return sorted((Installed.read(card) for card in cards), key=lambda each: (each.name, _in_order(each.version)))

    def of(self, name: str) -> list[Installed]:
        """
        Raises:
            ModelFault: If there is no such model.
        """
        found = self.all()
        if own := [each for each in found if each.name == name]:
            return own
        known = ", ".join(dict.fromkeys(each.name for each in found)) or "none"
        raise ModelFault(f"{name}: no such model; installed are {known}")

    def get(self, name: str, version: str | None = None) -> Installed:
        """One version; without ``version`` the one in use.

        Raises:
            ModelFault: If it is not installed.
        """
        own = self.of(name)
        wanted = version or self.in_use(name)
        for each in own:
            if each.version == wanted:
                return each
        raise ModelFault(f"{name} {wanted} is not installed; there are {', '.join(each.version for each in own)}")

    def in_use(self, name: str) -> str | None:
        """The version that pipelines go by; None if nobody has said."""
        told = self._active().get(name)
        if told:
            return told[-1]
        shipped = [each.version for each in self.of(name) if each.is_shipped]
        return shipped[-1] if shipped else None

    def in_force(self) -> dict[str, Installed | None]:
        """Per model that is installed the version that pipelines go by; None: that one is not installed.

        Raises:
            ModelFault: If a card cannot be read.
        """
        told = self._active()
        found: dict[str, Installed | None] = {}
        for each in self.all():
            wanted = told.get(each.name)
            is_it = each.version == wanted[-1] if wanted else each.is_shipped
            found[each.name] = each if is_it else found.get(each.name)
        return found

    def card_of(self, name: str) -> Path | None:
        """The card that somebody has promoted; None: the pipeline's own.

        Raises:
            ModelFault: If it is not there any more: another version is never taken in silence.
        """
        told = self._active().get(name)
        return self.get(name, told[-1]).card if told else None

    def add(self, file: Path, loads: Callable[[Installed], None]) -> Installed:
        """Take a card and the weights beside it into the folder, whole or not at all.

        Args:
            loads: Makes the pipeline of it, and raises what it meets.

        Raises:
            ModelFault: If the weights are not those of the card, are no safetensors that the pipeline loads, or such a
                version is installed already.
        """
        given = Installed.read(file)
        if fault := given.fault():
            raise ModelFault(f"{file} is not imported: {fault}")
        same = [each for each in self.of(given.name) if each.version == given.version]
        if same:
            how = "it is this one" if same[0].held == given.held else "with another content: give yours a new version"
            raise ModelFault(f"{given.name} {given.version} is installed already, {how}")
        loads(given)
        place = self.folder / given.name / given.version
        part = place.with_name(f".{given.version}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, mode=0o700)
        for source in (given.card, given.weights, given.card.with_suffix(".md")):
            if source.is_file():
                target = part / f"{given.name}-{given.version}{source.suffix}"
                shutil.copyfile(source, target)
                _to_disk(target)
        part.rename(place)
        _to_disk(place.parent)
        self._tell("imported", given)
        return Installed.read(place / f"{given.name}-{given.version}.json")

    def promote(self, name: str, version: str, loads: Callable[[Installed], None]) -> Installed:
        """From now on pipelines that are made use this version.

        Raises:
            ModelFault: If it is not installed, damaged, or in use already.
        """
        chosen, before = self.get(name, version), self.in_use(name)
        if before == version:
            raise ModelFault(f"{name} {version} is in use already")
        if fault := chosen.fault():
            raise ModelFault(f"{name} {version} is damaged and not promoted: {fault}")
        loads(chosen)
        told = self._active()
        self._write(told | {name: [*(told.get(name) or ([before] if before else [])), version]})
        self._tell("promoted", chosen, before=before)
        return chosen

    def rollback(self, name: str) -> Installed:
        """Back to the version that was in use before.

        Raises:
            ModelFault: If there was none, or it is gone or damaged.
        """
        self.of(name)
        told = self._active()
        if len(told.get(name, [])) < 2:
            raise ModelFault(f"{name}: no version was in use before {self.in_use(name)}; nothing to go back to")
        *_, before, now = told[name]
        chosen = self.get(name, before)
        if fault := chosen.fault():
            raise ModelFault(f"{name} {before} is damaged and not gone back to: {fault}")
        self._write(told | {name: told[name][:-1]})
        self._tell("rolled back", chosen, before=now)
        return chosen

    def _active(self) -> dict[str, list[str]]:
        file = self.folder / "active.json"
        if not file.exists():
            return {}
        try:
            held = json.loads(file.read_text())
            return {str(name): [str(each) for each in versions] for name, versions in held.items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ModelFault(f"{file} cannot be read ({error}): which versions are in use is not known") from error

    def _write(self, told: dict[str, list[str]]) -> None:
        part = self.folder / "active.part"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_text(json.dumps(told, indent=1) + "\n")
        _to_disk(part)
        part.replace(self.folder / "active.json")
        _to_disk(self.folder)

    def _tell(self, what: str, which: Installed, **more: str | None) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "event": what,
            "model": which.name,
            "version": which.version,
            "sha256": which.held["sha256"],
            "by": _user(),
            **more,
        }
        with (self.folder / "history.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self, name: str) -> Iterator[dict[str, str]]:
        """What was done with a model, the first first."""
        file = self.folder / "history.jsonl"
        for line in file.read_text().splitlines() if file.exists() else ():
            held = json.loads(line)
            if held["model"] == name:
                yield held


def _in_order(version: str) -> list[tuple[int, str]]:
    """1.10.0 after 1.9.0."""
    return [(int(each), "") if each.isdigit() else (-1, each) for each in re.split(r"[.+-]", version)]


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())

"""After a pipeline has read a study: which of its findings move the study up the reading list, and who is told.

    [triage.bleeding]
    pipeline = "ct_head"
    finding = "hemorrhage"
    notify = ["RIS"]

Pure: runs as contract.md has them in, what follows from them out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Runs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rule:
    """One ``[triage.NAME]`` table of the settings that is switched on.

    Attributes:
        findings: Names of codes, or labels of segments, as the report says them; empty: whatever is present.
        at_least: The certainty, above the operating point, from which on it counts; a finding without one counts.
        priority: How urgent the study is then, 0 the most urgent to 9.
        notify: The names of who is told.
    """

    name: str
    pipeline: str
    findings: tuple[str, ...] = ()
    at_least: float = 0.0
    priority: int = 0
    notify: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """What a pipeline says is there, once for all places where it is.

    Attributes:
        code: Value, scheme and meaning.
        certainty: The largest of all places; None where the pipeline gives none.
        count: In how many places.
        measurements: Of the first place: code of the name, value, unit (UCUM).
    """

    code: tuple[str, str, str]
    certainty: float | None
    count: int
    measurements: tuple[tuple[tuple[str, str, str], float, str], ...] = ()

    @property
    def sentence(self) -> str:
        return self.code[2] if self.certainty is None else f"{self.code[2]}, certainty {self.certainty:.2f}"


@dataclass(frozen=True)
class Raised:
    """What the rules that matched ask for.

    Attributes:
        why: A sentence for whoever reads; it names no patient.
    """

    priority: int
    notify: tuple[str, ...]
    why: str


def raised(rules: Sequence[Rule], pipeline: str, runs: Runs) -> Raised | None:
    """What the findings of a job ask for, by all rules that match; None: nothing is above its operating point."""
    matched = [(rule, found) for rule in rules if rule.pipeline == pipeline and (found := _matching(rule, runs))]
    if not matched:
        return None
    told = dict.fromkeys(name for rule, _ in matched for name in rule.notify)
    said = [f"{said_of(found)[0].sentence}: above its operating point (triage.{rule.name})" for rule, found in matched]
    return Raised(min(rule.priority for rule, _ in matched), tuple(told), "; ".join(said))


def said_for(rules: Sequence[Rule], pipeline: str, runs: Runs, receiver: str) -> tuple[Said, ...]:
    """The findings for which ``receiver`` is told; whatever is present, if no rule names it any more."""
    own = [rule for rule in rules if rule.pipeline == pipeline and receiver in rule.notify]
    return said_of([one for rule in own for one in _matching(rule, runs)] or present(runs))


def present(runs: Runs) -> list[Mapping[str, Any]]:
    """The findings of what was read that are above their operating point."""
    return [one for run in runs if run["status"] == "read" for one in run["findings"] if one["present"]]


def said_of(found: Sequence[Mapping[str, Any]]) -> tuple[Said, ...]:
    """Findings as values, the surest of each code first named."""
    by_code: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in found:
        by_code.setdefault((one["code"][0], one["code"][1], one["code"][2]), []).append(one)
    said = []
    for code, places in by_code.items():
        certainties = [one["certainty"] for one in places if one["certainty"] is not None]
        measured = tuple(
            ((each["name"][0], each["name"][1], each["name"][2]), float(each["value"]), str(each["unit"]))
            for each in places[0]["measurements"]
        )
        # A finding of the whole series stands beside those of its pictures.
        count = sum(1 for one in places if one["sop_uids"]) or len(places)
        said.append(Said(code, max(certainties, default=None), count, measured))
    return tuple(said)


def _matching(rule: Rule, runs: Runs) -> list[Mapping[str, Any]]:
    return [one for one in present(runs) if _is_named(rule, one) and _is_sure(rule, one)]


def _is_sure(rule: Rule, one: Mapping[str, Any]) -> bool:
    return one["certainty"] is None or float(one["certainty"]) >= rule.at_least


def _is_named(rule: Rule, one: Mapping[str, Any]) -> bool:
    names = {_plain(str(name)) for name in (one["code"][2], one.get("segment"), one.get("label")) if name}
    return not rule.findings or any(_plain(wanted) in names for wanted in rule.findings)


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().lower()

"""What a job found, as rows of a page: what, whether it is there, how sure, and what was measured. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from node.ledger import Job

# UCUM, as people read it
UNITS = {"cm3": "ml", "mm2": "mm²", "1": "", "{ratio}": "", "[ppth]": "‰", "{pixels}": "pixels"}


def findings(job: Job) -> list[Mapping[str, Any]]:
    """The findings of a job's runs as rows: what, certainty, present, measurements; the surest of each kind first."""
    rows: list[dict[str, Any]] = []
    for run in json.loads(job.runs) if job.runs else []:
        found = run.get("findings") or ()
        if run.get("reason") and not found and run["reason"] not in (job.reason or ""):
            rows.append(
                {"what": run["status"], "certainty": None, "present": None, "measured": run["reason"], "count": 1}
            )
        rows += _merged(found)
    return sorted(rows, key=lambda row: (row["present"] is not True, -(row["certainty"] or 0.0)))


def _merged(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per finding that is there or not: of a stack's slices, or a thousand cells, the surest, and how many."""
    kinds: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for one in found:
        kinds.setdefault((one.get("segment") or one["code"][2], one.get("present")), []).append(one)
    return [
        {
            "what": what,
            "present": present,
            "certainty": max((one["certainty"] for one in same if one.get("certainty") is not None), default=None),
            "measured": _measured(same),
            "count": len(same),
        }
        for (what, present), same in kinds.items()
    ]


def _measured(same: Iterable[Mapping[str, Any]]) -> str:
    """Each measurement by its name, from the smallest to the largest value."""
    values: dict[tuple[str, str], list[float]] = {}
    for finding in same:
        for one in finding.get("measurements") or ():
            values.setdefault((one["name"][2], UNITS.get(one["unit"], one["unit"])), []).append(one["value"])
    said = []
    for (name, unit), all_of_it in values.items():
        low, high = f"{min(all_of_it):.4g}", f"{max(all_of_it):.4g}"
        said.append(f"{name} {low if low == high else f'{low} to {high}'} {unit}".rstrip())
    return "; ".join(said)

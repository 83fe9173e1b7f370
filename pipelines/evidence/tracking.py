"""What a finding is called wherever it stands: the same identifier and UID in the report and in the segment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipelines.base import Finding, derived_uid


@dataclass(frozen=True)
class Track:
    """Tracking Identifier (112039), for people, and Tracking Unique Identifier (112040)."""

    identifier: str
    uid: str


def named(finding: Finding) -> str:
    """What a reader calls it."""
    return (finding.segment.label if finding.segment else None) or finding.label or finding.code.meaning


def tracks(findings: tuple[Finding, ...], job: str) -> tuple[Track, ...]:
    """One per finding; findings of one name are numbered, but those that share a segment share the track."""
    names = [named(finding) for finding in findings]
    loose = Counter(name for name, finding in zip(names, findings, strict=True) if not finding.segment)
    seen: Counter[str] = Counter()
    given: list[Track] = []
    for name, finding in zip(names, findings, strict=True):
        if finding.segment:
            given.append(Track(name, derived_uid(job, "tracking", "segment", name)))
            continue
        seen[name] += 1
        identifier = f"{name} {seen[name]}" if loose[name] > 1 else name
        given.append(Track(identifier, derived_uid(job, "tracking", "finding", identifier)))
    return tuple(given)

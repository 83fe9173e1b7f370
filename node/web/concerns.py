"""Is all well, and if not, what is to be done? What stands at the head of the overview, worst first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.ledger import Counts
from node.web.advice import advice
from node.web.watch import Heard
from node.web.words import seconds

LONG_WAIT = 15 * 60.0  # seconds; reliability: an alarm after 15 minutes

DEAD = (
    "delivery was given up: its evidence is not where it should be",
    "deliveries were given up: their evidence is not where it should be",
    "Mend what the destination complains of, then send again.",
    "/destinations",
)
HELD = (
    "study is held for a person to look at",
    "studies are held for a person to look at",
    "It says there why, and what to do.",
    "/studies?state=held",
)
FAILED = (
    "job failed in the last 24 hours",
    "jobs failed in the last 24 hours",
    "It says there why; retry when that is mended.",
    "/queue?show=failed",
)


@dataclass(frozen=True)
class Concern:
    """``grave``: something stands still; else somebody has to look. ``link`` leads to where it can be mended."""

    grave: bool
    what: str
    todo: str
    link: str


def concerns(
    counts: Counts,
    checks: Mapping[str, str | None],
    peers: Mapping[str, Heard | None],
    *,
    failed_lately: int,
    now: float,
) -> list[Concern]:
    """
    Args:
        failed_lately: Jobs that failed or came into quarantine in the last 24 hours.
    """
    found = [Concern(True, f"{name}: {fault}", advice(fault), "/workers") for name, fault in checks.items() if fault]
    for name, heard in peers.items():
        if heard is not None and heard.fault:
            found.append(Concern(True, heard.fault, advice(heard.fault), "/destinations"))
        elif (since := counts.overdue.get(name)) is not None and now - since > LONG_WAIT:
            what = f"{name} has not taken a delivery for {seconds(now - since)}"
            found.append(
                Concern(True, what, "See what it answers, and mend that; it is then sent by itself.", "/destinations")
            )
    if counts.oldest_waiting is not None and now - counts.oldest_waiting > LONG_WAIT:
        what = f"the oldest job has waited for {seconds(now - counts.oldest_waiting)}"
        todo = "More comes than is read, or the worker stands still: look at Workers."
        found.append(Concern(True, what, todo, "/workers"))
    dead = sum(states.get("DEAD", 0) for states in counts.deliveries.values())
    held = counts.studies.get("held", 0)
    found += [
        Concern(False, f"{number} {one if number == 1 else many}", todo, link)
        for number, one, many, todo, link in (
            (dead, *DEAD), (held, *HELD), (failed_lately, *FAILED),
        )
        if number
    ]  # fmt: skip
    return sorted(found, key=lambda one: not one.grave)

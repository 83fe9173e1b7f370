"""How urgent a study is before anything has read it: rules by DICOM keyword, as for routing, all of them data.

    [urgency.emergency]
    when = { InstitutionalDepartmentName = "*emergency*" }
    priority = 0

A rule only raises: of those that match the most urgent one counts, and a pipeline that is more urgent by itself stays
so. It reads headers that were read already, and never quotes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from node.errors import BadSettings
from node.routing import Condition, conditions_of, match


@dataclass(frozen=True)
class Urgency:
    """One ``[urgency.NAME]`` table of the settings.

    Raises:
        BadSettings: If a condition names no DICOM keyword, or one that it cannot judge; or there is none.
    """

    name: str
    when: Mapping[str, object]
    priority: int = 0
    conditions: tuple[Condition, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.when:
            raise BadSettings(f"urgency.{self.name}.when is empty, so every study would be urgent; allowed: conditions")
        object.__setattr__(self, "conditions", conditions_of(f"urgency.{self.name}.when", self.when))


@dataclass(frozen=True)
class Urgent:
    """The priority that a study has, and the sentence that says why; it quotes the rule and not the study."""

    priority: int
    why: str


def urgent(headers: Sequence[Dataset], rules: Mapping[str, Urgency]) -> Urgent | None:
    """What the most urgent rule that matches says of a study, given one header per series; None: none matches."""
    found = [
        Urgent(rule.priority, f"urgent by the rule {name}: {said.why}")
        for name, rule in rules.items()
        if (said := match(name, rule.conditions, headers)).matched
    ]
    return min(found, key=lambda one: one.priority, default=None)

"""When a study has arrived."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.ledger import Ledger
from node.studies import Patience, Progress, after_an_instance, after_release, is_due, settle_time
from tests.ledgers import STUDY, arrival

NUMBERS = count(1)
PATIENCE = Patience(quiet=3, open=30, longest=600)


@pytest.mark.parametrize(
    ("case", "progress", "expected"),
    [
        ("released: the quiet time after the last instance", Progress(100, 110, 5), 113),
        ("released later: the quiet time after the release", Progress(100, 110, 5, released_at=120), 123),
        ("open: the patient time", Progress(100, 110, 5, open_associations=1), 140),
        ("another association is still open", Progress(100, 110, 5, open_associations=1, released_at=109), 140),
        ("open for ever: the longest wait", Progress(100, 690, 5, open_associations=2), 700),
        ("never quiet: the longest wait", Progress(100, 699, 5), 700),
        ("as many as were announced: at once", Progress(100, 110, 5, expected=5, open_associations=1), 110),
        ("fewer than announced: the longest wait", Progress(100, 110, 4, expected=5), 700),
        ("more than announced: the count is void", Progress(100, 110, 6, expected=5), 113),
    ],
)
def test_the_time_of_a_study_comes(case: str, progress: Progress, expected: float) -> None:
    assert settle_time(progress, PATIENCE) == expected, case
    assert is_due(progress, PATIENCE, expected)
    assert not is_due(progress, PATIENCE, expected - 0.001)


def test_a_long_quiet_time_of_a_peer_holds_while_its_line_is_open() -> None:
    assert Patience(quiet=60, open=30).open == 60


@pytest.mark.parametrize(("quiet", "longest"), [(-1, 10), (1, 0)])
def test_an_impossible_patience_is_refused(quiet: float, longest: float) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Patience(quiet=quiet, longest=longest)


@pytest.fixture(scope="module")
def one_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    folder: Path = tmp_path_factory.mktemp("studies")
    opened = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
    opened.upgrade()
    yield opened
    opened.close()


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.integers(0, 200), min_size=1, max_size=5),
    expected=st.none() | st.integers(1, 6),
    is_open=st.booleans(),
    until=st.integers(0, 800),
)
def test_the_ledger_and_the_rule_agree(
    one_ledger: Ledger, gaps: list[int], expected: int | None, is_open: bool, until: int
) -> None:
    study, now = f"{STUDY}.{next(NUMBERS)}", 1000.0
    for image, gap in enumerate(gaps):
        now += gap
        one = arrival(image, study=study, at=now, expected=expected)
        at = after_an_instance(now, PATIENCE)
        one_ledger.record([one], settle_at=at, settle_by_seconds=PATIENCE.longest, now=now)
    progress = Progress(1000.0 + gaps[0], now, len(gaps), expected, open_associations=int(is_open))
    if not is_open:
        one_ledger.settle_at([study], after_release(now, PATIENCE))
    moment = now + until
    assert (study in one_ledger.due(moment)) == is_due(progress, PATIENCE, moment)

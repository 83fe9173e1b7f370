"""Writing: the same job is the same bytes, all or nothing."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipelines import evidence
from pipelines.base import Finding, Findings, Measurement, derived_uid
from pipelines.evidence import InvalidEvidence, NotEvaluated, codes, outcome
from pipelines.evidence.masks import seg_masks
from pipelines.study import read_folder
from pipelines.synthetic import LARGE, brain_mr
from tests.findings import ALGORITHM, STARTED, lesion, nothing, outlined, slices, study_of, written


@pytest.fixture
def study(tmp_path):
    return study_of(slices(), tmp_path / "in")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("preset", ["ohif", "air"])
def test_the_same_job_makes_the_same_bytes(tmp_path, study, preset):
    for out in ("a", "b"):
        written(outlined(study.series[0]), study, tmp_path / out, preset=preset)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert set(digests(tmp_path / "a")) == {"seg.dcm", "sr.dcm"}


def test_another_job_makes_other_objects(tmp_path, study):
    first = written(outlined(study.series[0]), study, tmp_path / "a", job="one")
    second = written(outlined(study.series[0]), study, tmp_path / "b", job="two")
    for name, made in first.items():
        assert made.SOPInstanceUID != second[name].SOPInstanceUID
        assert made.SeriesInstanceUID != second[name].SeriesInstanceUID


def test_the_uids_derive_from_the_job(tmp_path, study):
    made = written(outlined(study.series[0]), study, tmp_path, job="one")
    assert made["sr.dcm"].SOPInstanceUID == derived_uid("one", "sr")
    assert made["seg.dcm"].SOPInstanceUID == derived_uid("one", "seg")


def test_other_weights_are_another_device(tmp_path, study):
    retrained = replace(ALGORITHM, weights_digest="cd" * 32)
    first = written(nothing(study.series[0]), study, tmp_path / "a")["sr.dcm"]
    second = written(nothing(study.series[0]), study, tmp_path / "b", algorithm=retrained)["sr.dcm"]
    assert first.ContributingEquipmentSequence[-1].DeviceUID != second.ContributingEquipmentSequence[-1].DeviceUID


def test_an_object_that_fails_its_check_leaves_nothing(tmp_path, study, monkeypatch):
    sound = outcome.check

    def strict(made: Dataset, **more: object) -> tuple[str, ...]:
        return ("the title is wrong",) if made.Modality == "SR" else sound(made, **more)

    monkeypatch.setattr(outcome, "check", strict)
    with pytest.raises(InvalidEvidence, match=r"sr\.dcm: the title is wrong"):
        written(outlined(study.series[0]), study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_does_not_take_it_leaves_nothing(tmp_path, study):
    out = tmp_path / "out"
    (out / ".sr.dcm.part").mkdir(parents=True)  # where the report would be written first
    with pytest.raises(OSError, match="directory"):
        written(outlined(study.series[0]), study, out)
    assert [path.name for path in out.iterdir() if path.is_file()] == []


def test_nobody_meets_half_an_object(tmp_path, study):
    """A reader that looks all the time sees files that are whole, or none."""
    out, sizes, over = tmp_path / "out", set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            sizes.update(path.stat().st_size for path in out.glob("*.dcm"))

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(3):
        written(outlined(study.series[0]), study, out)
    over.set()
    watcher.join()
    assert sizes <= {path.stat().st_size for path in out.glob("*.dcm")}


def test_the_lesion_of_a_synthetic_head_comes_back(tmp_path):
    truth = brain_mr(tmp_path / "in", seed=1, lesion=LARGE, slices=8, matrix=64)
    (head,), refused = read_folder(tmp_path / "in")
    flair = next(series for series in head.series if "FLAIR" in series.description)
    volume = Measurement(codes.VOLUME, truth.volume_cm3, codes.CUBIC_CENTIMETER)
    found = Finding(codes.FLAIR_ABNORMALITY, True, 0.9, segment=lesion(truth.mask), measurements=(volume,))
    made = written(Findings(flair, (found,), read=head.series), head, tmp_path / "out")
    assert not refused
    assert np.array_equal(seg_masks(tmp_path / "out" / "seg.dcm", flair)["FLAIR abnormality"], truth.mask)
    assert all(each.SyntheticData == "YES" for each in made.values())


def test_a_status_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="not one of unsuitable, withheld, failed"):
        NotEvaluated("read", "no reason")


def test_the_paths_come_segmentation_first(tmp_path, study):
    paths = evidence.write(
        outlined(study.series[0]), study=study, algorithm=ALGORITHM, job="j", started=STARTED, out=tmp_path / "o"
    )
    assert [path.name for path in paths] == ["seg.dcm", "sr.dcm"]

"""Orthanc takes every object in every form, by C-STORE and by STOW-RS, and gives it back equal."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from node import delivery, dicomweb
from node.destinations import Destination, outgoing
from pipelines.evidence.check import LABEL_MAP
from pipelines.forms import ENCODINGS, PRESETS, Wanted
from tests import peers
from tests.conformance import examples
from tests.findings import blob, blurred, lesion, outlined, slices, study_of, written
from tests.workplace import pacs

EVERY = frozenset().union(
    *(preset.forms for preset in PRESETS.values()),
    *(Wanted(regions, encoding).forms for regions in ("regions", "references") for encoding in ENCODINGS),
)


@peers.needs("Orthanc")
def test_every_object_comes_back_equal(tmp_path: Path) -> None:
    study = study_of(slices(modality="CT"), tmp_path / "in")
    series = study.series[0]
    segments = lesion(blob(series), "a"), lesion(blob(series, seed=3), "b", blurred(blob(series, seed=3)))
    with peers.orthanc(tmp_path / "orthanc") as orthanc:
        web = Destination("WEB", "dicomweb", url=orthanc.dicom_web)
        for job, destination in (("by C-STORE", pacs("ORTHANC", orthanc.dicom_port)), ("by STOW-RS", web)):
            out = tmp_path / job
            made = written(outlined(series, *segments), study, out, job=job, forms=EVERY)
            objects = [outgoing(out / name) for name in made]
            assert [answer.verdict for answer in delivery.send(destination, objects)] == ["delivered"] * len(made)
            for name, one in zip(made, objects, strict=True):
                (path,) = dicomweb.retrieve(web, tmp_path, one.study_uid, one.series_uid, one.sop_uid)
                assert dcmread(path) == made[name], name


@peers.needs("Orthanc")
def test_an_orthanc_that_takes_known_classes_alone_takes_every_kind_but_label_maps(tmp_path: Path) -> None:
    """As it is installed: by C-STORE, 1.10.1 knows no SOP class of Supplement 243."""
    made = {tmp_path / f"{place}.dcm": each for place, (_, each) in enumerate(examples())}
    for path, each in made.items():
        each.save_as(path)
    with peers.orthanc(tmp_path / "orthanc", UnknownSopClassAccepted=False) as orthanc:
        answers = list(delivery.send(pacs("ORTHANC", orthanc.dicom_port), [outgoing(path) for path in made]))
    taken = {answer.sop_uid for answer in answers if answer.verdict == "delivered"}
    refused = {each.SOPClassUID for each in made.values() if each.SOPInstanceUID not in taken}
    assert refused == {LABEL_MAP}
    assert len(answers) == len(made)

"""Orthanc takes every object in every form, by C-STORE and by STOW-RS, and gives it back equal."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from node import delivery, dicomweb
from node.destinations import Destination, outgoing
from pipelines.forms import ENCODINGS, PRESETS, Wanted
from tests import peers
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

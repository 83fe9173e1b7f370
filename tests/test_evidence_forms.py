"""Forms: one run's evidence in each way that a destination may ask for, with the same voxels and the same names."""

from __future__ import annotations

import shutil
import subprocess

import highdicom as hd
import numpy as np
import pytest
from pydicom.uid import RLELossless

from pipelines.evidence.check import check
from pipelines.evidence.check_report import measurement_groups
from pipelines.evidence.masks import seg_masks
from pipelines.forms import ENCODINGS, PRESETS, USUAL, Form, Kind, Wanted, on_disk
from tests.findings import GEOMETRIES, blob, image, lesion, nothing, outlined, slices, study_of, verdict, written
from tests.slices import enhanced

UNKNOWN = ("seg-labelmap.dcm", "sr-references-labelmap.dcm")  # to dciodvfy and to dcmtk: of Supplement 243
COMPRESSED = ("FRACTIONAL", "LABELMAP")
EVERY = frozenset().union(
    *(Wanted(regions, encoding).forms for regions in ("regions", "references") for encoding in ENCODINGS)
)


def in_(encoding: str, regions: str = "regions"):
    return Wanted(regions, encoding).forms


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("encoding", COMPRESSED)
def test_the_mask_comes_back_voxel_by_voxel(tmp_path, encoding, geometry):
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    made = written(outlined(series, lesion(blob(series), "a")), study, tmp_path, forms=in_(encoding))["seg.dcm"]
    assert made.file_meta.TransferSyntaxUID == RLELossless
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["a"], blob(series))
    read = hd.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        [each.SOPInstanceUID for each in series.instances],
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
        segment_numbers=[1],
    )
    assert np.array_equal(read[..., 0] > 0, blob(series))


@pytest.mark.parametrize("encoding", COMPRESSED)
@pytest.mark.parametrize("modality", ["DX", "XC"])
def test_so_does_that_of_one_picture(tmp_path, encoding, modality):
    study = study_of([image(1, modality=modality)], tmp_path / "in")
    series = study.series[0]
    for regions in ("regions", "references"):
        written(outlined(series), study, tmp_path / regions, forms=in_(encoding, regions))
        assert np.array_equal(seg_masks(tmp_path / regions / "seg.dcm", series)["FLAIR abnormality"], blob(series))


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_so_does_that_of_a_multi_frame_image(tmp_path, encoding):
    study = study_of([enhanced([30.0, 10.0, 20.0])], tmp_path / "in")
    series = study.series[0]
    mask = np.zeros((3, 4, 5), np.bool_)
    mask[0, 1, 2] = mask[2, 3, 4] = True
    written(outlined(series, lesion(mask)), study, tmp_path, forms=in_(encoding))
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["FLAIR abnormality"], mask)


@pytest.mark.parametrize(("shape", "encoding"), [((20, 24), "BINARY"), ((21, 25), "FRACTIONAL"), ((20, 26), "BINARY")])
def test_aligned_is_binary_where_a_frame_ends_with_a_byte(tmp_path, shape, encoding):
    """OHIF 3.13.2 cannot cut bits within a byte; it takes fractions that are all or nothing for BINARY."""
    study = study_of(slices(shape=shape), tmp_path / "in")
    series = study.series[0]
    made = written(outlined(series, lesion(blob(series), "a")), study, tmp_path, preset="viewer")
    assert made["seg.dcm"].SegmentationType == encoding
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["a"], blob(series))
    assert check(made["sr.dcm"], source=series.instances, beside=tuple(made.values())) == ()
    alike = written(outlined(series, lesion(blob(series), "a")), study, tmp_path / encoding, forms=in_(encoding))
    assert made["seg.dcm"].PixelData == alike["seg.dcm"].PixelData
    assert made["seg.dcm"].SOPInstanceUID != alike["seg.dcm"].SOPInstanceUID  # it is of another form


def test_files_for_programs_are_binary_on_every_grid_and_else_as_the_preset_says():
    assert on_disk(PRESETS["ohif"]).forms == USUAL
    assert all(on_disk(wanted) == wanted for name, wanted in PRESETS.items() if name != "ohif")


def test_segments_that_overlap_go_into_label_maps_of_their_own(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    apart = np.zeros_like(blob(series))
    apart[3, 0, 0] = True
    masks = {"one": blob(series), "two": blob(series, seed=3), "three": apart}
    found = outlined(series, *(lesion(mask, label) for label, mask in masks.items()))
    made = written(found, study, tmp_path, forms=in_("LABELMAP", "references"))
    labels = [[each.SegmentLabel for each in made[name].SegmentSequence[1:]] for name in ("seg.dcm", "seg-2.dcm")]
    assert labels == [["one", "three"], ["two"]]
    read = seg_masks(tmp_path / "seg.dcm", series) | seg_masks(tmp_path / "seg-2.dcm", series)
    assert all(np.array_equal(read[label], mask) for label, mask in masks.items())


def test_every_form_is_made_once_and_each_is_an_object_of_its_own(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=EVERY)
    assert len(made) == len(ENCODINGS) * 3  # a Segmentation and two reports each
    assert {"seg.dcm", "seg-labelmap.dcm", "sr.dcm", "sr-references-fractional.dcm"} < made.keys()
    assert len({each.SOPInstanceUID for each in made.values()}) == len(made)
    assert len({each.SeriesInstanceUID for each in made.values()}) == len(made)
    alone = written(outlined(study.series[0]), study, tmp_path / "alone", forms=USUAL)
    for name in alone:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_report_speaks_of_the_segmentation_of_its_own_form(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=EVERY)
    segs = {made[name].SOPInstanceUID: name for name in made if name.startswith("seg")}
    for encoding in ENCODINGS:
        for regions in ("regions", "references"):
            name = "sr.dcm" if (regions, encoding) == ("regions", "BINARY") else f"sr-{regions}-{encoding.lower()}.dcm"
            (item,) = made[name].CurrentRequestedProcedureEvidenceSequence
            named = {i.ReferencedSOPInstanceUID for s in item.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
            of_form = "seg.dcm" if encoding == "BINARY" else f"seg-{encoding.lower()}.dcm"
            assert [segs[uid] for uid in named & segs.keys()] == [of_form]


def test_a_report_without_a_segmentation_beside_it_has_the_outlines_alone(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=Wanted(segmentation="off").forms)
    assert list(made) == ["sr.dcm"]
    (group,) = measurement_groups(made["sr.dcm"])
    assert any(item.ValueType == "SCOORD" for item in group.ContentSequence)


def test_what_an_object_may_refer_to_is_checked_per_form(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=EVERY)
    source = study.series[0].instances
    report = made["sr-references-labelmap.dcm"]
    assert check(report, source=source, beside=(made["seg-labelmap.dcm"], report)) == ()
    assert any(
        "neither of the source" in said for said in check(report, source=source, beside=(made["seg.dcm"], report))
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda ds: setattr(ds, "SegmentsOverlap", "YES"), "a frame of a label map names a segment, or its segments"),
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[: len(ds.PixelData) // 2 & ~1]), "pieces of Pixel Data"),
        (lambda ds: setattr(ds.SegmentSequence[1], "SegmentNumber", 2), "not numbered"),
    ],
)
def test_a_wrong_label_map_is_found(tmp_path, change, sentence):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=in_("LABELMAP"))["seg.dcm"]
    assert check(made) == ()
    change(made)
    assert any(sentence in said for said in check(made))


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("modality", ["CT", "DX"])
def test_dciodvfy_finds_no_error(tmp_path, modality):
    """It is of 2022 and does not know label maps, nor what may be referred to in them: that is left to highdicom."""
    images = slices(modality="CT") if modality == "CT" else [image(1, modality="DX")]
    study = study_of(images, tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=EVERY)
    assert [line for name in made if name not in UNKNOWN for line in verdict(tmp_path / name)] == []


@pytest.mark.skipif(not shutil.which("dsrdump"), reason="dsrdump (dcmtk) is not installed")
def test_dsrdump_reads_every_report(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, forms=EVERY)
    for name in (name for name in made if name.startswith("sr") and name not in UNKNOWN):
        told = subprocess.run(["dsrdump", tmp_path / name], capture_output=True, check=False)
        assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_something_to_say_of_a_finding(tmp_path, name):
    study = study_of(slices(), tmp_path / "in")
    found = outlined(study.series[0]) if name != "legacy" else nothing(study.series[0])
    assert written(found, study, tmp_path, forms=PRESETS[name].forms) or name == "legacy"


def test_a_form_is_found_again_by_its_name():
    for form in {*EVERY, *USUAL, *(Form(kind) for kind in Kind)}:
        assert Form.named(str(form)) == form


@pytest.mark.parametrize(
    ("switches", "sentence"),
    [
        ({"segmentation": "MESH"}, 'segmentation is "MESH"; it may be off, BINARY, FRACTIONAL, LABELMAP'),
        ({"report": "on"}, 'report is "on"; it may be off, regions, references'),
        ({"report": "references", "segmentation": "off"}, "refers to segments"),
    ],
)
def test_a_switch_that_is_none_is_an_error(switches, sentence):
    with pytest.raises(ValueError, match=sentence):
        Wanted(**switches)

"""Segmentations: the mask comes back voxel by voxel, on the right image, with its names."""

from __future__ import annotations

import shutil

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from pipelines.base import Finding, Findings
from pipelines.evidence import InvalidEvidence, codes
from pipelines.evidence.masks import seg_masks
from tests.findings import (
    ALGORITHM,
    AXIAL,
    GEOMETRIES,
    SOP_CLASSES,
    blob,
    image,
    lesion,
    nothing,
    outlined,
    slices,
    study_of,
    verdict,
    written,
)
from tests.slices import enhanced

needs_dciodvfy = pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_mask_comes_back_voxel_by_voxel(tmp_path, modality, geometry):
    study = study_of(slices(modality=modality, geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    written(outlined(series), study, tmp_path)
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["FLAIR abnormality"], blob(series))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_highdicom_reads_the_same_voxels(tmp_path, geometry):
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    written(outlined(series), study, tmp_path)
    uids = [instance.SOPInstanceUID for instance in series.instances]
    read = hd.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(read[..., 0], blob(series))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_voxel_lies_where_the_source_pixel_lies(tmp_path, geometry):
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    series = study.series[0]
    made = written(outlined(series), study, tmp_path)["seg.dcm"]
    where = {instance.SOPInstanceUID: instance.ImagePositionPatient for instance in series.instances}
    assert made.FrameOfReferenceUID == series.header.FrameOfReferenceUID
    for group in made.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert group.PlanePositionSequence[0].ImagePositionPatient == where[source]
    shared = made.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == series.header.ImageOrientationPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == series.header.PixelSpacing


@needs_dciodvfy
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_dciodvfy_finds_no_error_in_a_stack(tmp_path, geometry):
    study = study_of(slices(geometry=GEOMETRIES[geometry]), tmp_path / "in")
    written(outlined(study.series[0]), study, tmp_path)
    assert verdict(tmp_path / "seg.dcm") == []


@needs_dciodvfy
@pytest.mark.parametrize("modality", [each for each in SOP_CLASSES if each not in ("CT", "MR")])
def test_one_picture_that_lies_nowhere_has_a_segmentation(tmp_path, modality):
    study = study_of([image(1, modality=modality)], tmp_path / "in")
    series = study.series[0]
    written(outlined(series), study, tmp_path)
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["FLAIR abnormality"], blob(series))
    assert verdict(tmp_path / "seg.dcm") == []


def test_a_frame_of_reference_without_a_place_in_it_is_not_repeated(tmp_path):
    study = study_of([image(1, modality="DX", FrameOfReferenceUID="1.2.3.9")], tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path)["seg.dcm"]
    assert "FrameOfReferenceUID" not in made


def test_an_unknown_sop_class_has_a_report_alone(tmp_path):
    study = study_of(slices(SOPClassUID="1.2.3.4.5.6"), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path)
    comments = [item.TextValue for item in made["sr.dcm"].ContentSequence[-1].ContentSequence if "TextValue" in item]
    assert comments == ["the outline is not stored as a Segmentation: the SOP class 1.2.3.4.5.6 is unknown"]


@needs_dciodvfy
def test_a_photograph_of_a_class_that_allows_several_frames_has_a_segmentation(tmp_path):
    fundus = image(
        1, modality="XC", SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.1", Modality="OP", NumberOfFrames=1, FrameTime="0"
    )
    study = study_of([fundus], tmp_path / "in")
    series = study.series[0]
    seg = written(outlined(series), study, tmp_path)["seg.dcm"]
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["FLAIR abnormality"], blob(series))
    (measures,) = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence  # OHIF needs the item
    assert "PixelSpacing" not in measures
    assert verdict(tmp_path / "seg.dcm") == []


def test_pictures_that_lie_nowhere_have_a_segmentation_each(tmp_path):
    study = study_of([image(1, modality="DX"), image(2, modality="DX")], tmp_path / "in")
    series = study.series[0]
    made = written(outlined(series), study, tmp_path)
    assert sorted(made) == ["seg-2.dcm", "seg.dcm", "sr.dcm"]
    both = [seg_masks(tmp_path / name, series)["FLAIR abnormality"] for name in ("seg.dcm", "seg-2.dcm")]
    assert np.array_equal(both[0] | both[1], blob(series))


def test_slices_at_one_place_go_into_several_segmentations(tmp_path):
    early, late = slices(4), slices(4)
    for number, ds in enumerate(late, start=5):
        ds.SOPInstanceUID, ds.InstanceNumber = f"1.2.3.4.{number}", number
    study = study_of([*early, *late], tmp_path / "in")
    series = study.series[0]
    mask = np.ones((8, 20, 24), np.bool_)
    made = written(outlined(series, lesion(mask)), study, tmp_path)
    assert [made[name].NumberOfFrames for name in ("seg.dcm", "seg-2.dcm")] == [4, 4]


def test_a_multi_frame_image_has_a_mask_in_the_order_of_its_places(tmp_path):
    study = study_of([enhanced([30.0, 10.0, 20.0])], tmp_path / "in")
    series = study.series[0]
    mask = np.zeros((3, 4, 5), np.bool_)
    mask[0, 1, 2] = mask[2, 3, 4] = True  # at z = 10 and 30
    made = written(outlined(series, lesion(mask)), study, tmp_path)["seg.dcm"]
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["FLAIR abnormality"], mask)
    positions = [g.PlanePositionSequence[0].ImagePositionPatient[2] for g in made.PerFrameFunctionalGroupsSequence]
    assert sorted(positions) == [10.0, 30.0]


def test_segments_that_overlap_come_back_whole(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    first, second = blob(series), blob(series, seed=3)
    made = written(outlined(series, lesion(first, "one"), lesion(second, "two")), study, tmp_path)["seg.dcm"]
    masks = seg_masks(tmp_path / "seg.dcm", series)
    assert made.SegmentsOverlap == "YES"
    assert np.array_equal(masks["one"], first)
    assert np.array_equal(masks["two"], second)


def test_masks_of_one_label_are_one_segment(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    right, left = blob(series), blob(series)[:, :, ::-1].copy()
    made = written(outlined(series, lesion(right, "lung"), lesion(left, "lung")), study, tmp_path)["seg.dcm"]
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == ["lung"]
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["lung"], right | left)


def test_an_absent_label_has_no_segment(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    found = (*outlined(series).findings, Finding(codes.MASS, False, 0.1, label="mass"))
    made = written(Findings(series, found, read=(series,)), study, tmp_path)["seg.dcm"]
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == ["FLAIR abnormality"]


def test_without_a_segment_there_is_no_segmentation(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    assert list(written(nothing(study.series[0]), study, tmp_path)) == ["sr.dcm"]


def test_a_segment_says_who_drew_it(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    (segment,) = written(outlined(study.series[0]), study, tmp_path)["seg.dcm"].SegmentSequence
    (drawn_by,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (drawn_by.AlgorithmName, drawn_by.AlgorithmVersion, drawn_by.AlgorithmSource) == (
        ALGORITHM.name,
        ALGORITHM.version,
        ALGORITHM.manufacturer,
    )
    assert drawn_by.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert len(segment.RecommendedDisplayCIELabValue) == 3


def test_every_source_image_is_referenced(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path)["seg.dcm"]
    (referenced,) = made.ReferencedSeriesSequence
    uids = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert uids == {instance.SOPInstanceUID for instance in study.series[0].instances}


def test_a_mask_off_its_grid_is_refused_and_nothing_is_left(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    off = np.ones((6, 24, 20), np.bool_)
    with pytest.raises(InvalidEvidence, match="the mask of 'FLAIR abnormality' is 6×24×20, but its series is 6×20×24"):
        written(outlined(series, lesion(off)), study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        ({"FrameOfReferenceUID": None}, "Frame Of Reference"),
        ({"FrameOfReferenceUID": ""}, "Frame Of Reference"),
        ({"PixelSpacing": None}, "how far apart their pixels are"),
        ({"PixelSpacing": ["0", "0"]}, "how far apart their pixels are"),
        ({"ImagePositionPatient": None}, "Frame Of Reference"),
        ({"ImageOrientationPatient": None}, "Frame Of Reference"),
    ],
)
def test_where_no_segmentation_can_be_made_the_report_has_the_outlines_and_says_why(tmp_path, lacking, why):
    study = study_of(slices(**lacking), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path, preset="air")
    assert list(made) == ["sr.dcm"]
    comments = [item.TextValue for item in made["sr.dcm"].ContentSequence[-1].ContentSequence if "TextValue" in item]
    assert any(why in comment for comment in comments)
    groups = made["sr.dcm"].ContentSequence[-2].ContentSequence
    assert any(item.ValueType == "SCOORD" for group in groups for item in group.ContentSequence)


def test_a_missing_slice_thickness_is_derived_and_said(tmp_path):
    study = study_of(slices(SliceThickness=None, geometry=AXIAL), tmp_path / "in")
    made = written(outlined(study.series[0]), study, tmp_path)
    assert made["seg.dcm"].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 3
    comments = [item.TextValue for item in made["sr.dcm"].ContentSequence[-1].ContentSequence if "TextValue" in item]
    assert any("Slice Thickness" in comment for comment in comments)


def test_a_slice_that_is_missing_leaves_the_others_in_their_places(tmp_path):
    study = study_of([ds for number, ds in enumerate(slices(7)) if number != 3], tmp_path / "in")
    series = study.series[0]
    written(outlined(series), study, tmp_path)
    assert np.array_equal(seg_masks(tmp_path / "seg.dcm", series)["FLAIR abnormality"], blob(series))


def test_the_masks_of_a_foreign_series_are_refused(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    written(outlined(study.series[0]), study, tmp_path)
    others = slices(geometry=((1, 0, 0), (0, 1, 0), (0, 0, 1.1)), SeriesInstanceUID="1.2.3.5")
    for number, ds in enumerate(others):
        ds.SOPInstanceUID = f"1.2.3.5.{number}"
    stranger = study_of(others, tmp_path / "other").series[0]
    with pytest.raises(InvalidEvidence, match="lies on no image"):
        seg_masks(tmp_path / "seg.dcm", stranger)


def test_a_report_is_no_segmentation(tmp_path):
    study = study_of(slices(), tmp_path / "in")
    written(nothing(study.series[0]), study, tmp_path)
    assert dcmread(tmp_path / "sr.dcm").Modality == "SR"
    with pytest.raises(InvalidEvidence, match=r"sr\.dcm is no BINARY"):
        seg_masks(tmp_path / "sr.dcm", study.series[0])

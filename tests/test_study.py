"""Promises of pipelines.study: whatever lies in a folder, what is read is in its place and what is not is named."""

from __future__ import annotations

import csv
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from pipelines.geometry import Plane
from pipelines.study import BadPixels, Series, read_files, read_folder
from tests.slices import AXIAL, enhanced, ramp, saved, slice_of, stack

CORPUS = Path(__file__).resolve().parents[2] / "shared/data/dicom_corpus"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="../shared/data/dicom_corpus is not there")


def only_series(paths: list[Path]) -> Series:
    studies, refused = read_files(paths)
    assert not refused
    ((series,),) = (study.series for study in studies)
    return series


def reason_of(path: Path) -> str:
    studies, refused = read_files([path])
    assert not studies
    (one,) = refused
    assert one.file == str(path)
    return one.reason


# Order and place


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    order=st.permutations(range(1, 7)),
    is_reversed=st.booleans(),
    distance=st.floats(0.3, 12),
)
def test_any_order_and_any_angle_make_the_same_volume(
    angles: tuple[float, float, float], order: list[int], is_reversed: bool, distance: float
) -> None:
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    row, column, normal = turn.T
    headers = []
    for place in order:
        where = normal * distance * place + (7.0, -3.0, 11.0)
        number = 7 - place if is_reversed else place
        ds = slice_of(number, ramp(place), ImageOrientationPatient=[*row, *column], ImagePositionPatient=list(where))
        headers.append(ds)
    series = Series("1.2.3.4", "CT", tuple(headers))
    assert series.is_volume
    assert not series.faults
    assert np.array_equal(series.volume(), np.stack([ramp(place) for place in range(1, 7)]))
    assert series.spacing == pytest.approx((distance, 1.0, 1.0))


@settings(max_examples=25, deadline=None)
@given(angles=st.tuples(*[st.floats(-180, 180)] * 3), tilt=st.floats(-3, 3))
def test_the_affine_puts_every_pixel_where_its_header_says(angles: tuple[float, float, float], tilt: float) -> None:
    row, column, normal = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T
    places = [normal * 2.0 * n + column * tilt * n + (5.0, 6.0, 7.0) for n in range(4)]
    series = Series(
        "1",
        "CT",
        tuple(
            slice_of(
                n + 1,
                ramp(n),
                ImageOrientationPatient=[*row, *column],
                ImagePositionPatient=list(place),
                PixelSpacing=[0.5, 0.25],
            )
            for n, place in enumerate(places)
        ),
    )
    assert series.affine is not None
    frame, r, c = 2, 3, 4
    # PS3.3 equation C.7.6.2.1-1
    expected = places[frame] + row * 0.25 * c + column * 0.5 * r
    assert (series.affine @ (frame, r, c, 1))[:3] == pytest.approx(expected, abs=1e-4)
    assert series.spacing == pytest.approx((2.0, 0.5, 0.25), abs=1e-4)


def test_a_single_slice_has_its_thickness_as_distance(tmp_path: Path) -> None:
    (path,) = stack(tmp_path, 1, SliceThickness=4.5)
    assert only_series([path]).spacing == (4.5, 1.0, 1.0)


def test_what_the_header_does_not_say_is_none(tmp_path: Path) -> None:
    series = only_series(stack(tmp_path, 3, PixelSpacing=None, FrameOfReferenceUID=None))
    assert series.is_volume
    assert (series.spacing, series.affine, series.frame_of_reference) == (None, None, None)


def test_without_geometry_the_instance_numbers_order_and_it_is_no_volume(tmp_path: Path) -> None:
    paths = stack(tmp_path, 12, ImagePositionPatient=None)
    series = only_series(paths[::-1])
    assert [int(each.InstanceNumber) for each in series.instances] == list(range(1, 13))
    assert not series.is_volume
    assert series.volume().shape == (12, 4, 5)


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    paths = stack(tmp_path, 20)
    series = only_series(paths[:12] + paths[13:])
    assert series.faults == ("slice missing between 12 and 14",)
    assert series.is_volume
    assert series.affine is None, "no affine can tell the truth of slices on both sides of a gap"


def test_two_slices_at_one_position_are_named(tmp_path: Path) -> None:
    paths = stack(tmp_path, 5)
    again = saved(slice_of(9, ramp(9), ImagePositionPatient=[0, 0, 3]), tmp_path / "again.dcm")
    series = only_series([*paths, again])
    assert series.faults == ("two slices at one position: 3 and 9",)
    assert not series.is_volume


def test_a_cine_says_its_phases_and_keeps_their_order(tmp_path: Path) -> None:
    paths = [
        saved(slice_of(n, ramp(n), ImagePositionPatient=[0, 0, (n - 1) // 3]), tmp_path / f"{n}.dcm")
        for n in range(1, 7)
    ]
    series = only_series(paths[::-1])
    assert series.faults == ("3 slices at each of 2 positions",)
    assert [int(each.InstanceNumber) for each in series.instances] == [1, 2, 3, 4, 5, 6]


def test_mixed_orientations_sizes_and_frames_of_reference_are_named(tmp_path: Path) -> None:
    paths = stack(tmp_path, 3)
    paths.append(saved(slice_of(4, ramp(4), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), tmp_path / "4.dcm"))
    paths.append(saved(slice_of(5, ramp(5, (8, 8)), FrameOfReferenceUID="1.9"), tmp_path / "5.dcm"))
    series = only_series(paths)
    assert not series.is_volume
    assert "the slices have several orientations" in series.faults
    assert "the slices have 2 sizes" in series.faults
    assert "the slices have 2 frames of reference" in series.faults
    with pytest.raises(BadPixels, match="2 sizes"):
        series.volume()


def test_uneven_distances_are_named_and_have_no_affine(tmp_path: Path) -> None:
    heights = (0.0, 1.0, 2.0, 3.3, 4.3)
    paths = [
        saved(slice_of(n, ramp(n), ImagePositionPatient=[0, 0, z]), tmp_path / f"{n}.dcm")
        for n, z in enumerate(heights)
    ]
    series = only_series(paths)
    assert series.faults == ("the distance between slices varies from 1.00 to 1.30 mm",)
    assert series.affine is None


@pytest.mark.parametrize("nonsense", [[0.0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 2, 0]])
def test_impossible_direction_cosines_are_no_geometry(tmp_path: Path, nonsense: list[float]) -> None:
    series = only_series(stack(tmp_path, 3, ImageOrientationPatient=nonsense))
    assert not series.is_volume
    assert series.affine is None


def test_a_plane_of_zeros_is_not_sound() -> None:
    assert not Plane((0.0, 0.0, 0.0), (0.0,) * 6, None).is_sound
    assert Plane((0.0, 0.0, 0.0), AXIAL, None).is_sound


# Enhanced multi-frame


def test_frames_of_an_enhanced_instance_come_in_geometric_order(tmp_path: Path) -> None:
    path = saved(enhanced([4.0, 0.0, 2.0]), tmp_path / "e.dcm")
    series = only_series([path])
    assert series.is_volume
    assert series.spacing == (2.0, 0.5, 0.25)
    assert [frame.number for frame in series.frames] == [2, 3, 1]
    assert np.array_equal(series.volume(), np.stack([ramp(2), ramp(3), ramp(1)]))


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    series = only_series([saved(enhanced([0.0, 1.0], slopes=[2.0, 0.5]), tmp_path / "e.dcm")])
    assert np.array_equal(series.volume(), np.stack([ramp(1) * 2.0, ramp(2) * 0.5]))


def test_a_gap_between_frames_is_named_by_frame(tmp_path: Path) -> None:
    series = only_series([saved(enhanced([0.0, 1.0, 2.0, 4.0, 5.0]), tmp_path / "e.dcm")])
    assert series.faults == ("slice missing between frame 3 and frame 4",)


def test_a_value_is_found_in_its_functional_group(tmp_path: Path) -> None:
    ds = enhanced([0.0, 1.0])
    timing = Dataset()
    timing.RepetitionTime = 9000.0
    ds.SharedFunctionalGroupsSequence[0].MRTimingAndRelatedParametersSequence = [timing]
    series = only_series([saved(ds, tmp_path / "e.dcm")])
    assert series.get("RepetitionTime") == 9000.0
    assert series.get("Modality") == "MR"
    assert series.get("EchoTime") is None


# Pixels


def test_stored_values_become_hounsfield_units(tmp_path: Path) -> None:
    series = only_series(stack(tmp_path, 2, RescaleSlope=2, RescaleIntercept=-1024))
    assert series.volume().dtype == np.float32
    assert np.array_equal(series.volume()[1], ramp(2) * 2.0 - 1024)


def test_a_ct_without_rescale_slope_is_said(tmp_path: Path) -> None:
    series = only_series(stack(tmp_path, 2, RescaleSlope=None))
    assert series.faults == ("the slices have no Rescale Slope, so perhaps no Hounsfield units",)


@pytest.mark.parametrize("slope", [0, 1e39])
def test_an_impossible_rescale_slope_is_an_error(tmp_path: Path, slope: float) -> None:
    series = only_series(stack(tmp_path, 2, RescaleSlope=slope))
    with pytest.raises(BadPixels, match="Rescale"):
        series.volume()


@pytest.mark.parametrize("written", [-2000, 63536])
def test_padding_takes_the_nearest_value_of_the_image(tmp_path: Path, written: int) -> None:
    pixels = ramp(1)
    pixels[0, :3] = -2000
    ds = slice_of(1, pixels)
    ds.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    volume = only_series([saved(ds, tmp_path / "1.dcm")]).volume()
    assert volume.min() == 103
    assert volume[0, 0, :3].tolist() == [103, 103, 103]
    assert volume[0, 3, 4] == 119


def test_monochrome1_is_said_and_not_inverted(tmp_path: Path) -> None:
    series = only_series(stack(tmp_path, 1, PhotometricInterpretation="MONOCHROME1"))
    assert series.is_inverted
    assert np.array_equal(series.volume()[0], ramp(1))


def test_bits_above_bits_stored_are_cleared_and_the_sign_kept(tmp_path: Path) -> None:
    stored = np.array([[-5, 7], [-2048, 2047]], np.int16)
    dirty = (stored.view(np.uint16) & 0x0FFF) | 0x5000
    ds = slice_of(1, dirty.view(np.int16), BitsStored=12, HighBit=11)
    assert only_series([saved(ds, tmp_path / "1.dcm")]).pixels(0).tolist() == stored.tolist()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_a_lossless_compressed_slice_has_the_pixels_it_had(tmp_path: Path, syntax: str) -> None:
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    ds = slice_of(1, pixels)
    ds.compress(syntax, generate_instance_uid=False)
    series = only_series([saved(ds, tmp_path / "1.dcm")])
    assert np.array_equal(series.pixels(0), pixels)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_compressed_frame_that_lies_about_its_size_is_not_decoded(tmp_path: Path, syntax: str) -> None:
    ds = slice_of(1, np.zeros((256, 256), np.uint8))
    ds.compress(syntax, generate_instance_uid=False)
    ds.Rows = ds.Columns = 8
    with pytest.raises(BadPixels, match="256 x 256 pixels, its header says 8 x 8"):
        only_series([saved(ds, tmp_path / "1.dcm")]).pixels(0)


def test_run_lengths_beyond_the_frame_are_an_error(tmp_path: Path) -> None:
    fitting, beyond = b"\xc1\x01", b"\x81\x01"  # 64 and 128 times the same byte, for 64 pixels
    header = struct.pack("<16L", 2, 64, 66, *[0] * 13)
    ds = slice_of(1, np.zeros((8, 8), np.uint16))
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.PixelData = encapsulate([header + fitting + beyond])  # a codec in Rust panics of it, with what is no Exception
    ds["PixelData"].is_undefined_length = True
    with pytest.raises(BadPixels, match="cannot be decoded"):
        only_series([saved(ds, tmp_path / "1.dcm")]).pixels(0)


@pytest.mark.parametrize("box", [b"\0\0\0\0free", b"\0\0\0\x07free", b"\0\0\0\x14free"])
def test_a_jp2_file_without_a_codestream_is_an_error_and_no_endless_search(tmp_path: Path, box: bytes) -> None:
    ds = slice_of(1, np.zeros((8, 8), np.uint8))
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([b"\0\0\0\x0cjP  \r\n\x87\n" + box + bytes(12)])
    ds["PixelData"].is_undefined_length = True
    with pytest.raises(BadPixels, match="a JP2 file without a codestream"):
        only_series([saved(ds, tmp_path / "1.dcm")]).pixels(0)


def test_an_absurd_size_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    ds = slice_of(1, np.zeros((8, 8), np.uint8))
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.Rows = ds.Columns = 65535
    series = only_series([saved(ds, tmp_path / "1.dcm")])
    with pytest.raises(BadPixels, match="more than is read at once"):
        series.pixels(0)
    with pytest.raises(BadPixels, match="more than is read at once"):
        series.volume()


def test_more_frames_than_bytes_are_refused(tmp_path: Path) -> None:
    (path,) = stack(tmp_path, 1, NumberOfFrames=2_000_000_000)
    assert reason_of(path) == f"2000000000 frames are announced in {path.stat().st_size} bytes"


def test_colour_is_rgb_and_makes_no_volume(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200
    ds = slice_of(1, picture[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB")
    ds.PlanarConfiguration = 0
    ds.add_new(0x7FE00010, "OB", picture.tobytes())
    series = only_series([saved(ds, tmp_path / "1.dcm")])
    assert np.array_equal(series.pixels(0), picture)
    assert not series.is_volume
    with pytest.raises(BadPixels, match="colour"):
        series.volume()


def test_pixels_shorter_than_the_header_says_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadPixels, match="instance 1: the pixel data is 40 bytes long where 400 are due"):
        only_series(stack(tmp_path, 1, Rows=40)).pixels(0)


# Bad files


def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    assert read_folder(tmp_path) == ((), ())


def test_one_bad_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    stack(tmp_path / "a", 3)
    (tmp_path / "a/notes.txt").write_text("no picture at all, only some words about one " * 9)
    (study,), (refused,) = read_folder(tmp_path)
    assert len(study.series[0].instances) == 3
    assert refused.reason == "it is not a DICOM file"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").touch()
    assert reason_of(tmp_path / "x.dcm") == "the file is empty"


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "x.dcm") == "the file cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("keyword", "uid", "reason"),
    [
        ("StudyInstanceUID", None, "no Study Instance UID"),
        ("StudyInstanceUID", "", "no Study Instance UID"),
        ("SeriesInstanceUID", None, "no Series Instance UID"),
        ("SOPInstanceUID", None, "no SOP Instance UID"),
        ("SOPClassUID", None, "no SOP Class UID"),
        ("StudyInstanceUID", "../../etc/cron.d/x", "its Study Instance UID breaks the rules for UIDs"),
        ("StudyInstanceUID", "1.02.3", "its Study Instance UID breaks the rules for UIDs"),
        ("StudyInstanceUID", "1.2.3.", "its Study Instance UID breaks the rules for UIDs"),
        ("StudyInstanceUID", "1." + "2" * 63, "its Study Instance UID breaks the rules for UIDs"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_instance_without_a_sound_identity_is_refused(
    tmp_path: Path, keyword: str, uid: str | None, reason: str
) -> None:
    assert reason_of(saved(slice_of(1, ramp(1), **{keyword: uid}), tmp_path / "x.dcm")) == reason


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (path,) = stack(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-13])
    assert reason_of(path) == "it is cut off: 40 bytes of pixel data are announced and 27 are there"


def test_every_cut_of_a_file_is_read_or_refused(tmp_path: Path) -> None:
    (path,) = stack(tmp_path, 1)
    whole = path.read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        studies, refused = read_files([path])
        assert len(studies) + len(refused) == 1


def test_a_deflated_file_is_refused_and_not_inflated(tmp_path: Path) -> None:
    (path,) = stack(tmp_path, 1)
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    saved(ds, path)
    head = path.read_bytes()[: 128 + 4 + 12 + ds.file_meta.FileMetaInformationGroupLength]
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(head + squeeze.compress(b"\0" * (1 << 26)) + squeeze.flush())
    assert reason_of(path) == "it is in the deflated transfer syntax, which is not read"


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    (path,) = stack(tmp_path, 1)
    path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(only_series([path]).volume()[0], ramp(1))


def test_sequences_nested_without_end_are_refused(tmp_path: Path) -> None:
    open_item = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (path,) = stack(tmp_path, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\x08\x00\x16\x00UI")] + open_item * 3000)
    assert reason_of(path) == "its sequences are nested too deeply"


def test_a_dicomdir_is_passed_over(tmp_path: Path) -> None:
    stack(tmp_path, 1)
    directory = slice_of(2, ramp(2), SOPClassUID="1.2.840.10008.1.3.10")
    saved(directory, tmp_path / "DICOMDIR")
    saved(directory, tmp_path / "by another name")
    (study,), refused = read_folder(tmp_path)
    assert not refused
    assert [each.SOPInstanceUID for each in study.series[0].instances] == ["1.2.3.4.1"]


def test_the_same_file_twice_is_one_instance(tmp_path: Path) -> None:
    (path,) = stack(tmp_path, 1)
    (tmp_path / "copy.dcm").write_bytes(path.read_bytes())
    (study,), refused = read_folder(tmp_path)
    assert not refused
    assert len(study.series[0].instances) == 1


def test_other_content_under_a_known_uid_is_refused(tmp_path: Path) -> None:
    stack(tmp_path, 1)
    other = saved(slice_of(1, ramp(2)), tmp_path / "other.dcm")
    (study,), (refused,) = read_folder(tmp_path)
    assert len(study.series[0].instances) == 1
    assert refused.file == str(other)
    assert refused.reason == "it has the SOP Instance UID of 01.dcm, but other content"


# Studies


def test_series_come_by_their_number_and_studies_apart(tmp_path: Path) -> None:
    for n, (study, number) in enumerate([("1.2", 10), ("1.2", 9), ("1.3", 1)]):
        ds = slice_of(n + 1, ramp(1), StudyInstanceUID=study, SeriesInstanceUID=f"1.5.{n}", SeriesNumber=number)
        saved(ds, tmp_path / f"{n}.dcm")
    studies, _ = read_folder(tmp_path)
    assert [[series.uid for series in study.series] for study in studies] == [["1.5.1", "1.5.0"], ["1.5.2"]]


@pytest.mark.parametrize(
    ("keyword", "value", "name"),
    [
        ("PatientID", "P2", "Patient ID"),
        ("PatientName", "Test^Two", "Patient's Name"),
        ("PatientBirthDate", "19700102", "Patient's Birth Date"),
        ("IssuerOfPatientID", "OTHER", "Issuer of Patient ID"),
    ],
)
def test_a_study_of_two_patients_is_said_to_be_mixed(tmp_path: Path, keyword: str, value: str, name: str) -> None:
    paths = [*stack(tmp_path, 2), saved(slice_of(3, ramp(3), **{keyword: value}), tmp_path / "3.dcm")]
    ((study,), _) = read_files(paths)
    assert study.mixed == f"the instances of this study differ in {name}"
    assert value not in study.mixed


def test_an_empty_issuer_is_no_other_patient(tmp_path: Path) -> None:
    odd: dict[str, Any] = {"IssuerOfPatientID": "", "PatientName": "Test^One^^^ "}
    paths = [*stack(tmp_path, 2), saved(slice_of(3, ramp(3), **odd), tmp_path / "3.dcm")]
    ((study,), _) = read_files(paths)
    assert study.mixed is None


def test_a_report_is_kept_with_its_modality_and_is_no_volume(tmp_path: Path) -> None:
    ds = slice_of(1, ramp(1), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    del ds.PixelData, ds.Rows, ds.Columns
    series = only_series([saved(ds, tmp_path / "sr.dcm")])
    assert (series.modality, series.is_volume, series.faults) == ("SR", False, ())
    with pytest.raises(BadPixels, match="holds no pictures"):
        series.volume()


# Real files


@needs_corpus
def test_every_file_of_the_corpus_is_read_or_refused_with_a_reason() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file() and path.suffix != ".csv"]
    assert len(files) == 234
    outcomes = [read_files([path]) for path in files]
    passed_over = [
        path for path, (studies, refused) in zip(files, outcomes, strict=True) if not studies and not refused
    ]
    assert sorted(path.name for path in passed_over) == ["DICOMDIR-bigEnd", "DIRFILE", "DIRFILE"]
    assert all(item.reason for _, refused in outcomes for item in refused)
    assert sum(len(studies) for studies, _ in outcomes) > 205


@needs_corpus
@pytest.mark.filterwarnings("ignore")
def test_every_picture_of_the_corpus_is_decoded_or_explained() -> None:
    studies, _ = read_folder(CORPUS)
    with (CORPUS / "manifest.csv").open() as file:
        can_be_read = {row["path"]: row["decodes_with_pydicom3_pylibjpeg"] == "yes" for row in csv.DictReader(file)}
    unread = {}
    for series in (series for study in studies for series in study.series if series.is_image):
        for index, instance in enumerate(series.instances):
            try:
                assert series.pixels(index).size
            except BadPixels as error:
                unread[str(Path(instance.filename).relative_to(CORPUS))] = str(error)
    assert not {name: reason for name, reason in unread.items() if can_be_read[name]}


@needs_corpus
@pytest.mark.filterwarnings("ignore")
def test_the_fast_way_gives_the_pixels_that_pydicom_gives() -> None:
    studies, _ = read_folder(CORPUS)
    compared = 0
    for series in (series for study in studies for series in study.series if series.is_image):
        for index, instance in enumerate(series.instances):
            whole = dcmread(instance.filename, force=True)
            if whole.file_meta.TransferSyntaxUID.is_compressed or whole.SamplesPerPixel != 1:
                continue
            try:
                expected = whole.pixel_array
            except ValueError:
                continue
            assert np.array_equal(series.pixels(index), expected), instance.filename
            compared += 1
    assert compared > 60


@needs_corpus
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_never_raises(tmp_path: Path) -> None:
    rng = random.Random(1)
    seeds = sorted(path for path in CORPUS.rglob("*.dcm") if path.stat().st_size < 40_000)
    path = tmp_path / "x.dcm"
    for _ in range(400):
        content = bytearray(rng.choice(seeds).read_bytes())
        for _ in range(rng.randint(1, 12)):
            content[rng.randrange(min(len(content), 3000))] = rng.randrange(256)
        path.write_bytes(content)
        studies, _ = read_files([path])
        for series in (series for study in studies for series in study.series):
            assert isinstance((series.is_volume, series.spacing, series.faults, series.description), tuple)
            try:
                series.volume()
            except BadPixels:
                continue

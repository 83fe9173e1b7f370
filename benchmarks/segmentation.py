"""A Segmentation of 300 slices of 512×512 from one label array, beside dcmqi and highdicom, in interleaved rounds.

    pip install dcmqi==1.5.7        in any environment; its itkimage2segimage on PATH, or named by --dcmqi
    .venv/bin/python benchmarks/segmentation.py [--dcmqi PROGRAM] [--rounds N]

Each writer is a process of its own, which has its peak memory measured. Told are the seconds of the whole process, as
dcmqi can only be measured, and those without the start of Python and the loading of the labels, as in a worker that is
warm: headers read, object made, file on disk with fsync. A round whose object does not give back every voxel counts as
an error. Writes segmentation.json and segmentation.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

SLICES, SIZE = 300, 512
COUNTS = (1, 10, 50)
WRITERS = ("wetread BINARY", "wetread LABELMAP", "dcmqi BINARY", "highdicom BINARY", "highdicom LABELMAP")
# A small process between, for the peak memory of a child begins with that of its parent. The last line of a writer in
# Python is its warm seconds and warm CPU seconds.
MEASURE = """
import json, os, subprocess, sys, time
begun = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
said = process.stdout.read().splitlines()
_, status, used = os.wait4(process.pid, 0)
row = {"whole": time.perf_counter() - begun, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}
if said and said[-1].startswith("{"):
    row |= json.loads(said[-1])
print(json.dumps(row))
sys.exit(status != 0)
"""


def labels_of(count: int) -> NDArray[np.uint8]:
    """(slices, rows, columns): upright ellipsoids beside each other, each on about a third of the slices."""
    labels = np.zeros((SLICES, SIZE, SIZE), np.uint8)
    side = int(np.ceil(np.sqrt(count)))
    pitch = (SIZE - 32) / side
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for number in range(count):
        row, column = (16 + pitch * (place + 0.5) for place in divmod(number, side))
        middle, half = 60 + 180 * (number + 0.5) / count, 54
        radius = 0.48 * min(pitch, 160)
        distance = np.hypot(rows - row, columns - column)
        for place in range(int(middle - half), int(middle + half) + 1):
            labels[place][distance < radius * np.sqrt(max(0.0, 1 - ((place - middle) / (half + 1)) ** 2))] = number + 1
    return labels


def write(writer: str, folder: Path, labels_file: Path, out: Path) -> dict[str, float]:
    """One object by one of the writers in Python; the seconds, and the CPU's, from the headers to the file on disk."""
    labels = np.load(labels_file)
    count = int(labels.max())
    import highdicom as hd
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    from pipelines.base import Algorithm
    from pipelines.evidence import codes, equipment
    from pipelines.evidence.encode import part10
    from pipelines.evidence.slices import fill, slices_of
    from pipelines.evidence.source import lean_images, take_over
    from pipelines.evidence.stamp import Stamp
    from pipelines.evidence.voxels import Masks
    from pipelines.study import read_folder

    maker, encoding = writer.split()
    algorithm = Algorithm("organs", "1.0.0", codes.ARTIFICIAL_INTELLIGENCE, "0" * 64)

    def made_on(images: list[Any], pixels: NDArray[np.uint8]) -> Any:
        descriptions = [
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"organ {number}",
                segmented_property_category=codes.TISSUE,
                segmented_property_type=codes.TISSUE,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=equipment.in_segment(algorithm),
            )
            for number in range(1, count + 1)
        ]
        return hd.seg.Segmentation(
            source_images=images,
            pixel_array=pixels,
            segmentation_type=encoding,
            segment_descriptions=descriptions,
            series_instance_uid=hd.UID(),
            series_number=9001,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            omit_empty_frames=True,
            transfer_syntax_uid=RLELossless if encoding == "LABELMAP" else ExplicitVRLittleEndian,
            **equipment.general(algorithm),
        )

    begun, cpu = time.perf_counter(), time.process_time()
    ((study,), _) = read_folder(folder)
    series = study.series[0]
    with out.open("wb") as file:
        if maker == "wetread":
            images = lean_images(series.instances)
            stamp = Stamp(take_over(series.header), algorithm, "benchmark", datetime(2026, 1, 1))
            slices = slices_of(images)
            if slices is None:
                raise RuntimeError("the images are no stack of slices")
            present = np.stack([np.bincount(plane.ravel(), minlength=count + 1) > 0 for plane in labels])
            masks = Masks(present[:, 1:].T, lambda segment, place: labels[place] == segment + 1)
            voxel = np.zeros((1, SIZE, SIZE), np.uint8)
            voxel[0, 0, 0] = 1
            first = [stamp.source.on(images[0])]
            object_ = fill(made_on(first, voxel), slices, masks)
            stamp.put_on(object_)
            file.writelines(part10(object_))
        else:
            made_on(list(series.instances), labels).save_as(file)
        file.flush()
        os.fsync(file.fileno())
    return {"warm": time.perf_counter() - begun, "warm cpu": time.process_time() - cpu}


def nrrd(labels: NDArray[np.uint8], folder: Path, path: Path) -> Path:
    """The labels as ITK reads them, uncompressed, where the images lie."""
    from pipelines.study import read_folder

    affine = read_folder(folder)[0][0].series[0].affine
    if affine is None:
        raise RuntimeError("the images are no even grid")
    axes = " ".join(f"({','.join(f'{each:.9g}' for each in affine[:3, axis])})" for axis in (2, 1, 0))
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: {SIZE} {SIZE} {SLICES}\n"
    head += f"space directions: {axes}\nspace origin: ({','.join(f'{each:.9g}' for each in affine[:3, 3])})\n"
    path.write_bytes((head + "kinds: domain domain domain\nencoding: raw\n\n").encode() + labels.tobytes())
    return path


def description(count: int, path: Path) -> Path:
    """dcmqi's description of the segments."""
    tissue = {"CodeValue": "85756007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Tissue"}
    segments = [
        {
            "labelID": number,
            "SegmentLabel": f"organ {number}",
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "organs",
            "SegmentedPropertyCategoryCodeSequence": tissue,
            "SegmentedPropertyTypeCodeSequence": tissue,
        }
        for number in range(1, count + 1)
    ]
    about = {"SeriesDescription": "organs", "SeriesNumber": "9001", "InstanceNumber": "1"}
    path.write_text(json.dumps(about | {"ContentCreatorName": "benchmark", "segmentAttributes": [segments]}))
    return path


def run(writer: str, dcmqi: str | None, folder: Path, count: int) -> dict[str, float]:
    """One writer in a process of its own: seconds (whole and warm), peak MiB, MiB of the file."""
    images, out = folder / "ct", folder / "out.dcm"
    out.unlink(missing_ok=True)
    if writer.startswith("dcmqi"):
        command = [str(dcmqi), "--inputDICOMDirectory", str(images), "--inputImageList", str(folder / f"{count}.nrrd")]
        command += ["--inputMetadata", str(folder / f"{count}.json"), "--outputDICOM", str(out), "--skip", "1"]
    else:
        labels = str(folder / f"{count}.npy")
        command = [sys.executable, __file__, "--write", writer, str(images), labels, str(out)]
    asked = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True)
    if asked.returncode:
        raise RuntimeError(f"{writer} failed: {asked.stdout[-300:]} {asked.stderr[-1000:]}")
    return {**json.loads(asked.stdout.splitlines()[-1]), "size": out.stat().st_size / 2**20}


def gives_back(path: Path, labels: NDArray[np.uint8], folder: Path) -> bool:
    """Whether highdicom reads the same voxels from an object."""
    import highdicom as hd

    from pipelines.study import read_folder

    instances = read_folder(folder)[0][0].series[0].instances
    read = hd.seg.segread(path).get_pixels_by_source_instance(
        [each.SOPInstanceUID for each in instances],
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
        combine_segments=True,
        skip_overlap_checks=True,
    )
    return bool(np.array_equal(read, labels))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dcmqi", default=shutil.which("itkimage2segimage"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        writer, *paths = given.write
        print(json.dumps(write(writer, *map(Path, paths))))
        return
    from pipelines import synthetic

    writers = [each for each in WRITERS if given.dcmqi or not each.startswith("dcmqi")]
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        synthetic.ct_slices(folder / "ct", count=SLICES, seed=1)
        for count in COUNTS:
            labels = labels_of(count)
            np.save(folder / f"{count}.npy", labels)
            nrrd(labels, folder / "ct", folder / f"{count}.nrrd")
            description(count, folder / f"{count}.json")
            rows = results[str(count)] = {writer: [] for writer in writers}
            for number in range(given.rounds + 1):  # the first warms up
                for writer in writers[number % len(writers) :] + writers[: number % len(writers)]:
                    row = run(writer, given.dcmqi, folder, count)
                    if number:
                        rows[writer].append(row)
                    elif writer.startswith("wetread") and not gives_back(folder / "out.dcm", labels, folder / "ct"):
                        raise RuntimeError("the object does not give back its voxels")
            print(table({str(count): rows}), flush=True)
    out = Path(__file__).with_suffix("")
    out.with_suffix(".json").write_text(json.dumps({"rounds": given.rounds, "all": results}, indent=1))
    out.with_suffix(".md").write_text(
        f"# Writing a Segmentation of {SLICES}×{SIZE}×{SIZE} from one label array\n\n"
        f"Medians of {given.rounds} interleaved rounds after one to warm up, on two shared cores. Whole: the process"
        " from its start, as dcmqi can only be measured; warm: without the start of Python and the loading of the"
        " labels, as in a worker. The ratios are of CPU seconds, to those of dcmqi's whole process in the same"
        " round: below 1 is cheaper. highdicom read the same voxels back from each of wetread's objects."
        f" The machine's load was {os.getloadavg()[2]:.0f} meanwhile.\n\n"
        + table(results)
        + "\n    .venv/bin/python benchmarks/segmentation.py --dcmqi itkimage2segimage\n"
    )


def table(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    head = "| segments | writer | whole, s | CPU, s | warm, s | warm CPU, s | CPU / dcmqi | warm CPU / dcmqi"
    lines = [f"{head} | MiB at peak | MiB |"]
    lines += ["| --- " * 10 + "|"]
    for count, rows in results.items():
        for writer, each in rows.items():
            cells = [_middle(each, name) for name in ("whole", "cpu", "warm", "warm cpu")]
            cells += [_ratio(each, rows.get("dcmqi BINARY", []), name) for name in ("cpu", "warm cpu")]
            cells += [f"{statistics.median(row[name] for row in each):.3g}" for name in ("peak", "size")]
            lines.append(f"| {count} | {writer} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _middle(rows: list[dict[str, float]], name: str, digits: int = 2) -> str:
    return f"{statistics.median(row[name] for row in rows):.{digits}f}" if rows and name in rows[0] else "–"


def _ratio(rows: list[dict[str, float]], peer: list[dict[str, float]], name: str) -> str:
    """Median and range over the rounds."""
    if not rows or not peer or name not in rows[0]:
        return "–"
    each = sorted(row[name] / other["cpu"] for row, other in zip(rows, peer, strict=False))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


if __name__ == "__main__":
    main()

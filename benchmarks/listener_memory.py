"""How much memory a listener takes while one multi-frame instance of 2 GB arrives: ours, Orthanc and storescp.

    python benchmarks/listener_memory.py [--megabytes 2048]

The sender is dcmtk's storescu; the instance is a sparse file, so that only the receivers' disk is used. The memory
of the server's processes (proportional set size: what they share is counted once) is sampled every 20 ms. The page
cache is not counted: the kernel takes it back.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

from receivers import HERE, SERVERS, NotTaken, enclosed, measure

SIDE = 512
FRAME = SIDE * SIDE * 2


def multiframe(path: Path, frames: int) -> Path:
    """An Enhanced CT instance of so many frames of zeros."""
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2.1", generate_uid(entropy_srcs=["memory"])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["memory study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["memory series"])
    ds.PatientID, ds.PatientName, ds.Modality = "SYNTHETIC", "Synthetic^Memory", "CT"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = SIDE
    ds.NumberOfFrames = frames
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, ds, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, frames * FRAME))
        file.truncate(file.tell() + frames * FRAME)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "ingest")
    options = parser.parse_args()
    enclosed()
    file = multiframe(options.folder / "multiframe.dcm", (options.megabytes << 20) // FRAME)
    size = file.stat().st_size / 1e6
    rows: list[dict[str, Any]] = []
    for server in SERVERS:
        try:
            run = measure(server, [file], associations=1, folder=options.folder / server.name)
        except NotTaken as refusal:
            print(refusal, flush=True)
            rows.append({"server": server.name, "peak_mb": None, "mb_per_second": None})
            continue
        rows.append({"server": server.name, "peak_mb": run["peak_mb"], "mb_per_second": size / run["seconds"]})
        print(f"{server.name:9} peak {run['peak_mb']:6.0f} MB  {size / run['seconds']:5.0f} MB/s", flush=True)
    file.unlink()
    command = f"python benchmarks/listener_memory.py --megabytes {options.megabytes}"
    results = {"command": command, "megabytes": size, "rows": rows}
    (HERE / "listener_memory.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = [
        "# Memory of the listener while one large instance arrives",
        "",
        f"`{command}`: one Enhanced CT instance of {size:.0f} MB, dcmtk storescu, one after the other.",
        "",
        "| server | peak MB | MB/s |",
        "| --- | --- | --- |",
        *map(_line, rows),
        "",
        "wetread's figure includes the ledger (SQLAlchemy, about 35 MB) in the same process.",
        "",
    ]
    (HERE / "listener_memory.md").write_text("\n".join(lines))


def _line(row: dict[str, Any]) -> str:
    if row["peak_mb"] is None:
        return f"| {row['server']} | did not take it | |"
    return f"| {row['server']} | {row['peak_mb']:.0f} | {row['mb_per_second']:.0f} |"


if __name__ == "__main__":
    main()

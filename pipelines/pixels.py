"""One instance's pixels, as they are stored: read from its file when they are asked for.

Sizes are checked before anything is allocated or decoded: the header against a cap, the compressed frame's own
header against the dataset's. Colour comes back as RGB. No rescale, no window, no inversion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.decoders.base import Decoder

from pipelines.instance import DEFLATED, meta, native_pixels, number, one_sentence, text

MAX_SAMPLES = 1 << 30  # per instance, all frames: 2 GiB at 16 bits
MAX_FRAME_SAMPLES = 1 << 27  # per compressed frame, which is decoded whole: 11,585² pixels
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_NATIVE_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
# Start Of Frame markers of JPEG (ITU-T T.81 Table B.1) and JPEG-LS (T.87 C.1.1), less DHT, JPG and DAC.
_START_OF_FRAME = frozenset({0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


class BadPixels(ValueError):
    """The pixels of an instance cannot be had; the sentence says which instance and why."""


def decode(header: Dataset) -> NDArray[Any]:
    """All frames of an instance: (rows, columns) or (frames, rows, columns), and (…, 3) uint8 for colour.

    Raises:
        BadPixels: If they are absent, cut off, damaged, too large, or in a form that is not read.
    """
    try:
        _refuse_absurd_size(header)
        plain = _plain(header)
        return plain if plain is not None else _decoded(header)
    except BadPixels as error:
        raise BadPixels(f"{_name(header)}: {error}") from error
    except Exception as error:
        raise BadPixels(f"{_name(header)}: the pixels cannot be decoded: {one_sentence(error)}") from error


def frame_count(header: Dataset) -> int:
    """Number of Frames; 1 where it is absent or impossible."""
    count = number(header, "NumberOfFrames")
    return int(count) if count and count >= 1 else 1


def has_pixels(header: Dataset) -> bool:
    """Whether there is Pixel Data in the dataset, or in the file that it was read from."""
    return getattr(header, "pixel_offset", None) is not None or "PixelData" in header


def _name(header: Dataset) -> str:
    return f"instance {text(header, 'InstanceNumber') or text(header, 'SOPInstanceUID')}"


def _shape(header: Dataset) -> tuple[int, int, int, int]:
    """(frames, rows, columns, samples)."""
    rows, columns = number(header, "Rows"), number(header, "Columns")
    if not rows or not columns or rows < 1 or columns < 1:
        raise BadPixels("it has no Rows and Columns, so no picture")
    return frame_count(header), int(rows), int(columns), int(number(header, "SamplesPerPixel") or 1)


def _refuse_absurd_size(header: Dataset) -> None:
    frames, rows, columns, samples = _shape(header)
    if frames * rows * columns * samples > MAX_SAMPLES:
        raise BadPixels(f"{frames} frames of {columns} x {rows} pixels are more than is read at once")


def _plain(header: Dataset) -> NDArray[Any] | None:
    """Uncompressed greyscale of whole bytes straight from the file; None where it is anything else."""
    bits = number(header, "BitsAllocated")
    frames, rows, columns, samples = _shape(header)
    offset: int | None = getattr(header, "pixel_offset", None)
    is_plain = meta(header, "TransferSyntaxUID") in _NATIVE and samples == 1 and bits in (8, 16, 32)
    if (
        not is_plain
        or offset is None
        or "PixelData" in header
        or text(header, "PhotometricInterpretation") == "PALETTE COLOR"
    ):
        return None
    is_signed = number(header, "PixelRepresentation") == 1
    dtype = np.dtype(f"<{'i' if is_signed else 'u'}{int(bits or 8) // 8}")
    due = frames * rows * columns * dtype.itemsize
    buffer = bytearray(due)
    with Path(header.filename).open("rb") as file:
        file.seek(offset)
        start, length = native_pixels(header, file)
        if length is None:
            raise BadPixels("it has no pixel data")
        file.seek(start)
        there = min(file.readinto(buffer), length)
    if there < due:
        raise BadPixels(f"the pixel data is {there} bytes long where {due} are due")
    array = np.frombuffer(buffer, dtype).reshape((frames, rows, columns) if frames > 1 else (rows, columns))
    return _without_unused_bits(array, int(number(header, "BitsStored") or bits or 8))


def _without_unused_bits(array: NDArray[Any], stored: int) -> NDArray[Any]:
    """Bits above Bits Stored hold old overlays or nothing (PS3.5 section 8.1.1); signed values get their sign back."""
    unused = array.dtype.itemsize * 8 - stored
    if 0 < unused < array.dtype.itemsize * 8:
        array <<= unused
        array >>= unused
    return array


def _decoded(header: Dataset) -> NDArray[Any]:
    """Whatever is not plain, by pydicom's decoders."""
    whole = header if "PixelData" in header else _whole(header)
    if "PixelData" not in whole:
        kind = "floating-point pixels, which are not read" if "FloatPixelData" in whole else "no pixel data"
        raise BadPixels(f"it has {kind}")
    syntax = meta(whole, "TransferSyntaxUID")
    if not syntax:
        raise BadPixels("its file does not say its transfer syntax")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise BadPixels(f"the transfer syntax {syntax} is not read") from error
    if syntax not in (*_NATIVE, _NATIVE_BIG_ENDIAN):
        _refuse_lying_frames(whole, syntax)
    # pydicom would take gdcm first where it is installed: 110 slices/s against 135
    plugin = "pyjpegls" if syntax in _JPEG_LS and "pyjpegls" in decoder.available_plugins else ""
    array = _unfolded(decoder, whole, plugin)
    if text(whole, "PhotometricInterpretation") == "PALETTE COLOR":
        array = apply_color_lut(array, whole)
        array = array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)
    return np.ascontiguousarray(array)


def _unfolded(decoder: Decoder, whole: Dataset, plugin: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = decoder.as_array(whole, decoding_plugin=plugin)[0]
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of a codec written in Rust (RLE); it is no Exception
            raise BadPixels(f"the pixels cannot be decoded: {one_sentence(error)}") from error
        raise
    return array


def _whole(header: Dataset) -> Dataset:
    if not getattr(header, "filename", None):
        raise BadPixels("it has no pixel data")
    if meta(header, "TransferSyntaxUID") == DEFLATED:
        raise BadPixels("it is in the deflated transfer syntax, which is not read")
    return dcmread(header.filename, force=True)


def _refuse_lying_frames(whole: Dataset, syntax: str) -> None:
    """392 bytes of JPEG 2000 can unfold to 144 MB though Rows and Columns say 8: its own header is looked at first."""
    frames, rows, columns, samples = _shape(whole)
    if rows * columns * samples > MAX_FRAME_SAMPLES:
        raise BadPixels(f"a compressed frame of {columns} x {rows} pixels is more than is read at once")
    if syntax == _RLE:
        return  # has no size of its own: the decoder fills Rows x Columns and refuses more
    for index in range(frames):
        size = coded_size(get_frame(whole.PixelData, index, number_of_frames=frames))
        if size is None:
            raise BadPixels("its compressed frame has no header that says its size")
        if size != (rows, columns):
            raise BadPixels(f"its compressed frame is {size[1]} x {size[0]} pixels, its header says {columns} x {rows}")


def coded_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) as a JPEG, JPEG-LS or JPEG 2000 codestream says; None where it has no such header."""
    start = _codestream_start(stream)
    if stream[start : start + 4] == b"\xff\x4f\xff\x51":  # SOC and SIZ (ITU-T T.800 A.5.1)
        xsize, ysize, xoffset, yoffset = (int.from_bytes(stream[start + 8 + i : start + 12 + i]) for i in (0, 4, 8, 12))
        return ysize - yoffset, xsize - xoffset
    place = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker in _START_OF_FRAME:
            return int.from_bytes(stream[place + 5 : place + 7]), int.from_bytes(stream[place + 7 : place + 9])
        place += 1 if marker == 0xFF else 2 + int.from_bytes(stream[place + 2 : place + 4])
    return None


def _codestream_start(stream: bytes) -> int:
    """Where the codestream begins: at 0, or in the jp2c box of a JP2 file, which PS3.5 A.4.4 forbids and files have.

    A box of no length makes pydicom 3.0.2 look for the next one for ever (``get_j2k_parameters``).
    """
    if not stream.startswith(_JP2_SIGNATURE):
        return 0
    place = 12
    while place + 8 <= len(stream):
        length = int.from_bytes(stream[place : place + 4])
        if stream[place + 4 : place + 8] == b"jp2c":
            return place + 8
        if length < 8:
            break
        place += length
    raise BadPixels("its compressed frame is a JP2 file without a codestream")

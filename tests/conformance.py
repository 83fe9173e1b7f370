"""The tables of the conformance statement, made from the code: ``python -m tests.conformance`` writes them into it.

What stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` in deploy/CONFORMANCE.md is made here, the rest
by hand. Which attributes an object has is looked up in objects that are made for it; to which module of
its IOD each belongs, in the standard's tables as highdicom carries them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom import dcmread
from pydicom.dataset import DataElement, Dataset
from pydicom.uid import UID

from node import answers
from node.listener.negotiation import STORAGE_CLASSES, TRANSFER_SYNTAXES
from pipelines import evidence
from pipelines.base import DerivedSeries, Findings, SaliencyMap
from pipelines.evidence import codes
from pipelines.evidence.objects import BUILDERS
from pipelines.forms import ENCODINGS, PRESETS, REGIONS, Form, Kind
from pipelines.study import Study
from tests.findings import ALGORITHM, STARTED, image, outlined, slices, study_of
from tests.peers import ROOT

STATEMENT = ROOT / "deploy" / "CONFORMANCE.md"
_TABLE = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SETTING = re.compile(r"^(?:# )?(\w+) = (.+?)\s+# (.+)$")
_NEWER = {"1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage"}  # than pydicom's dictionary
_SECTIONS = ("node", "node.tls", "web", "destinations.PACS", "destinations.WEB")
_FORMS = {
    *map(Form, BUILDERS),
    *(Form(Kind.SEGMENTATION, encoding=each) for each in ENCODINGS),
    *(Form(Kind.REPORT, each, "BINARY") for each in REGIONS),
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |\n" for line in lines)


def named(uid: str) -> tuple[str, str]:
    name = UID(uid).name
    return _NEWER.get(uid, name), uid


def accepted_classes() -> str:
    return table(("SOP class", "UID"), sorted(named(uid) for uid in STORAGE_CLASSES))


def accepted_syntaxes() -> str:
    return table(("transfer syntax, in the order of preference", "UID"), map(named, TRANSFER_SYNTAXES))


def sent() -> str:
    """What is made, and in which transfer syntax."""
    rows = {}
    for form, made in examples():
        how = made.SegmentationType if form.kind == Kind.SEGMENTATION else ""
        words = form.kind.name.replace("_", " ").lower()
        row = (f"{words} {how}".strip(), *named(made.SOPClassUID), UID(made.file_meta.TransferSyntaxUID).name)
        rows[row] = made
    return table(("object", "SOP class", "UID", "transfer syntax"), sorted(rows))


def presets() -> str:
    kinds = {name: {str(form) for form in wanted.forms} for name, wanted in PRESETS.items()}
    every = sorted(set().union(*kinds.values()))
    return table(
        ("form", *kinds), ([form, *("yes" if form in kinds[name] else "" for name in kinds)] for form in every)
    )


def modules() -> str:
    """By SOP class: the modules of its IOD that are filled, and with which attributes; what may be empty is marked."""
    parts, by_class = [], {}
    for _, made in examples():
        by_class.setdefault(str(made.SOPClassUID), {}).update({each.keyword: each for each in made})
    for sop_class, elements in sorted(by_class.items(), key=lambda item: named(item[0])):
        rows = _rows(sop_class, elements)
        parts.append(f"**{named(sop_class)[0]}**\n\n{table(('module', 'usage', 'attributes'), rows)}")
    return "\n".join(parts)


def _rows(sop_class: str, elements: dict[str, DataElement]) -> Iterable[tuple[str, str, str]]:
    left = dict(elements)
    for module in get_iod_module_map()[get_sop_class_iod_map()[sop_class]]:
        known = [each["keyword"] for each in get_module_attribute_map()[module["key"]] if not each["path"]]
        here = [keyword for keyword in dict.fromkeys(known) if keyword in left]
        if here:
            name = module["key"].replace("-", " ")
            yield name, module["usage"], ", ".join(_marked(left.pop(keyword)) for keyword in here)
    if left:
        yield "beyond the IOD", "", ", ".join(_marked(each) for each in left.values())


def _marked(element: DataElement) -> str:
    return f"{element.keyword}{' (empty)' if element.is_empty else ''}"


def coded() -> str:
    rows = sorted(
        (scheme, value, code.meaning, codes.SOURCES[value, scheme]) for (value, scheme), code in codes.TABLE.items()
    )
    return table(("scheme", "code", "meaning", "from"), rows)


def statuses() -> str:
    """What a C-STORE's Status leads to, the first row that holds."""
    return table(("status", "verdict", "meaning", "tries"), _statuses(answers.STORE_STATUS, "{:04X}"))


def http_statuses() -> str:
    return table(("status", "verdict", "meaning", "tries"), _statuses(answers.STOW_STATUS, "{}"))


def _statuses(rows: Iterable[answers.Row], form: str) -> Iterable[Sequence[object]]:
    for row in rows:
        span = dict.fromkeys((form.format(row.first), form.format(row.last)))
        yield " to ".join(span), row.verdict, row.meaning, row.tries or ("72 h" if row.verdict == answers.RETRY else "")


def settings() -> str:
    """The parameters of the network, as settings.toml has them."""
    section, rows = "", []
    for line in (ROOT / "settings.toml").read_text().splitlines():
        if head := re.match(r"^(?:# )?\[([\w.]+)\]", line):
            section = head[1]
        elif (found := _SETTING.match(line)) and section in _SECTIONS:
            rows.append((f"{section}.{found[1]}", f"`{found[2]}`", found[3]))
    return table(("parameter", "default or example", "what it says"), rows)


def examples() -> list[tuple[Form, Dataset]]:
    """An object of every kind and form: of an MR series, and of a photograph in colour."""
    global _made
    if not _made:
        with tempfile.TemporaryDirectory() as folder:
            _made = [*_of_slices(Path(folder) / "slices"), *_of_photograph(Path(folder) / "photograph")]
    return _made


_made: list[tuple[Form, Dataset]] = []


def _of_slices(folder: Path) -> Iterable[tuple[Form, Dataset]]:
    study = study_of(slices(), folder / "in")
    series = study.series[0]
    values = np.linspace(0, 1, 960, dtype=np.float32).reshape(2, 20, 24)
    derived = DerivedSeries(series, np.zeros((6, 20, 24), np.float32), "denoised", codes.SMOOTHING, "smoothed")
    maps = (SaliencyMap("FLAIR abnormality", codes.CLASS_ACTIVATION, (2, 3), values),)
    return _evidence(replace(outlined(series), maps=maps, derived=(derived,)), study, folder)


def _of_photograph(folder: Path) -> Iterable[tuple[Form, Dataset]]:
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "HighBit": 7}
    pixels = {"BitsAllocated": 8, "BitsStored": 8, "PixelData": bytes(20 * 24 * 3)}
    study = study_of([image(1, modality="XC", **colour, **pixels)], folder / "in")
    return [
        each for each in _evidence(outlined(study.series[0]), study, folder) if each[0].kind == Kind.PRESENTATION_STATE
    ]


def _evidence(findings: Findings, study: Study, folder: Path) -> list[tuple[Form, Dataset]]:
    made = evidence.write(
        findings, study=study, algorithm=ALGORITHM, job="job 1", started=STARTED, out=folder / "out", forms=_FORMS
    )
    return [(form, dcmread(path)) for path, form in made.items()]


TABLES: dict[str, Callable[[], str]] = {
    "accepted classes": accepted_classes,
    "accepted syntaxes": accepted_syntaxes,
    "sent": sent,
    "presets": presets,
    "modules": modules,
    "codes": coded,
    "statuses": statuses,
    "http statuses": http_statuses,
    "settings": settings,
}


def made_anew(statement: str) -> str:
    """The statement with its tables as the code is now."""
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", statement)


if __name__ == "__main__":
    STATEMENT.write_text(made_anew(STATEMENT.read_text()))
    sys.stdout.write(f"{STATEMENT} is as the code is\n")

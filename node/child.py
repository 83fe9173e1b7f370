"""The program that reads studies: a process of its own, so that whatever a study does to it takes nothing else along.

    python -m node.child REPLIES THREADS MEMORY_BYTES

One JSON line on standard input asks, one JSON line on the descriptor REPLIES answers; pipelines stay loaded between
the lines. What a pipeline prints goes to standard error. It has no network, no ledger and no queue to talk to: those
are its parent's, which also watches its time and its memory (warm.py).

    {"do": "load", "use": …}     → {"algorithm": {…}, "precision": sentence | null, "compares": bool} | {"fault": …}
    {"do": "read", "use": …, "name": …, "study": …, "files": […],
     "out": …, "job": …, "forms": […], "predecessors": {form: [sop, series]},
     "priors": [run, …]}
                                 → {"runs": […], "refused": […]} | {"fault": …}
    {"do": "report", "reason": …, "algorithm": {…}} and the rest as for "read", without loading the pipeline
                                 → the same: one run that failed, and its report
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import logging
import os
import resource
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pipelines import reading, registry
from pipelines.base import Algorithm, Pipeline
from pipelines.evidence import NotEvaluated, Predecessor
from pipelines.filing import Filing
from pipelines.forms import Form
from pipelines.instance import one_sentence, open_header, open_instance
from pipelines.priors import Prior, prior_of
from pipelines.run import Run
from pipelines.study import Study, read_files

Ask = dict[str, Any]


class Fault(Exception):
    """The question cannot be answered; one sentence says why."""


def main() -> None:
    descriptor, threads, memory = (int(text) for text in sys.argv[1:4])
    _make_harmless(memory)
    pipelines: dict[str, Loaded] = {}
    with os.fdopen(descriptor, "w", encoding="utf-8") as replies:
        for line in sys.stdin:
            replies.write(json.dumps(answer(json.loads(line), pipelines, threads)) + "\n")
            replies.flush()
            gc.collect()  # volumes hang in cycles (pydicom's datasets): the next study needs the room


@dataclass(frozen=True)
class Loaded:
    """A pipeline that is ready, and how it says that it computes."""

    pipeline: Pipeline
    precision: str | None


def answer(ask: Ask, pipelines: dict[str, Loaded], threads: int) -> dict[str, Any]:
    try:
        match ask["do"]:
            case "load":
                loaded = _loaded(ask["use"], pipelines, threads)
                compares = hasattr(loaded.pipeline, "since")
                about = asdict(loaded.pipeline.algorithm)
                return {"algorithm": about, "precision": loaded.precision, "compares": compares}
            case "read":
                return _read(ask, _loaded(ask["use"], pipelines, threads).pipeline)
            case "report":
                return _report(ask, _algorithm(ask["algorithm"]))
            case other:
                raise Fault(f"{other!r} is not something that can be asked")
    except Fault as fault:
        return {"fault": str(fault)}


def _loaded(use: str, pipelines: dict[str, Loaded], threads: int) -> Loaded:
    if use not in pipelines:
        try:
            pipeline = registry.load(use)
            _bound(threads)
            pipelines[use] = Loaded(pipeline, registry.warm_up(pipeline))
        except Exception as error:  # what a pipeline raises while it loads is its own affair
            raise Fault(one_sentence(error)) from error
    return pipelines[use]


def _algorithm(plain: dict[str, Any]) -> Algorithm:
    return Algorithm(**plain | {"family": Code(*plain["family"])})


def _read(ask: Ask, pipeline: Pipeline) -> dict[str, Any]:
    study, refused = _study(ask, open_instance)
    if study is None:
        return _report(ask | {"reason": _none_of(ask, refused)}, pipeline.algorithm)
    runs = reading.read(
        study,
        pipeline,
        name=ask["name"],
        out=Path(ask["out"]),
        job=ask["job"],
        forms=_forms(ask),
        predecessors=_predecessors(ask),
        priors=_priors(ask),
    )
    return {"runs": [run.as_json() for run in runs], "refused": refused}


def _report(ask: Ask, algorithm: Algorithm) -> dict[str, Any]:
    """Say in a report why the study is not read: where the reading was killed before it could, or has no pixels."""
    study, refused = _study(ask, open_header)
    if study is None:
        why = _none_of(ask, refused)
        said = "" if ask["reason"] == why else f"{ask['reason']}; "
        raise Fault(f"{said}{why}; no report can say so, for not even a header tells whose study it is")
    if study.mixed:
        raise Fault(f"{study.mixed}; nothing is written under a name that may be the wrong one")
    try:
        folder = Path(ask["out"]) / ask["name"]
        place = Filing(study, algorithm, ask["job"], folder, _forms(ask), _predecessors(ask))
        objects = place.put(NotEvaluated("failed", ask["reason"]), started=datetime.now().replace(microsecond=0))
    except Exception as error:  # its words may name the patient
        raise Fault(f"no report can be written: {type(error).__name__}") from error
    run = Run(ask["name"], algorithm.version, "failed", ask["reason"], objects=objects)
    return {"runs": [run.as_json()], "refused": refused}


def _forms(ask: Ask) -> list[Form]:
    return [Form.named(name) for name in ask["forms"]]


def _predecessors(ask: Ask) -> dict[Form, Predecessor]:
    return {Form.named(name): Predecessor(*uids) for name, uids in ask["predecessors"].items()}


def _priors(ask: Ask) -> list[Prior]:
    """The earlier readings of the patient whose reports are still there."""
    return [prior for run in ask.get("priors", ()) if (prior := prior_of(run, [Path(each) for each in run["objects"]]))]


def _study(ask: Ask, opened: Callable[[Path], Dataset]) -> tuple[Study | None, list[str]]:
    """The study, if any of its files can be opened so, and why the others cannot."""
    studies, refused = read_files(map(Path, ask["files"]), opened=opened)
    found = next((study for study in studies if study.uid == ask["study"]), None)
    return found, sorted({each.reason for each in refused})


def _none_of(ask: Ask, reasons: list[str]) -> str:
    why = f": {'; '.join(reasons[:3])}" if reasons else ""
    return f"none of the {len(ask['files'])} files of the study can be read{why}"


def _make_harmless(memory: int) -> None:
    """Limits, and no way to write what a patient is called anywhere but into the evidence."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file holds the study
    if memory:
        # Private writable memory: unlike RLIMIT_AS, this does not count what is reserved and never used (setrlimit(2)).
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.dup2(2, 1)  # whatever prints
    warnings.simplefilter("ignore")  # pydicom's warnings quote values
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    faulthandler.enable()  # names of functions, no values
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # if memory runs out, rather we than the listener


def _bound(threads: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        # Threads that wait by spinning cost a factor of 5 to 30 where two processes share the cores (measured).
        torch.set_num_threads(threads)


if __name__ == "__main__":
    main()

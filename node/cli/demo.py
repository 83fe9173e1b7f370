"""``wetread demo``: the whole node, a PACS and synthetic studies, and a table of what came back.

At a terminal it stays up until Ctrl-C; without one it ends after the table, with exit status 0 only if every study
came back. It shows that the node works; what the network finds in synthetic studies says nothing of its accuracy.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from node import delivery
from node.cli import came_back
from node.cli.options import console, out
from node.cli.pacs import Pacs, running
from node.cli.queue import AT_REST, ENDED
from node.cli.viewer import beside
from node.errors import BadSettings, NodeError, Unavailable
from node.ledger import DeliveryState, Ledger, StudyHistory

if TYPE_CHECKING:
    from pipelines.synthetic import Truth

WAIT_SECONDS = 600
MARK = "# Written by `wetread demo`."


@dataclass(frozen=True)
class Ports:
    dicom: int
    web: int
    pacs_dicom: int
    pacs_web: int


@click.command()
@click.option("--folder", default="demo", type=click.Path(path_type=Path), show_default=True, help="Where it all lies.")
@click.option("--ends", is_flag=True, help="End after the table also at a terminal.")
@click.option("--ohif", type=click.Path(path_type=Path), help="Built files of OHIF: show the studies in it, too.")
def demo(folder: Path, ends: bool, ohif: Path | None) -> None:
    """Show the whole: node, PACS, synthetic studies as a scanner would send them, and what came back.

    \b
    Example: wetread demo
    """
    from pipelines import synthetic

    folder = _emptied(folder.resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that node and PACS end with us
    # The first choices are the ports that the manuals name; what is taken is replaced.
    ports = Ports(*(_free(port) for port in (11112, 8114, 4242, 8042)))
    settings = _settings(folder, ports)
    console.print("Making synthetic brain MR studies …")
    truths = synthetic.demo_studies(folder / "studies")
    console.print("Starting the PACS …")
    with running(folder / "pacs", dicom_port=ports.pacs_dicom, http_port=ports.pacs_web, node_port=ports.dicom) as pacs:
        _name_the_pacs(settings, pacs)
        console.print(f"Starting the node (log: {folder / 'node.log'}) …")
        with _node(settings, folder / "node.log", ports):
            ledger = Ledger(f"sqlite:///{folder / 'data' / 'ledger.sqlite'}")
            try:
                _send(truths, ports, pacs)
                histories = _await(ledger, truths)
                missing = came_back.show(truths, histories, pacs)
            finally:
                ledger.close()
            _where_to_look(folder, settings, ports, pacs)
            with contextlib.ExitStack() as shown:
                if ohif:
                    if pacs.http is None:
                        raise BadSettings("--ohif: the small archive has no DICOMweb to show; install Orthanc")
                    address = shown.enter_context(beside(ohif, pacs.http, _free(8115), folder / "viewer.log"))
                    for truth in truths:
                        out.print(
                            f"{truth.title:<22} {address}/viewer?StudyInstanceUIDs={truth.study_uid}", soft_wrap=True
                        )
                if sys.stdout.isatty() and not ends:
                    _stay()
    if missing:
        raise NodeError(f"{missing} of {len(truths)} studies did not come back; see {folder / 'node.log'}")


def _emptied(folder: Path) -> Path:
    """The folder, new; only what an earlier demo left is removed."""
    if folder.exists() and any(folder.iterdir()):
        settings = folder / "settings.toml"
        if not (settings.is_file() and settings.read_text().startswith(MARK)):
            raise BadSettings(f"--folder {folder}: not empty, and not a folder of an earlier demo; name another")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _free(wanted: int) -> int:
    """``wanted``, or a free port where it is taken."""
    for port in (wanted, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as door:
                return int(door.getsockname()[1])
        except OSError:
            continue
    raise Unavailable("no free port on 127.0.0.1")


def _settings(folder: Path, ports: Ports) -> Path:
    file = folder / "settings.toml"
    file.write_text(
        f"""{MARK}
[node]
dicom_port = {ports.dicom}
web_port = {ports.web}
data = {json.dumps(str(folder / "data"))}
reserve_gib = 0.2
"""
    )
    return file


def _name_the_pacs(settings: Path, pacs: Pacs) -> None:
    with settings.open("a") as file:
        file.write(
            f"""
[destinations.PACS]
protocol = "dimse"
ae_title = "{pacs.name}"
host = "127.0.0.1"
port = {pacs.dicom_port}

[pipelines.mr_brain]
use = "pipelines.mr_brain:BrainTumour"
when = {{ Modality = "MR", BodyPartExamined = ["BRAIN", "HEAD"] }}
deliver_to = ["PACS"]
"""
        )


@contextmanager
def _node(settings: Path, log: Path, ports: Ports) -> Iterator[None]:
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "node", "--settings", str(settings), "up"]
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait_for_health(process, ports.web, log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    sentence = "no answer"
    for _ in range(600):
        if process.poll() is not None:
            raise Unavailable(f"the node ended with status {process.returncode}: {_last_line(log)}")
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status()
            return
        except httpx.HTTPError as error:
            sentence = str(error)
        time.sleep(0.1)
    raise Unavailable(f"the node did not become ready ({sentence}); its log: {log}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _send(truths: list[Truth], ports: Ports, pacs: Pacs) -> None:
    """To the node, and to the PACS, as a scanner does: evidence is shown on the images that it was drawn on."""
    scanner = delivery.Destination(
        name="node", protocol="dimse", ae_title="WETREAD", host="127.0.0.1", port=ports.dicom, calling_ae_title="MR1"
    )
    receivers = {"PACS": pacs.destination, "node": scanner}
    with _bar() as bar:
        total = sum(len(truth.files) for truth in truths) * len(receivers)
        task = bar.add_task("Sending as a scanner would", total=total)
        for truth, (name, receiver) in itertools.product(truths, receivers.items()):
            for answer in delivery.send(receiver, [delivery.outgoing(path) for path in truth.files]):
                if answer.verdict != "delivered":
                    raise NodeError(f"the {name} did not take {answer.sop_uid}: {answer.comment}")
                bar.advance(task)


def _await(ledger: Ledger, truths: list[Truth]) -> dict[str, StudyHistory]:
    """Wait until every study is at rest, its jobs have ended and its evidence is delivered or refused."""
    until = time.monotonic() + WAIT_SECONDS
    with _bar() as bar:
        task = bar.add_task("Settling, reading, delivering", total=len(truths))
        while True:
            known = {entry.uid for entry in ledger.studies(len(truths))}
            histories = {truth.study_uid: ledger.study(truth.study_uid) for truth in truths if truth.study_uid in known}
            done = sum(_is_over(history) for history in histories.values())
            bar.update(task, completed=done)
            if done == len(truths) or time.monotonic() > until:
                return histories
            time.sleep(0.2)


def _is_over(history: StudyHistory) -> bool:
    return (
        history.study.state in AT_REST
        and all(job.state in ENDED for job in history.jobs)
        and all(one.state in (DeliveryState.DELIVERED, DeliveryState.DEAD) for one in history.deliveries)
    )


def _where_to_look(folder: Path, settings: Path, ports: Ports, pacs: Pacs) -> None:
    where = f"{pacs.http}/app/explorer.html" if pacs.http else str(pacs.folder / "archive")
    out.print(f"PACS       {where}", soft_wrap=True)
    out.print(f"evidence   {folder / 'data' / 'evidence'}", soft_wrap=True)
    out.print(f"health     http://127.0.0.1:{ports.web}/health", soft_wrap=True)
    out.print(f"a scanner  AE title WETREAD, 127.0.0.1 port {ports.dicom}", soft_wrap=True)
    out.print(f"a folder   wetread --settings {settings} send FOLDER", soft_wrap=True)


def _stay() -> None:
    console.print("The node stays up. Ctrl-C ends it.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("Ending …")

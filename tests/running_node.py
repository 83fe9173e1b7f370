"""A whole node for tests and figures: `wetread up` with its own settings, and a PACS to deliver to."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from node.ledger import Ledger
from tests.peers import ROOT, Orthanc, free_port, where
from tests.waiting import PATIENCE, until

MR_BRAIN = """
[pipelines.mr_brain]
use = "pipelines.mr_brain:BrainTumour"
when = { Modality = "MR", BodyPartExamined = "BRAIN" }
deliver_to = ["PACS", "WEB"]
"""

Item = dict[str, dict[str, list[str]]]  # one answer of QIDO-RS, DICOM JSON


@dataclass(frozen=True)
class Node:
    """A node that runs, and the PACS that it delivers to."""

    folder: Path
    dicom_port: int
    web_port: int
    pacs: Orthanc
    settings: Path
    quiet_seconds: float = 1.0

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.folder / 'data' / 'ledger.sqlite'}")

    def send(self, folder: Path) -> None:
        command = [where("storescu") or "", "+sd", "+r", "+sp", "*.dcm", "-aec", "WETREAD", "-aet", "CT1"]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        target = ["127.0.0.1", str(self.dicom_port), str(folder)]
        subprocess.run([*command, *target], check=True, env=environment, capture_output=True, timeout=PATIENCE)

    def evidence(self, study_uid: str, *, count: int, sop_class: str = "", seconds: float = 240) -> list[Item]:
        """What the PACS has of the study (of this SOP class) by QIDO-RS, when it has at least ``count`` of it."""
        until = time.monotonic() + seconds
        found = []
        while time.monotonic() < until:
            wanted = {"SOPClassUID": sop_class} if sop_class else {}
            answer = httpx.get(f"{self.pacs.dicom_web}/studies/{study_uid}/instances", params=wanted, timeout=PATIENCE)
            found = answer.json() if answer.status_code == 200 and answer.content else []
            if len(found) >= count:
                return found
            time.sleep(0.5)
        history = self.ledger.study(study_uid)
        raise AssertionError(f"{len(found)} of {count} objects after {seconds} s; {history.study} {history.jobs}")

    def fetch(self, item: Item) -> io.BytesIO:
        return io.BytesIO(self.pacs.file(item["00080018"]["Value"][0]))


def run(settings: Path, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node", "--settings", str(settings), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@contextmanager
def running(folder: Path, pacs: Orthanc, pipelines: str = MR_BRAIN, *, root: Path = ROOT) -> Iterator[Node]:
    """``root``: the tree whose node runs, for a comparison with another."""
    folder.mkdir(parents=True, exist_ok=True)
    node = Node(folder, free_port(), free_port(), pacs, folder / "settings.toml")
    node.settings.write_text(
        f"""
[node]
dicom_port = {node.dicom_port}
web_port = {node.web_port}
data = {json.dumps(str(folder / "data"))}
quiet_seconds = {node.quiet_seconds}
reserve_gib = 0.1
peers = [{{ ae_title = "CT1", address = "127.0.0.0/8" }}]
[destinations.PACS]
protocol = "dimse"
ae_title = "{pacs.aet}"
host = "127.0.0.1"
port = {pacs.dicom_port}
[destinations.WEB]
protocol = "dicomweb"
url = "{pacs.dicom_web}"
{pipelines}"""
    )
    command = [sys.executable, "-m", "node", "--settings", str(node.settings), "up"]
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=root)
        try:
            _wait_until_ready(node, process)
            yield node
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(PATIENCE) == 0, (folder / "node.log").read_text()[-3000:]
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(node: Node, process: subprocess.Popen[bytes]) -> None:
    said = node.folder / "node.log"

    def is_ready() -> bool:
        assert process.poll() is None, said.read_text()[-3000:]
        try:
            return httpx.get(f"http://127.0.0.1:{node.web_port}/health", timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(is_ready, 2 * PATIENCE, "the node is ready")
    except AssertionError as late:
        raise AssertionError(f"{late}: {said.read_text()[-3000:]}") from None

"""``wetread viewer``: OHIF on a PACS, for a look at the evidence as a radiologist sees it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import httpx

from node.cli.options import console
from node.errors import BadSettings, Unavailable

CONFIG = Path("deploy/ohif/app-config.js")


@click.command()
@click.option("--ohif", required=True, type=click.Path(path_type=Path), help="The built files of OHIF (`make viewer`).")
@click.option("--config", default=CONFIG, show_default=True, type=click.Path(path_type=Path), help="Its app-config.js.")
@click.option("--pacs", default="http://127.0.0.1:8042", show_default=True, help="Whose DICOMweb, without /dicom-web.")
@click.option("--port", default=8115, show_default=True, type=click.IntRange(1, 65535))
def viewer(ohif: Path, config: Path, pacs: str, port: int) -> None:
    """Show a PACS in OHIF, on this machine alone. Ctrl-C ends it.

    \b
    Example: wetread viewer --ohif .cache/ohif/package/dist --pacs http://127.0.0.1:8042
    """
    from node.web.viewer import serve_viewer

    _refuse(ohif, config)
    console.print(f"OHIF on {pacs}: http://127.0.0.1:{port}/")
    serve_viewer(ohif, config, pacs, port=port)


@contextlib.contextmanager
def beside(ohif: Path, pacs: str, port: int, log: Path) -> Iterator[str]:
    """A viewer in a process of its own, while something else runs; gives its address.

    Raises:
        Unavailable: If it does not start; the sentence names its log.
    """
    _refuse(ohif, CONFIG)
    command = [sys.executable, "-m", "node", "viewer", "--ohif", str(ohif), "--pacs", pacs, "--port", str(port)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait(process, f"http://127.0.0.1:{port}/app-config.js", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(15)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(address, timeout=5).raise_for_status()
            return
        time.sleep(0.1)
    raise Unavailable(f"the viewer did not start; its log: {log}")


def _refuse(ohif: Path, config: Path) -> None:
    if not (ohif / "index.html").is_file():
        raise BadSettings(f"--ohif {ohif}: no index.html there; `make viewer` fetches OHIF")
    if not config.is_file():
        raise BadSettings(f"--config {config}: there is no such file")

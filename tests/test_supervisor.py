"""The supervisor with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from node.processes import how_it_ended
from node.supervisor import Part, Supervisor, supervise
from tests.waiting import PATIENCE, has_ended, until

ROOT = Path(__file__).parents[1]


def python(name: str, program: str, **others: object) -> Part:
    return Part(name, (sys.executable, "-u", "-c", program), **others)  # type: ignore[arg-type]


SLEEPS = "import time; time.sleep(600)"
STUBBORN = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"


@contextmanager
def running(*parts: Part, **others: object) -> Iterator[Supervisor]:
    supervisor = Supervisor(parts, **others)  # type: ignore[arg-type]
    supervisor.step()
    try:
        yield supervisor
    finally:
        supervisor.drain(2.0)


def pid(supervisor: Supervisor, name: str) -> int | None:
    found = supervisor.state()[name]["pid"]
    assert found is None or isinstance(found, int)
    return found


def test_a_part_that_dies_is_started_again() -> None:
    with running(python("a", SLEEPS), python("b", SLEEPS)) as supervisor:
        first, other = pid(supervisor, "a"), pid(supervisor, "b")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: (supervisor.step(), pid(supervisor, "a") not in (first, None))[1])
        assert supervisor.state()["a"]["last_end"] == "killed by SIGKILL"
        assert supervisor.state()["a"]["restarts"] == 1
        assert pid(supervisor, "b") == other


def test_a_part_that_always_dies_comes_back_ever_more_slowly() -> None:
    with running(Part("a", ("false",))) as supervisor:
        starts: list[float] = []

        def starts_again() -> bool:
            supervisor.step()
            if int(str(supervisor.state()["a"]["restarts"])) >= len(starts):
                starts.append(time.monotonic())
            return len(starts) == 3

        until(starts_again)
        first, second = (later - earlier for earlier, later in pairwise(starts))
        assert first > 0.5  # of the second that it waits: a busy machine may look late at the one start, not the other
        assert second > 1.5
        assert supervisor.state()["a"]["last_end"] == "ended with status 1"


def test_a_part_that_cannot_be_started_does_not_stop_the_others() -> None:
    with running(Part("lost", ("/nonexistent/program",)), python("a", SLEEPS)) as supervisor:
        assert supervisor.state()["lost"]["state"] == "waiting"
        assert "cannot be started" in str(supervisor.state()["lost"]["last_end"])
        assert supervisor.state()["a"]["state"] == "running"


def test_every_line_bears_the_name_of_its_part(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys, time; print('out'); print('err', file=sys.stderr); time.sleep(600)"
    lines: set[str] = set()
    with running(python("listen", program), python("web", program)):
        until(lambda: lines.update(capfd.readouterr().err.splitlines()) or len(lines) >= 4)
    assert lines >= {"listen │ out", "listen │ err", "web    │ out", "web    │ err"}


def test_what_a_part_is_given_comes_by_standard_input_and_stands_in_no_argv_or_environment(tmp_path: Path) -> None:
    program = "import sys, time; open(sys.argv[1], 'w').write(sys.stdin.read()); time.sleep(600)"
    seen = tmp_path / "seen"
    part = Part("a", (sys.executable, "-c", program, str(seen)), given=b"secret" * 50_000)
    assert "secret" not in repr(part)
    with running(part) as supervisor:
        until(lambda: seen.exists() and seen.stat().st_size == 300_000)
        process = psutil.Process(pid(supervisor, "a"))
        assert not any("secret" in text for text in (*process.cmdline(), *process.environ().values()))


def test_stop_drains_all_parts_and_leaves_no_process(tmp_path: Path) -> None:
    state = tmp_path / "parts.json"
    stop = threading.Event()
    thread = threading.Thread(
        target=supervise, args=([python("a", SLEEPS), python("b", SLEEPS)], stop), kwargs={"state_file": state}
    )
    thread.start()
    until(lambda: state.exists() and all(part["pid"] for part in json.loads(state.read_text()).values()))
    pids = [part["pid"] for part in json.loads(state.read_text()).values()]
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not any(psutil.pid_exists(each) for each in pids)
    assert not state.exists()


def test_who_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    supervisor = Supervisor([Part("a", (sys.executable, "-c", STUBBORN, str(tmp_path / "up")))])
    supervisor.step()
    until((tmp_path / "up").exists)
    number = pid(supervisor, "a")
    assert number is not None
    begun = time.monotonic()
    supervisor.drain(0.5)
    assert time.monotonic() - begun > 0.4
    assert not psutil.pid_exists(number)


def test_a_part_that_the_others_need_is_stopped_after_them(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    program = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(float(sys.argv[3])); open(sys.argv[1], 'a').write(sys.argv[2]); sys.exit()\n"
        "signal.signal(15, end); open(sys.argv[1] + sys.argv[2], 'w'); time.sleep(600)"
    )
    parts = [
        Part(name, (sys.executable, "-c", program, str(ends), name, pause), needed=name == "redis")
        for name, pause in (("redis", "0"), ("work", "0.5"))
    ]
    supervisor = Supervisor(parts)
    supervisor.step()
    until(lambda: all(ends.with_name(f"ends{part.name}").exists() for part in parts))
    supervisor.drain(PATIENCE)
    assert ends.read_text() == "workredis"


def test_the_parts_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    state = tmp_path / "parts.json"
    program = (
        "import sys, threading, pathlib; from node.supervisor import Part, supervise; "
        f"supervise([Part('a', (sys.executable, '-c', {SLEEPS!r}))], threading.Event(), "
        "state_file=pathlib.Path(sys.argv[1]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(state)], cwd=ROOT)
    until(lambda: state.exists() and json.loads(state.read_text())["a"]["pid"])
    child = json.loads(state.read_text())["a"]["pid"]
    parent.kill()
    parent.wait()
    until(lambda: has_ended(child))


def test_a_signal_ends_a_process_whatever_its_main_thread_is_doing() -> None:
    program = (
        "import os, signal, threading; from node.processes import on_signal\n"
        "stop, heard = threading.Event(), 0\n"
        "def hear(*_):\n"
        "    global heard\n"
        "    heard += 1; on_signal(stop)()\n"
        "signal.signal(15, hear); print('up', flush=True)\n"
        "while heard < 3000 or not stop.wait(1): stop.wait(0.00001); stop.clear() if heard < 3000 else None\n"
        "os._exit(0)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    def ends() -> bool:
        for _ in range(200):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.0001)
        return process.poll() is not None

    try:
        until(ends, what="it ends: its main thread does not wait for itself")
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_a_return_code_is_said_in_words() -> None:
    assert how_it_ended(0) == "ended with status 0"
    assert how_it_ended(-11) == "killed by SIGSEGV"
    assert how_it_ended(-250) == "killed by signal 250"

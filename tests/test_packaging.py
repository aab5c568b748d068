"""The image, the unit and the workflows name what exists."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.settings import PREFIX, ClientSettings, Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
UNIT = ROOT / "packaging" / "intaglio.service"
SETTINGS = {f"{PREFIX}{name.upper()}" for name in (*Settings.model_fields, *ClientSettings.model_fields)}


def steps_of(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job.get("steps", [])]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_least_rights_and_runs_what_exists(workflow: Path) -> None:
    assert "permissions" in yaml.safe_load(workflow.read_text())
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = "\n".join(step.get("run", "") for step in steps_of(workflow))
    assert {name for name in re.findall(r"make ([a-z-]+)", commands) if name not in targets} == set()
    named = re.findall(r"bash (\S+)", commands) + re.findall(r" (src/\S+)", commands)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_workflows_are_there() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "image", "release", "test", "wheels"]


def test_the_release_publishes_what_the_wheels_workflow_builds() -> None:
    wheels = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text())
    assert set(wheels["jobs"]) == {"wheels", "source"}
    assert len(wheels["jobs"]["wheels"]["strategy"]["matrix"]["system"]) == 4


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for name in line.split()
    ]
    assert {"pyproject.toml", "CMakeLists.txt", "csrc", "src", "requirements/serve.txt"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [name for name in copied if not any(fnmatch.fnmatch(name, one) for one in allowed)] == []


def test_the_image_has_what_a_build_of_the_package_reads() -> None:
    """The files that pyproject.toml and CMakeLists.txt name, as in the source distribution."""
    copied = (ROOT / "Dockerfile").read_text()
    assert all(name in copied for name in ("LICENSE", "NOTICE", "README.md"))


@pytest.mark.parametrize("file", [ROOT / "Dockerfile", ROOT / "compose.yaml", UNIT], ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(file: Path) -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]+\b", file.read_text())) - {f"{PREFIX}NAME"}
    assert named
    assert named - SETTINGS == set()


def test_the_settings_of_every_service_are_valid_and_the_image_has_the_driver_of_its_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    given = compose["services"]["server-with-postgresql"]["environment"]
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert load_settings().database_url is not None
    (lock,) = re.findall(r"requirements/\w+\.txt$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.search(r"^psycopg-binary==", (ROOT / lock).read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/intaglio/bin/intaglio", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_service_has_a_volume_and_a_read_only_root() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for name in ("server", "server-with-postgresql"):
        service = compose["services"][name]
        assert service["read_only"] is True
        (volume,) = service["volumes"]
        assert volume.split(":")[0] in compose["volumes"]

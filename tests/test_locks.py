"""The locks of requirements/ hold what pyproject.toml asks for, on every system and Python that it allows.

They are read as text and compared with pyproject.toml and with what the installed packages say: no index is asked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import pairwise, product
from pathlib import Path

import pytest
from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
# lock -> the arguments with which `make lock` has uv compile it
LOCKED = dict(re.findall(r"^LOCKED_([a-z]+) := (.+)$", MAKEFILE, re.MULTILINE))
CLIENT_LOCKS = sorted((ROOT / "tests" / "clients" / "requirements").glob("*.txt"))
ALL_LOCKS = [*(ROOT / "requirements" / f"{name}.txt" for name in LOCKED), *CLIENT_LOCKS]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"))
# Not locked: pip's configuration decides between the CPU and the CUDA build. Dependencies of the CUDA build are not
# locked either.
LEFT_TO_PIP = "torch"
CUDA_ONLY = re.compile(r"^(torch|triton|nvidia-.*|cuda-.*)$")


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of a lock: `name==version ; marker` with its hashes."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> NormalizedName:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        return str(self.requirement.specifier).removeprefix("==")

    def applies(self, environment: Environment) -> bool:
        return applies(self.requirement, environment)


def applies(requirement: Requirement, environment: Environment, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})


@cache
def read_lock(path: Path) -> tuple[Pin, ...]:
    text = re.sub(r"^ *#.*\n", "", path.read_text(), flags=re.MULTILINE)
    pins = []
    for entry in filter(None, re.split(r"(?<!\\)\n", text)):
        requirement, *hashes = re.split(r"\s*\\\n\s*--hash=", entry)
        pins.append(Pin(Requirement(requirement), tuple(hashes)))
    return tuple(pins)


def environments() -> Iterator[Environment]:
    """What markers are evaluated with, for every Python and machine that the locks are for."""
    for python, (system, machine) in product(PYTHONS, MACHINES):
        environment = default_environment()
        environment["python_version"] = python
        environment["python_full_version"] = f"{python}.0"
        environment["sys_platform"] = system
        environment["platform_system"] = system.capitalize()
        environment["platform_machine"] = machine
        yield environment


def chosen(lock: Path, environment: Environment) -> dict[NormalizedName, str]:
    """What an installer takes from a lock: name -> version. Two pins of one name that both apply would be a fault."""
    pins = [pin for pin in read_lock(lock) if pin.applies(environment)]
    assert len({pin.name for pin in pins}) == len(pins), f"{lock.name}: a package is pinned twice"
    return {pin.name: pin.version for pin in pins}


def asked_for(name: str) -> list[Requirement]:
    """What a lock must hold: the words of the Makefile that make it, looked up in pyproject.toml."""
    words = LOCKED[name].split()
    found = list(PROJECT["project"]["dependencies"]) if "pyproject.toml" in words else []
    for option, value in pairwise(words):
        if option == "--extra":
            found += PROJECT["project"]["optional-dependencies"][value]
        elif option == "--group":
            found += PROJECT["dependency-groups"][value]
    return [Requirement(each) for each in found]


def faults(requirements: list[Requirement], pins: dict[NormalizedName, str], environment: Environment) -> list[str]:
    """The requirements that hold in this environment and that the pins do not satisfy."""
    found = []
    for requirement in requirements:
        pinned = pins.get(canonicalize_name(requirement.name))
        if requirement.name == LEFT_TO_PIP or not applies(requirement, environment):
            continue
        if pinned is None:
            found.append(f"{requirement} is not there")
        elif not requirement.specifier.contains(pinned, prereleases=True):
            found.append(f"{requirement} is pinned to {pinned}")
    return found


@pytest.mark.parametrize("name", LOCKED)
def test_a_lock_satisfies_pyproject_on_every_python_and_machine(name: str) -> None:
    lock = ROOT / "requirements" / f"{name}.txt"
    wrong = {fault for one in environments() for fault in faults(asked_for(name), chosen(lock, one), one)}
    assert not wrong, f"{lock.name} is older than pyproject.toml; run `make lock`: {sorted(wrong)}"


def test_a_requirement_that_a_lock_does_not_satisfy_is_reported() -> None:
    here = default_environment()
    asked = [Requirement("a>=2"), Requirement("b<2"), Requirement("c; python_version < '3'"), Requirement("d[x]==1.0")]
    pins = {canonicalize_name("b"): "2.1", canonicalize_name("d"): "1.0"}
    assert faults(asked, pins, here) == ["a>=2 is not there", "b<2 is pinned to 2.1"]


def test_the_lock_of_this_environment_holds_what_the_packages_bring_with_them() -> None:
    """Follows the requirements of the installed packages, extras included: pyproject.toml does not name those."""
    here = default_environment()
    pins = chosen(ROOT / "requirements" / "test.txt", here)
    installed = {canonicalize_name(one.name): one.version for one in metadata.distributions()}
    if not pins.items() <= installed.items():
        pytest.skip("other versions than those of requirements/test.txt are installed here")
    waiting, seen, wrong = asked_for("test"), set(), []
    while waiting:
        requirement = waiting.pop()
        wrong += faults([requirement], pins, here)
        for extra in ("", *sorted(requirement.extras)):
            if (requirement.name, extra) not in seen and canonicalize_name(requirement.name) in pins:
                seen.add((requirement.name, extra))
                for brought in map(Requirement, metadata.requires(requirement.name) or ()):
                    if applies(brought, here, extra):
                        brought.marker = None  # evaluated above, together with the extra
                        waiting.append(brought)
    assert wrong == []
    assert len(seen) > len(asked_for("test"))


def test_the_locks_agree_on_one_version_of_each_package() -> None:
    for environment in environments():
        versions: dict[NormalizedName, set[str]] = {}
        for name in LOCKED:
            for package, version in chosen(ROOT / "requirements" / f"{name}.txt", environment).items():
                versions.setdefault(package, set()).add(version)
        assert {package: found for package, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("lock", ALL_LOCKS, ids=lambda lock: lock.name)
def test_every_pin_is_exact_and_has_hashes(lock: Path) -> None:
    pins = read_lock(lock)
    assert pins
    assert [str(pin.requirement) for pin in pins if not str(pin.requirement.specifier).startswith("==")] == []
    sha256 = re.compile(r"sha256:[0-9a-f]{64}")
    assert [str(pin.requirement) for pin in pins if not pin.hashes or not all(map(sha256.fullmatch, pin.hashes))] == []


@pytest.mark.parametrize("lock", ALL_LOCKS, ids=lambda lock: lock.name)
def test_no_lock_names_an_index_or_a_file(lock: Path) -> None:
    assert re.findall(r"^.*(?:://|--index|--extra-index|--find-links|file:).*$", lock.read_text(), re.MULTILINE) == []


@pytest.mark.parametrize("lock", ALL_LOCKS, ids=lambda lock: lock.name)
def test_no_lock_holds_torch_or_cuda(lock: Path) -> None:
    assert [pin.name for pin in read_lock(lock) if CUDA_ONLY.match(pin.name)] == []


def test_torch_has_one_version_everywhere() -> None:
    versions = set(re.findall(r"^TORCH := (\S+)$", MAKEFILE, re.MULTILINE))
    for extra in ("train", "oracle"):
        versions |= set(re.findall(r"torch==(\S+)", " ".join(PROJECT["project"]["optional-dependencies"][extra])))
    assert len(versions) == 1


def test_the_group_of_build_requirements_holds_those_of_the_build_system() -> None:
    assert set(PROJECT["build-system"]["requires"]) <= set(PROJECT["dependency-groups"]["build"])


@pytest.mark.parametrize("lock", CLIENT_LOCKS, ids=lambda lock: lock.name)
def test_a_client_is_locked_in_the_version_that_is_asked_for(lock: Path) -> None:
    asked = [Requirement(line) for line in lock.with_suffix(".in").read_text().splitlines() if not line.startswith("#")]
    assert asked
    assert [fault for one in environments() for fault in faults(asked, chosen(lock, one), one)] == []

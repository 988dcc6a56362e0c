"""Lock files have what requirements.txt pins, with hashes (`make lock` makes them), and all files name one version."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SHA256 = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pinned(version):
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    environment = {"python_version": version, "platform_system": "Linux"}
    return {
        f"{canonicalize_name(each.name)}{each.specifier}"
        for each in map(Requirement, filter(None, lines))
        if each.marker is None or each.marker.evaluate(environment)
    }


def locked(version):
    """Return the lines under each package, by its own line."""
    packages = {}
    for line in (ROOT / "requirements" / f"lock-{version}.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        entry = line.removesuffix("\\").strip()
        if line.startswith(" "):
            packages[next(reversed(packages))].append(entry)
        else:
            packages[entry] = []
    return packages


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_lock_names_what_is_pinned_and_nothing_else(version):
    assert set(locked(version)) == pinned(version)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_package_of_a_lock_has_hashes_and_nothing_but_hashes(version):
    for package, hashes in locked(version).items():
        assert hashes, package
        assert all(map(SHA256.fullmatch, hashes)), package


def test_every_supported_python_has_its_lock():
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    assert sorted(path.name for path in (ROOT / "requirements").glob("lock-*")) == [
        f"lock-{version}.txt" for version in classifiers
    ]


def test_the_version_is_the_same_everywhere():
    (packaged,) = re.findall(r"^version = (.+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    described = re.findall(r"^## \[(\d.+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert packaged == cited == described[0]

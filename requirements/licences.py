"""Prints docs/licences.md: every package of requirements.txt with its versions and the licence its metadata name."""

import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"

TITLE = """# Licences

These are the licences of the packages that requirements.txt pins, from the packages' own metadata. `make licences`
makes this page. The package itself is under Apache-2.0. The extras `bench`, `cuda12`, `cuda13`, `docs`, `embed`
(onnxruntime: MIT; tokenizers: Apache-2.0), `embed-torch` (sentence-transformers: Apache-2.0; torch: BSD-3-Clause and
others), `onnx`, `plan-cuda`, `plan-tpu` and `tpu` install further packages, which are not listed.

| package | versions | licence |
| --- | --- | --- |"""


def pinned() -> dict[str, list[str]]:
    """The versions of each package, for any Python."""
    versions: dict[str, list[str]] = {}
    for line in REQUIREMENTS.read_text().splitlines():
        if entry := line.partition("#")[0].strip():
            package = Requirement(entry)
            versions.setdefault(package.name, []).append(str(package.specifier).removeprefix("=="))
    return versions


def licence(package: PackageMetadata) -> str:
    """Its licence expression, or what older metadata have instead: classifiers, or a line of text; "" without any."""
    classified = [
        value.rpartition(" :: ")[2] for value in package.get_all("Classifier", []) if value.startswith("License :: ")
    ]
    # Some put the whole text into the field of older metadata; its first line is the title.
    text = (package.get("License") or "").strip().partition("\n")[0]
    return package.get("License-Expression") or ", ".join(classified) or text


def main() -> None:
    """Prints the page, or says which package it cannot be made for."""
    rows = []
    for name, versions in sorted(pinned().items(), key=lambda item: item[0].lower()):
        try:
            package = metadata(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed: install requirements.txt first")
        if package["Version"] not in versions:
            sys.exit(
                f"{name} is installed in version {package['Version']}, not as requirements.txt pins it: install that"
            )
        found = licence(package)
        if not found:
            sys.exit(
                f"the metadata of {name} name no licence that {Path(__file__).name} finds: teach it where it stands"
            )
        rows.append(f"| {name} | {', '.join(versions)} | {found} |")
    print(TITLE, *rows, sep="\n")


if __name__ == "__main__":
    main()

"""What the packages bring along: an SBOM (CycloneDX 1.6 in JSON) and the licence of each package, as installed here.

python tools/sbom.py --out build/sbom.json          # perceiver-deploy with its extras
python tools/sbom.py --licences docs/licences.md    # both packages, as a page
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click
import tomllib
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECTS = {"perceiver-runtime": ROOT / "runtime", "perceiver-deploy": ROOT}
EXTRAS = {
    "perceiver-runtime": ("cpu", "images", "signing"),
    "perceiver-deploy": ("cpu", "data", "hub", "plot", "signing"),
}
"""Extras that an SBOM covers: those for a processor. TensorRT is the device's, with a licence of NVIDIA's."""
CLASSIFIER = "License :: OSI Approved :: "


@dataclass(frozen=True)
class Package:
    """An installed package, its licence as its metadata state it, and the packages that it needs."""

    name: str
    version: str
    licence: str
    needs: tuple[str, ...]


def packages_of(project: str, extras: Sequence[str] = ()) -> dict[str, Package]:
    """All that a project needs, itself first, from its `pyproject.toml` and the metadata of what is installed."""
    table = tomllib.loads((PROJECTS[project] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*table["dependencies"], *(each for extra in extras for each in table["optional-dependencies"][extra])]
    needs = [Requirement(text) for text in texts]
    names = tuple(canonicalize_name(each.name) for each in needs)
    found = {project: Package(project, _release(), table["license"], names)}
    while needs:
        requirement = needs.pop(0)
        name = canonicalize_name(requirement.name)
        if name in PROJECTS and name not in found:
            found |= packages_of(name)
        elif name not in found:
            distribution = metadata.distribution(name)
            inner = list(_needed(distribution, requirement.extras))
            needs += inner
            found[name] = Package(
                name, distribution.version, _licence(distribution), tuple(canonicalize_name(i.name) for i in inner)
            )
    return found


def sbom(packages: dict[str, Package]) -> str:
    """The packages as CycloneDX in JSON; the first is what the document is about."""
    licences = LicenseFactory()
    components = {
        each.name: Component(
            name=each.name,
            version=each.version,
            type=ComponentType.APPLICATION if i == 0 else ComponentType.LIBRARY,
            bom_ref=f"{each.name}@{each.version}",
            purl=PackageURL("pypi", None, each.name, each.version),
            licenses=[licences.make_from_string(each.licence)],
        )
        for i, each in enumerate(packages.values())
    }
    first, *others = components.values()
    bom = Bom(components=others)
    bom.metadata.component = first
    for each in packages.values():
        bom.register_dependency(components[each.name], [components[name] for name in dict.fromkeys(each.needs)])
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def page() -> str:
    """The licences of both projects' packages, as Markdown."""
    found = {project: packages_of(project, EXTRAS[project]) for project in PROJECTS}
    rows = {name: package for packages in found.values() for name, package in packages.items()}
    lines = [
        f"| {row.name} | {row.version} | {row.licence} | {'yes' if row.name in found['perceiver-runtime'] else 'no'} |"
        for row in sorted(rows.values(), key=lambda row: row.name)
    ]
    covered = " and ".join(f"`{project}[{','.join(EXTRAS[project])}]`" for project in PROJECTS)
    return "\n".join(
        (
            "# Dependencies and their licences",
            "",
            f"What is installed on Linux (x86-64) with {covered},",
            "at the versions that the tests run with, and the licence that each package's metadata state. Wheels may",
            "contain libraries of others, whose licences are in the wheels. Not listed: what PyTorch for GPUs needs",
            "besides, and TensorRT, CUDA and JetPack, which are under NVIDIA's terms.",
            "",
            "| Package | Version | Licence | On the device |",
            "|---|---|---|---|",
            *lines,
            "",
            "```bash",
            "python tools/sbom.py --licences docs/licences.md   # this page",
            "python tools/sbom.py --out sbom.json               # the same as an SBOM, CycloneDX 1.6",
            "```",
            "",
        )
    )


def _needed(distribution: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    """Requirements of a package that hold on this machine."""
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in (*extras, "")):
            yield requirement


def _licence(distribution: metadata.Distribution) -> str:
    fields = distribution.metadata
    classified = [c.removeprefix(CLASSIFIER) for c in fields.get_all("Classifier", []) if c.startswith(CLASSIFIER)]
    expression, stated = ((fields.get_all(name) or [""])[0].strip() for name in ("License-Expression", "License"))
    short = stated if len(stated) < 60 and "\n" not in stated else ""
    return expression or short or " and ".join(classified) or "not stated"


def _release() -> str:
    text = (ROOT / "runtime/perceiver_runtime/release.py").read_text(encoding="utf-8")
    return re.findall(r'"(\d[^"]*)"', text)[0]


@click.command()
@click.option("--project", type=click.Choice(list(PROJECTS)), default="perceiver-deploy", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where the SBOM goes.")
@click.option("--licences", type=click.Path(path_type=Path), help="Where the page of licences goes.")
def main(project: str, out: Path | None, licences: Path | None) -> None:
    """Write the SBOM, the licences, or both."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(sbom(packages_of(project, EXTRAS[project])), encoding="utf-8")
    if licences is not None:
        licences.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

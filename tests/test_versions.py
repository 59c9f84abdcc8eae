"""The bounds of pyproject.toml and the two files of versions that the suite runs with."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def plain(name):
    return re.sub("[-_.]+", "-", name).lower()


def pins(file):
    lines = (ROOT / file).read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert len({plain(name) for name, _ in found}) == len(found)
    return {plain(name): Version(version) for name, version in found}


def bounds(requirements):
    """Return the lower bound of each requirement; an extra that takes in others has theirs."""
    result = {}
    for requirement in map(Requirement, requirements):
        if requirement.name == PROJECT["name"]:
            assert requirement.extras <= set(EXTRAS)
            continue
        (specifier,) = requirement.specifier
        assert specifier.operator == ">="
        result[plain(requirement.name)] = Version(specifier.version)
    return result


def test_the_oldest_versions_tested_are_the_bounds():
    oldest = pins("constraints-oldest.txt")
    needed = bounds(PROJECT["dependencies"])
    assert {name: oldest[name] for name in needed} == needed
    for name, bound in bounds(EXTRAS["test"]).items():
        assert oldest.get(name, bound) == bound, name


def test_the_versions_tested_are_within_the_bounds_and_complete():
    pinned = pins("constraints.txt")
    for requirements in (PROJECT["dependencies"], *EXTRAS.values()):
        for name, bound in bounds(requirements).items():
            assert pinned[name] >= bound, name


def test_a_package_has_one_bound_in_all_extras():
    found = {}
    for requirements in (PROJECT["dependencies"], *EXTRAS.values()):
        for name, bound in bounds(requirements).items():
            assert found.setdefault(name, bound) == bound, name


@pytest.mark.parametrize("name", sorted(bounds(PROJECT["dependencies"])))
def test_what_is_installed_is_within_the_bounds(name):
    assert Version(metadata.version(name)) >= bounds(PROJECT["dependencies"])[name]

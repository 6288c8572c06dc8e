"""Versions and commit."""

import platform

from weir.training.provenance import commit, versions


def test_versions_are_those_that_decide_the_numbers() -> None:
    assert set(versions()) == {"python", "torch", "numpy"}
    assert versions()["python"] == platform.python_version()


def test_the_commit_is_a_hash_or_none() -> None:
    found = commit()

    assert found is None or set(found.removesuffix("-dirty")) <= set("0123456789abcdef")

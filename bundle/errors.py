"""Errors of bundles and of their publication.

BundleError
├── BrokenBundle    a bundle is incomplete, damaged or unsafe
├── VersionExists   a version with this number is already published
├── InvalidName     the model's name is not allowed
├── InvalidVersions `versions.toml` is invalid
└── TableError      a CSV file cannot be read as a table of numbers
"""

from weir.bundle.escaping import printable_message


class BundleError(Exception):
    """Base of the expected failures; its message is printable and of bounded length."""

    def __init__(self, message: str) -> None:
        super().__init__(printable_message(message))


class BrokenBundle(BundleError):
    """The bundle is incomplete, damaged or unsafe: do not serve it."""


class VersionExists(BundleError):
    """A published version is never overwritten: choose another number or none."""


class InvalidName(BundleError):
    """The model's name is no plain directory name: choose another."""


class InvalidVersions(BundleError):
    """A model's `versions.toml` is invalid: correct the key that the message names."""


class TableError(BundleError):
    """A CSV file is no table of numbers, or can be read in two ways: do as the message says."""

"""What can be wrong with a bundle, or with publishing one.

BundleError
├── BrokenBundle    what is on disk, or is to be put there, cannot be trusted
├── VersionExists   the version asked for is taken
├── InvalidName     a model cannot be called that
└── InvalidVersions `versions.toml` says what cannot be
"""

from weir.bundle.escaping import printable_message


class BundleError(Exception):
    """Any expected failure of this package, told in printable words of bounded length."""

    def __init__(self, message: str) -> None:
        super().__init__(printable_message(message))


class BrokenBundle(BundleError):
    """The bundle is incomplete, damaged or unsafe: do not serve it."""


class VersionExists(BundleError):
    """A published version is never overwritten: choose another number, or none."""


class InvalidName(BundleError):
    """The model's name would not be a plain directory of the repository: choose another."""


class InvalidVersions(BundleError):
    """A model's `versions.toml` is no such file: correct it where the message says."""

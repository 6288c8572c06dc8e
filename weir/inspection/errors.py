"""Errors of inspection, grouped by what the caller should do next."""


class InspectionError(Exception):
    """The graph does not have what is requested, or cannot be read or run: inspect another."""


class InvalidPicture(InspectionError):
    """The picture cannot be decoded, or is too large: send another one."""

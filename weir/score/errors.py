"""Failures of a scoring run that its caller can mend."""

from weir.client.errors import WeirError


class ScoringFailed(WeirError):
    """The model, the input or the output of a run cannot be used."""

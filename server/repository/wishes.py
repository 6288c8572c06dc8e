"""What is wanted of one model: what its directory says, and what was asked for by call."""

from pathlib import Path

from weir.bundle import versions
from weir.bundle.errors import BundleError
from weir.bundle.versions import FILE_NAME, Versions
from weir.server.errors import InvalidRequest, ModelLoadError, UnknownModel
from weir.server.repository.scan import Found, said_of
from weir.server.repository.version_state import Wanted


class Wishes:
    """Policy and labels of one model.

    Args:
        name: of the model, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = Versions()
        # They win over the file's, for as long as the server runs.
        self.called: dict[str, int] = {}

    def read(self, directory: Path) -> str:
        """Take in what a model's directory says; why nobody can make anything of it, or nothing.

        What was said before still holds then; of a model that never was here, nothing does.
        """
        try:
            self._said = said_of(directory)
        except (BundleError, ModelLoadError) as error:
            return str(error)
        return ""

    def label(self, label: str, number: int | None) -> None:
        """Set a label by call, or (None) let the file's word count again.

        Raises:
            InvalidRequest: only the file sets it.
            UnknownModel: nobody does.
        """
        if number is not None:
            self.called = {**self.called, label: number}
        elif label in self.called:
            self.called = {name: n for name, n in self.called.items() if name != label}
        elif label in self._said.labels:
            raise InvalidRequest(
                f"label {label!r} is set in the model's {FILE_NAME}: change it there"
            )
        else:
            known = ", ".join(sorted(self.called)) or "none"
            raise UnknownModel(
                f"model {self._name!r} has no label {label[:64]!r} set by call; it has {known}"
            )

    def wanted(self, found: Found) -> Wanted:
        """The versions to be served, also those that are named and not there, and the labels."""
        said = Versions(self._said.policy, {**self._said.labels, **self.called})
        numbers = {*versions.wanted(said, found.versions), *said.labels.values()}
        if said.policy is not None:
            numbers.update(said.policy.specific)
        return Wanted({number: found.versions.get(number) for number in numbers}, said.labels)

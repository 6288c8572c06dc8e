"""The error tree."""

from weir.training import errors


def test_every_error_descends_from_the_root_and_says_what_to_do() -> None:
    leaves = [kind for kind in vars(errors).values() if isinstance(kind, type)]

    assert all(issubclass(kind, errors.TrainingError) for kind in leaves)
    assert all(kind.__doc__ and "\n" not in kind.__doc__ for kind in leaves)

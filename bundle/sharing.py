"""What a contract says of how a network shares its weights."""

from weir.bundle.parts import Part, Positive


class Sharing(Part):
    """Counts of the network as it was trained, for one row.

    `connections` are uses of a weight, or a bias, for one output unit. An exported graph may have others: it holds
    batch norms folded into convolutions, and partial connections filled up with zeros.
    """

    parameters: Positive
    connections: Positive

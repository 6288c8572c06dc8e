"""Base class and field types of the objects in `model.json`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Plain names only: separators, ".." and drives do not match.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NotNegative = Annotated[float, Field(ge=0)]
# Python's integers are unbounded; those of tensors and of the wire have 64 bits.
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Index = Annotated[int, Field(ge=0, lt=2**63)]


class ContractObject(BaseModel):
    """An object of `model.json`: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

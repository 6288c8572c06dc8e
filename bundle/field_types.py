"""What every object of `model.json` is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Plain names only: whatever a path could smuggle in (separators, "..", drives) has no letter here.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NotNegative = Annotated[float, Field(ge=0)]
# Python's integers have no end, those of tensors and of the wire do.
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Index = Annotated[int, Field(ge=0, lt=2**63)]


class ContractObject(BaseModel):
    """One object of `model.json`: immutable, and without room for what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

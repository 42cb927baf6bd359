"""What every part of a profile's file has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Part(BaseModel):
    """Unknown keys and wrong types are refused; the text below a key is its documentation."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

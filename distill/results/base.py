"""Base of the models of what stages record."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A whole number that Parquet, SQLite and JavaScript can hold."""
Counts = dict[str, Count]
Interval = Annotated[tuple[float, float], Field(strict=False)]
"""Lower and upper limit."""
Numbers = Annotated[tuple[Count, Count], Field(strict=False)]
"""Smallest and largest number."""


class Recorded(BaseModel):
    """Something that a stage records: strict types, finite numbers. Keys of a newer distill are kept.

    A key with a default was not written by every version. One that is left out at times is declared with `sometimes`.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # not null: what writes the file refuses them
        use_attribute_docstrings=True,
    )
    LOCKED: ClassVar[tuple[str, ...]] = ()
    """The keys by which a repetition of the run is compared."""
    TABLE: ClassVar[str] = ""
    """Name of its table in docs/json.md, if that is not the class's."""

    @property
    def is_empty(self) -> bool:
        """Return whether the stage made nothing, so that later ones have no input and it may be repeated unasked."""
        return False

    @property
    def tokens_spent(self) -> float | None:
        """Return the tokens that a model generated or was trained on; `None` if none were, or they are not known."""
        return None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what was recorded.

        Raises:
            pydantic.ValidationError: a key is missing or has a value of another kind.
        """
        return cls.model_validate(fields)

    def locked(self) -> dict[str, Any]:
        """Return what a lock records of it, JSON-ready."""
        return {key: value for key, value in self.to_json().items() if key in self.LOCKED}

    def to_json(self) -> dict[str, Any]:
        """Return what was given, without the defaults of keys that were left out."""
        return self.model_dump(mode="json", exclude_unset=True)


def absent_before() -> Any:
    """Declare a key that older versions did not write and that is never null; it is `None` where they did not."""
    return Field(default=None, json_schema_extra={"never_null": True})


def sometimes(default: Any = None) -> Any:
    """Declare a key that is left out where there is nothing to tell; it then has this value."""
    return Field(default=default, json_schema_extra={"sometimes": True, "never_null": True})


def fault_in(model: type[BaseModel], value: Any, at: str) -> str:
    """Return where and how a value does not match a model, in words; empty if it matches.

    Args:
        model: the model.
        value: what was read.
        at: where the value stands, for the message.
    """
    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(one) for one in (at, *first["loc"]))
        if first["type"] == "missing":
            return f"{place} is missing"
        shown = repr(first["input"])
        shown = shown if len(shown) <= 40 else f"{shown[:37]}…"
        kind = first["msg"].removeprefix("Input should be ")
        return f"{place} is {shown}, not {kind}" if kind != first["msg"] else f"{place} is {shown}: {kind}"
    return ""

"""Types of the API's fields, and the base of its objects."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    model_validator,
)
from pydantic.alias_generators import to_camel

from retrainer.api import rules

URL_MAX = 1024
KEY_MAX = 253 + 1 + 63  # prefix, slash, name

# YAML's "500" and yes are no numbers and no truth values to the API server, nor here.
Whole = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]  # takes a whole number as well
Percentage = Annotated[Whole, Field(ge=0, le=99)]

_url = Field(min_length=1, max_length=URL_MAX, json_schema_extra=rules.S3_URL.text)
_weights = Field(min_length=1, max_length=URL_MAX, json_schema_extra=rules.WEIGHTS_URL.text)
Url = Annotated[str, _url, AfterValidator(rules.URL.check)]
_file = Field(min_length=1, max_length=URL_MAX, json_schema_extra=rules.S3_FILE.text)
FileUrl = Annotated[str, _file, AfterValidator(rules.FILE.check)]
WeightsUrl = Annotated[str, _weights, AfterValidator(rules.WEIGHTS.check)]

_object_name = Field(max_length=253, json_schema_extra=rules.OBJECT_NAME.text)
ObjectName = Annotated[str, _object_name, AfterValidator(rules.OBJECT_NAME.check)]

Key = Annotated[str, Field(max_length=KEY_MAX), AfterValidator(rules.KEY.check)]
_label_value = Field(max_length=63, json_schema_extra=rules.LABEL_VALUE.text)
LabelValue = Annotated[str, _label_value, AfterValidator(rules.LABEL_VALUE.check)]
_map = Field(max_length=64, json_schema_extra=rules.KEY.keys)
MetadataLabels = dict[Key, LabelValue]
Labels = Annotated[MetadataLabels, _map]
Annotations = Annotated[dict[Key, Annotated[str, Field(max_length=1024)]], _map]
Quantity = Annotated[int | str, BeforeValidator(rules.QUANTITY.check_any)]
Quantities = Annotated[
    dict[Key, Quantity],
    Field(max_length=rules.QUANTITIES_MAX, json_schema_extra=rules.KEY.keys),
]


class Model(BaseModel):
    """Base of every object of the API: camelCase in YAML, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", validate_default=False
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, value: object) -> object:
        """Take `training:` with nothing behind it for the default, as the API server does."""
        if not isinstance(value, Mapping) or None not in value.values():
            return value
        names = {n for name, field in cls.model_fields.items() for n in (name, field.alias)}
        return {k: v for k, v in value.items() if v is not None or k not in names}

    def dump(self) -> dict[str, Any]:
        """Give a JSON-ready dict with the YAML's names, unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Wire(BaseModel):
    """Base of what programs of possibly different versions exchange: unknown fields are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """Find the object that a field holds, one of them or several; None if it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(inner_model, get_args(annotation))), None)

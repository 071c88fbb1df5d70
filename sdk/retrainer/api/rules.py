"""Rules that span more than one field, each written once with its sentence.

The CRD carries the CEL form, the pydantic models the Python form, both with the same message: the
generator of the CRD and the models read this table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One rule of the CRD.

    Attributes:
        at: path of the object that the rule is on; "" is the RetrainJob itself.
        cel: the expression, true when the object is right.
        message: the sentence a person reads when it is not.
        field: path, relative to `at`, that the API server names in its refusal.
    """

    at: str
    cel: str
    message: str
    field: str = ""


NAME = Rule(
    "",
    "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 46",
    "metadata.name must be a DNS label of at most 46 characters: lower-case letters, digits and -",
)
PERCENTAGES = Rule(
    "spec.split",
    "self.testingPercentage + self.validationPercentage < 100",
    "testingPercentage and validationPercentage must leave images for training: "
    "together less than 100",
)
BUILTIN = Rule(
    "spec",
    "self.weights != 'builtin' || self.architecture in "
    "['mobilenet_0.25_128', 'mobilenet_0.25_128_quantized']",
    "weights: builtin exists only for architecture mobilenet_0.25_128",
    ".weights",
)
EXPORT_ONCE = Rule(
    "spec",
    "self.export.all(e, self.export.exists_one(o, o == e))",
    "export must name each format once",
    ".export",
)
DISTORTED_VIEWS = Rule(
    "spec.distortions",
    "self.flipLeftRight || self.randomCrop > 0 || self.randomScale > 0 || self.randomBrightness > 0",
    "distortions must turn on at least one of flipLeftRight, randomCrop, randomScale, "
    "randomBrightness; leave distortions out for none",
)

RULES = (NAME, PERCENTAGES, BUILTIN, EXPORT_ONCE, DISTORTED_VIEWS)

MUTABLE = ("suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds")
"""Fields of spec that may change after creation, as those of a batch/v1 Job may."""


def immutable(field: str) -> Rule:
    """The rule that keeps `spec.<field>` as it was created.

    It stands on spec and not on the field itself: there it would not fire when the field is added
    or removed.
    """
    return Rule(
        "spec",
        f"has(self.{field}) == has(oldSelf.{field}) && "
        f"(!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} is immutable: create a new RetrainJob to change it "
        f"(only {', '.join(MUTABLE[:-1])} and {MUTABLE[-1]} may change)",
        f".{field}",
    )

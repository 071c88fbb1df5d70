"""Rules of the API beyond types and bounds, each written once with its sentence.

The CRD carries the CEL form, the pydantic models the Python form, both with the same message: the
generator of the CRD and the models read this table.
"""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from retrainer.api.architectures import NAMES, SIZES, WIDTHS
from retrainer.api.names import NAME_MAX, NAME_PATTERN

VALIDATIONS = "x-kubernetes-validations"


def _quoted(text: str) -> str:
    """Write a text as a string literal of CEL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class Form:
    """The form that a text must have.

    Attributes:
        pattern: of the whole text, in the syntax that RE2 (CEL) and Python's re share.
        message: the sentence a person reads when it does not match; what was got is added.
    """

    pattern: str
    message: str

    def check(self, value: str) -> str:
        """`value` if it matches.

        Raises:
            ValueError: it does not.
        """
        if re.fullmatch(self.pattern, value) is None:
            raise ValueError(f"{self.message}, got {value!r}")
        return value

    def check_any(self, value: object) -> object:
        """Check a value that may be a number instead of a text."""
        if type(value) not in (int, str):  # a bool is an int to isinstance
            raise ValueError(f"{self.message}, got {value!r}")
        self.check(str(value))
        return value

    @property
    def text(self) -> dict[str, Any]:
        """JSON schema of a text of this form."""
        return self._schema("self.matches({0})", "self")

    @property
    def keys(self) -> dict[str, Any]:
        """JSON schema of a map whose keys have this form."""
        return self._schema("self.all(k, k.matches({0}))", "self.filter(k, !k.matches({0}))[0]")

    def _schema(self, rule: str, got: str) -> dict[str, Any]:
        pattern = _quoted(f"^({self.pattern})$")
        shown = f'{_quoted(f"{self.message}, got ")} + "\'" + {got.format(pattern)} + "\'"'
        cel = {"rule": rule.format(pattern), "message": self.message, "messageExpression": shown}
        return {VALIDATIONS: [cel]}


_DNS = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_WORD = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_BUCKET = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"

ARCHITECTURE = Form(
    f"mobilenet_({'|'.join(WIDTHS).replace('.', '[.]')})_({'|'.join(map(str, SIZES))})(_quantized)?"
    "|inception_v3",
    f"must be {NAMES}",
)
URL = Form(
    f"s3://{_BUCKET}(/.*)?|file:///.*|(?![A-Za-z][A-Za-z0-9+.-]*://)(?s:.+)",
    "must be s3://BUCKET/FOLDER or a folder of this machine",
)
"""For Python only: a job that runs on one's own machine may name its folders."""
WEIGHTS = Form(
    URL.pattern,
    "must be imagenet, builtin, s3://BUCKET/FILE_OR_FOLDER, or a file or folder of this machine",
)
"""For Python only, as URL."""
S3_URL = Form(f"s3://{_BUCKET}(/.*)?", "must be s3://BUCKET/FOLDER in a cluster")
FILE = Form(URL.pattern, "must be s3://BUCKET/FILE or a file of this machine")
"""For Python only, as URL."""
S3_FILE = Form(f"s3://{_BUCKET}/.*[^/]", "must be s3://BUCKET/FILE in a cluster")
WEIGHTS_URL = Form(
    f"imagenet|builtin|s3://{_BUCKET}(/.*)?",
    "must be imagenet, builtin or s3://BUCKET/FILE_OR_FOLDER in a cluster",
)
BACKBONE = Form(
    URL.pattern, "must be s3://BUCKET/FOLDER_OR_FILE, or a folder or file of this machine"
)
"""For Python only, as URL."""
S3_BACKBONE = Form(S3_URL.pattern, "must be s3://BUCKET/FOLDER_OR_FILE in a cluster")
ENDPOINT = Form(
    "https?://[^\\s/?#@]+/?", "must be http://HOST:PORT or https://HOST:PORT without a path"
)
REGION = Form("[a-z0-9-]+", "must be a region such as us-east-1")
OBJECT_NAME = Form(
    _DNS, "must be the name of an object: lower-case letters, digits, - and . inside"
)
KEY = Form(
    f"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}",
    "keys must be at most 63 letters, digits, -, _ and . after an optional prefix such as "
    "example.com/",
)
LABEL_VALUE = Form(
    f"({_WORD})?", "must be at most 63 letters, digits, -, _ and ., alphanumeric at both ends"
)
QUANTITY = Form(
    "([0-9]+([.][0-9]*)?|[.][0-9]+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]+)?",
    "must be a quantity such as 500m, 2 or 4Gi",
)


LEARNING_RATE_LEAST = 1e-9

_SCALES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def amount(quantity: int | str) -> Decimal:
    """Read a Kubernetes quantity of form QUANTITY as a number: 1.5 for 1500m, 1024 for 1Ki."""
    text = str(quantity)
    number = text.rstrip("numkKMGTPEi")
    unit = text[len(number) :]
    if unit.endswith("i"):
        return Decimal(number) * Decimal(1024) ** ("KMGTPE".index(unit[0]) + 1)
    return Decimal(number).scaleb(_SCALES[unit])


@dataclass(frozen=True)
class Rule:
    """One rule of the CRD.

    Attributes:
        at: path of what the rule is on; "" is the RetrainJob itself.
        cel: the expression, true when the object is right.
        message: the sentence a person reads when it is not.
        field: path, relative to `at`, that the API server names in its refusal.
        got: CEL of the text that was got, added to the message.
        reason: FieldValueInvalid if not given.
    """

    at: str
    cel: str
    message: str
    field: str = ""
    got: str = ""
    reason: str = ""

    def refusal(self, got: object) -> ValueError:
        """Make the error that the Python form of the rule raises."""
        return ValueError(f"{self.message}, got {got}")

    @property
    def schema(self) -> dict[str, Any]:
        """Write the rule as an entry of x-kubernetes-validations."""
        cel = {"rule": self.cel, "message": self.message}
        if self.got:
            cel["messageExpression"] = f"{_quoted(f'{self.message}, got ')} + {self.got}"
        if self.field:
            cel["fieldPath"] = self.field
        if self.reason:
            cel["reason"] = self.reason
        return cel


NAME_FORM = Form(
    f"(?=.{{1,{NAME_MAX}}}$){NAME_PATTERN[1:-1]}",
    f"must be a DNS label of at most {NAME_MAX} characters: lower-case letters, digits and - inside",
)
"""For Python only: RE2 has no look-ahead."""
NAME = Rule(
    "",
    f"self.metadata.name.matches({_quoted(NAME_PATTERN)}) && size(self.metadata.name) <= {NAME_MAX}",
    NAME_FORM.message,
    ".metadata.name",
    got='"\'" + self.metadata.name + "\'"',
)
# On spec, since the API server tries a rule on split itself with the bare default {} as well.
PERCENTAGES = Rule(
    "spec",
    "self.split.testingPercentage + self.split.validationPercentage < 100",
    "testingPercentage and validationPercentage must leave images for training: "
    "together less than 100",
    ".split",
)
ONE_NETWORK = Rule(
    "spec",
    "has(self.architecture) != has(self.backbone)",
    "give exactly one of architecture (a network of the list) and backbone (one of your own)",
    ".backbone",
)
WEIGHTS_OF_LIST = Rule(
    "spec",
    "!has(self.backbone) || self.weights == 'imagenet'",
    "weights goes with architecture only: a backbone's file holds its own",
    ".weights",
)
EXPORT_OF_BACKBONE = Rule(
    "spec",
    "!has(self.backbone) || !has(self.export) || self.export.all(e, "
    "(e == 'onnx' && !self.backbone.url.endsWith('.tflite')) || "
    "(e == 'tflite' && !self.backbone.url.endsWith('.onnx')))",
    "a backbone is exported in its own format only: onnx for a .onnx file, tflite for a .tflite file, "
    "one of the two for a folder; leave export out for that",
    ".export",
    got="self.export.join(', ')",
)
BUILTIN = Rule(
    "spec",
    "self.weights != 'builtin' || !has(self.architecture) || self.architecture in "
    "['mobilenet_0.25_128', 'mobilenet_0.25_128_quantized']",
    "builtin exists only for architecture mobilenet_0.25_128",
    ".weights",
    got="self.architecture",
)
EXPORT_ONCE = Rule(
    "spec",
    "!has(self.export) || self.export.all(e, self.export.exists_one(o, o == e))",
    "must name each format once",
    ".export",
    got="self.export.join(', ')",
)
VALIDATION_CHOOSES = Rule(
    "spec",
    "self.split.validationPercentage > 0 || !(has(self.training.earlyStopping) || "
    "has(self.training.sweep) || (self.training.solver == 'lbfgs' && !has(self.training.l2)))",
    "earlyStopping, sweep and solver lbfgs without l2 choose by the validation images: set "
    "validationPercentage above 0, or leave them out",
    ".training",
)
EARLY_STOPPING_ALONE = Rule(
    "spec.training",
    "!has(self.earlyStopping) || (self.solver == 'sgd' && !has(self.sweep))",
    "earlyStopping goes with solver sgd and without a sweep, which compares finished heads",
)
SWEEP_SOLVER = Rule(
    "spec.training",
    "!has(self.sweep) || !has(self.sweep.learningRate) || self.solver == 'sgd'",
    "sweep.learningRate goes with solver sgd only: lbfgs has no learning rate",
)
SWEEP_MAX = 1000
SWEEP_OF_SOMETHING = Rule(
    "spec.training.sweep",
    "has(self.learningRate) || has(self.l2)",
    "sweep must list values of learningRate or l2; leave sweep out to train once",
)
SWEEP_SIZE = Rule(
    "spec.training.sweep",
    "(has(self.learningRate) ? size(self.learningRate) : 1) * (has(self.l2) ? size(self.l2) : 1) "
    f"<= {SWEEP_MAX}",
    f"sweep must have at most {SWEEP_MAX:,} combinations",
)
IMAGES_OR_MANIFEST = Rule(
    "spec",
    "has(self.images) || has(self.manifest)",
    "images or manifest must be given",
    ".images",
    reason="FieldValueRequired",
)
OUTPUT_APART = Rule(
    "spec",
    "has(self.manifest) || !has(self.images) || "
    "!(self.output + '/').startsWith(self.images + (self.images.endsWith('/') ? '' : '/'))",
    "must not lie inside images, where it would be taken for a label",
    ".output",
    got='"\'" + self.output + "\'"',
)
DISTORTED_VIEWS = Rule(
    "spec.distortions",
    "self.flipLeftRight || self.randomCrop > 0 || self.randomScale > 0 || self.randomBrightness > 0",
    "distortions must turn on at least one of flipLeftRight, randomCrop, randomScale, "
    "randomBrightness; leave distortions out for none",
)
# Few entries are allowed, since the API server estimates the cost of a number-or-text as a long text.
QUANTITIES_MAX = 12
LIMITS = Rule(
    "spec.pod.resources.limits{}",
    "type(self) == int ? self >= 0 : isQuantity(self) && !self.startsWith('-')",
    QUANTITY.message,
)
REQUESTS = Rule(
    "spec.pod.resources",
    "['cpu', 'memory', 'ephemeral-storage'].all(r, !(r in self.requests && r in self.limits) || "
    "!quantity(string(self.requests[r])).isGreaterThan(quantity(string(self.limits[r]))))",
    "requests must be at most limits",
)
TOLERATION_VALUE = Rule(
    "spec.pod.tolerations[]",
    "!has(self.value) || self.value == '' || !has(self.operator) || self.operator == 'Equal'",
    "value must be left out when operator is Exists",
)
TOLERATION_KEY = Rule(
    "spec.pod.tolerations[]",
    "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
    "operator must be Exists when there is no key",
)
TOLERATION_SECONDS = Rule(
    "spec.pod.tolerations[]",
    "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
    "effect must be NoExecute when there are tolerationSeconds",
)


# Not the schema's minimum: the API server compares a whole 0 with that rounded down, which is 0 as well.
LEARNING_RATE = Rule(
    "spec.training.learningRate",
    f"self >= {LEARNING_RATE_LEAST}",
    f"must be above 0, at least {LEARNING_RATE_LEAST}",
)
DEVIATION_LEAST = 1e-6
DEVIATION = Rule(
    "spec.backbone.std[]",
    f"self >= {DEVIATION_LEAST}",
    f"must be above 0, at least {DEVIATION_LEAST}",
)


def batch_size(field: str) -> Rule:
    """Make the rule that a batch size is not 0; -1 means the whole set."""
    return Rule(
        f"spec.training.{field}", "self != 0", "must be -1 (the whole set) or at least 1", got="'0'"
    )


BATCH_SIZES = ("batchSize", "validationBatchSize", "testBatchSize")

RULES = (
    NAME,
    PERCENTAGES,
    ONE_NETWORK,
    WEIGHTS_OF_LIST,
    BUILTIN,
    EXPORT_OF_BACKBONE,
    EXPORT_ONCE,
    VALIDATION_CHOOSES,
    EARLY_STOPPING_ALONE,
    SWEEP_SOLVER,
    SWEEP_OF_SOMETHING,
    SWEEP_SIZE,
    IMAGES_OR_MANIFEST,
    OUTPUT_APART,
    DISTORTED_VIEWS,
    LIMITS,
    replace(LIMITS, at="spec.pod.resources.requests{}"),
    REQUESTS,
    TOLERATION_VALUE,
    TOLERATION_KEY,
    TOLERATION_SECONDS,
    LEARNING_RATE,
    DEVIATION,
    replace(LEARNING_RATE, at="spec.training.sweep.learningRate[]"),
    *map(batch_size, BATCH_SIZES),
)

MUTABLE = ("suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds")
"""Fields of spec that may change after creation, as those of a batch/v1 Job may."""


def immutable(field: str, *, always_there: bool) -> Rule:
    """Make the rule that keeps `field` as it was created.

    It stands on the field itself where that is always there, by a default or because it is required;
    on the object around it otherwise, since a rule on a field does not fire when that is added or
    removed. Both would do there, but each name that a rule looks up makes the API server build a table
    of all names beside it, at every write of the status too: rules on spec made that write a third
    dearer (docs/decisions/0004).
    """
    message = (
        f"{field} is immutable: create a new RetrainJob to change it "
        f"(only {', '.join(MUTABLE[:-1])} and {MUTABLE[-1]} may change)"
    )
    reason = "FieldValueForbidden"
    if always_there:
        return Rule("", "self == oldSelf", message, reason=reason)
    is_set = f"has(self.{field})"
    same = f"{is_set} == has(oldSelf.{field}) && (!{is_set} || self.{field} == oldSelf.{field})"
    return Rule("", same, message, f".{field}", reason=reason)

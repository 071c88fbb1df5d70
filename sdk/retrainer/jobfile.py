"""Job files: reads RetrainJobs from YAML, finds what a cluster would refuse, and writes a template."""

import shlex
import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from retrainer.api import RetrainJob, parse_job, rules
from retrainer.errors import InvalidJob, NotFound, UserError

STDIN = "-"
MERGE = "tag:yaml.org,2002:merge"
"""Tag of YAML's key `<<`, which merges another mapping into this one and may stand several times."""


class _OwnError(yaml.constructor.ConstructorError):
    """A problem that is a phrase of ours."""


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice, where YAML would quietly take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in keys:
                    raise _OwnError(None, None, f"{key} is given twice", key_node.start_mark)
                keys.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # 2026-13-45
            why = f"{node.value} looks like a date or a number and is none: put it in quotes"
            raise _OwnError(None, None, why, node.start_mark) from error


def read(file: str | Path) -> str:
    """Read the text of a file, or of standard input for `-`.

    Raises:
        NotFound: there is no such file.
        UserError: it cannot be read, or is not text.
    """
    try:
        body = sys.stdin.buffer.read() if str(file) == STDIN else Path(file).read_bytes()
        return body.decode("utf-8-sig")
    except FileNotFoundError:
        raise NotFound(
            f"There is no file {file}.",
            command=f"retrainer init {shlex.quote(str(file))} writes one to start from.",
        ) from None
    except IsADirectoryError as error:
        raise UserError(
            f"{file} is a folder, not a job file.",
            command="retrainer run FOLDER trains on a folder of photos.",
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{_name(file)} is not UTF-8 text: is it a job file?") from error
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error


def documents(text: str, where: str) -> list[tuple[str, Any]]:
    """Parse the YAML documents of `text`; empty ones are left out.

    Args:
        text: one or more documents, separated by `---`.
        where: the file's name, for errors.

    Returns:
        Pairs: where the document is (`job.yaml`, or `job.yaml, document 2`), and what it holds.

    Raises:
        UserError: it is not YAML (the message has line and column), or there is nothing in it.
    """
    try:
        parsed = list(yaml.load_all(text, Loader=_UniqueKeys))
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}: {_syntax(error)}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not YAML: it has characters that no text has.") from error
    except RecursionError as error:
        raise UserError(f"{where} is not YAML of a job: it is nested too deeply.") from error
    filled = [(i, document) for i, document in enumerate(parsed, 1) if document is not None]
    if not filled:
        raise UserError(f"{where} is empty.", command="retrainer init shows what belongs in it.")
    if len(parsed) == 1:
        return [(where, filled[0][1])]
    return [(f"{where}, document {i}", document) for i, document in filled]


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """Say where the text is no YAML, and why, in words of ours: PyYAML speaks of tokens and nodes."""
    mark = error.problem_mark or error.context_mark
    at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if isinstance(error, _OwnError):
        return f"{at}{error.problem}."
    text = f"{error.problem} {error.context}"
    phrase = next((phrase for sign, phrase in _SIGNS if sign in text), "this is not YAML")
    return f"{at}{phrase}."


# Parts of PyYAML's problem or context, each with our phrase; the first that is in it counts.
_SIGNS = (
    ("'\\t'", "a tab cannot indent: use spaces"),
    ("an alias", "a text that begins with * must be in quotes"),
    ("undefined alias", "a text that begins with * must be in quotes"),
    ("an anchor", "a text that begins with & must be in quotes"),
    ("cannot start any token", "a text that begins with this character must be in quotes"),
    ("block scalar", "a text that begins with | or > must be in quotes"),
    ("a tag", "a text that begins with ! must be in quotes"),
    ("the tag", "a text that begins with ! must be in quotes"),
    ("tag handle", "a text that begins with ! must be in quotes"),
    ("expected ':'", "a : is missing after this name, or a quote is not closed"),
    ("sequence entries", "a list cannot begin here: check the indentation"),
    ("mapping values", "a : cannot stand here: check the indentation, or put the text in quotes"),
    ("expected ',' or ']'", "a list in [ ] is not closed, or has no comma here"),
    ("expected ',' or '}'", "a mapping in { } is not closed, or has no comma here"),
    ("found unexpected", "a quote is not closed"),
    ("escape", "in double quotes a backslash is written twice"),
    ("<block end>", "this does not go with what is above: check indentation and quotes"),
    ("unhashable key", "a list or a mapping cannot be a name"),
)


def load_all(file: str | Path) -> list[RetrainJob]:
    """Read every RetrainJob of a file.

    Raises:
        InvalidJob: one sentence per wrong field of every document.
        UserError: the file is missing or not YAML.
    """
    pairs = documents(read(file), _name(file))
    if len(pairs) == 1:
        where, document = pairs[0]
        return [parse_job(document, where=where)]
    jobs, wrong = [], []
    for where, document in pairs:
        try:
            jobs.append(parse_job(document))
        except InvalidJob as error:
            wrong += [f"{where}: {problem}" for problem in error.problems]
    if wrong:
        raise InvalidJob(wrong)
    return jobs


def load(file: str | Path) -> RetrainJob:
    """Read the one RetrainJob of a YAML or JSON file (`-`: of standard input).

    Raises:
        InvalidJob: one sentence per wrong field, each with its path in the file.
        UserError: the file is missing, is not YAML, or holds several jobs.
    """
    jobs = load_all(file)
    if len(jobs) > 1:
        raise UserError(
            f"{_name(file)} holds {len(jobs)} jobs ({', '.join(j.name for j in jobs)}); "
            "give a file with one."
        )
    return jobs[0]


def only_document(file: str | Path) -> tuple[str, Any]:
    """Read the one YAML document of a file: returns where it is, and what it holds.

    Raises:
        UserError: the file is missing, is not YAML, or holds several documents.
    """
    several = documents(read(file), _name(file))
    if len(several) > 1:
        raise UserError(f"{_name(file)} holds {len(several)} jobs: give a file with one.")
    return several[0]


def as_job(job: RetrainJob | Mapping[str, Any] | str | Path) -> RetrainJob:
    """Take a job as it is, from a dict, or from the path of a YAML file.

    Raises:
        InvalidJob: one sentence per wrong field.
        UserError: the file is missing, is not YAML, or holds several jobs.
    """
    if isinstance(job, RetrainJob):
        return job
    return load(job) if isinstance(job, (str, Path)) else parse_job(job)


def _name(file: str | Path) -> str:
    return "standard input" if str(file) == STDIN else str(file)


def only_here(job: RetrainJob) -> list[str]:
    """List the places on this machine, which a cluster would refuse, in its own sentences."""
    spec = job.spec
    places = (
        ("images", spec.images, rules.S3_URL),
        ("manifest", spec.manifest, rules.S3_FILE),
        ("corrections", spec.corrections, rules.S3_FILE),
        ("output", spec.output, rules.S3_URL),
        ("cache", spec.cache, rules.S3_URL),
        ("weights", spec.weights, rules.WEIGHTS_URL),
        ("backbone.url", spec.backbone and spec.backbone.url, rules.S3_BACKBONE),
    )
    refusals = []
    for field, place, form in places:
        try:
            form.check(place or "s3://none/none")
        except ValueError as error:
            refusals.append(f"spec.{field}: {error}")
    return refusals


DEFAULT_ARCHITECTURE = "mobilenet_0.50_224"
"""What the codelab "TensorFlow for Poets" retrains: fast on a laptop, and accurate."""
DEFAULT_OUTPUT = "out"

TEMPLATE = """\
# A RetrainJob: retrains the last layer of a network that knows ImageNet on your own labelled images.
#   retrainer validate -f {file}      is it right?
#   retrainer run -f {file}           on this machine
#   retrainer submit -f {file}        on a cluster (kubectl apply -f {file} does the same)
apiVersion: retrainer.dev/v1alpha1
kind: RetrainJob
metadata:
  name: {name}    # lower-case letters, digits and -, at most 46
spec:
  # mobilenet_<1.0|0.75|0.50|0.25>_<224|192|160|128> (width and input size: larger is more accurate and
  # slower), the same with _quantized, or inception_v3. `retrainer architectures` lists them.
  architecture: {architecture}

  # Or a frozen network of your own, in place of it, as backbone: {{url: s3://networks/dinov2-small}}
  # (docs/reference/backbones.md).

  # One folder per label, images inside: flower_photos/daisy/*.jpg, flower_photos/roses/*.jpg, ...
  # A path of this machine, or s3://bucket/folder. On a cluster always s3://.
  images: {images}

  # The run is written to {output}/{name}-<8 characters>/.
  output: {output}

  # Bottlenecks (what the frozen network makes of an image) are computed once and kept here.
  # Jobs that name the same folder share them.
  # cache: {output}/.bottlenecks

  # imagenet is downloaded. builtin comes with the package, for mobilenet_0.25_128 only. Or the path
  # or URL of a Keras weights file, or of a folder of them.
  # weights: imagenet

  training:
    steps: 500              # 4000 if not given: slower, usually a little more accurate
    # learningRate: 0.01
    # batchSize: 100        # -1: all training images in every step
    # seed: 0
    # optimizer: sgd        # momentum, adam
    # earlyStopping: {{patience: 20}}

  # split: {{testingPercentage: 10, validationPercentage: 10}}

  # Distorted copies of the training images; each view costs as much as an image, once.
  # distortions: {{flipLeftRight: true, randomCrop: 10, randomBrightness: 10, views: 4}}

  # export: [savedModel, tflite]    # also keras, frozenGraph, tfliteInt8, onnx

  # How s3:// is reached. On this machine the key comes from AWS_ACCESS_KEY_ID and
  # AWS_SECRET_ACCESS_KEY or ~/.aws; on a cluster from a Secret that holds the two.
  # storage:
  #   endpoint: http://s3.storage:7070    # AWS if not given
  #   secretName: s3-credentials
"""


def template(
    *,
    file: str = "job.yaml",
    name: str = "flowers",
    architecture: str = DEFAULT_ARCHITECTURE,
    images: str = "flower_photos",
    output: str = DEFAULT_OUTPUT,
) -> str:
    """Write a commented job file, for `retrainer init`."""
    return TEMPLATE.format(
        file=file,
        name=_scalar(name),
        architecture=_scalar(architecture),
        images=_scalar(images),
        output=_scalar(output),
    )


def _scalar(text: str) -> str:
    """Write `text` as a YAML value, quoted where it must be."""
    dumped: str = yaml.safe_dump({"k": text}, allow_unicode=True, width=10_000)
    return dumped.removeprefix("k: ").rstrip("\n")

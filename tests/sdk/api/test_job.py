"""RetrainJob: its defaults are retrain.py's, its errors point at the field."""

import copy
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrainer.api import (
    ARCHITECTURES,
    BackboneSource,
    Distortions,
    EarlyStopping,
    Export,
    Metadata,
    Optimizer,
    RetrainJob,
    RetrainJobSpec,
    Sampling,
    Split,
    Storage,
    Training,
    architecture,
    parse_job,
)
from retrainer.errors import InvalidJob

MINIMAL: dict[str, Any] = {
    "apiVersion": "retrainer.dev/v1alpha1",
    "kind": "RetrainJob",
    "metadata": {"name": "flowers"},
    "spec": {
        "architecture": "mobilenet_0.50_224",
        "images": "s3://photos/flower_photos",
        "output": "s3://models/flowers",
    },
}


def with_field(path: str, value: Any) -> dict[str, Any]:
    """The minimal job with one field set."""
    job = copy.deepcopy(MINIMAL)
    *parents, last = path.split(".")
    place = job
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return job


# What retrain.py's argument parser has (TensorFlow for Poets, scripts/retrain.py).
RETRAIN_PY = {
    "how_many_training_steps": 4000,
    "learning_rate": 0.01,
    "testing_percentage": 10,
    "validation_percentage": 10,
    "eval_step_interval": 10,
    "train_batch_size": 100,
    "test_batch_size": -1,
    "validation_batch_size": -1,
    "flip_left_right": False,
    "random_crop": 0,
    "random_scale": 0,
    "random_brightness": 0,
}


def test_defaults_are_those_of_retrain_py() -> None:
    spec = parse_job(MINIMAL).spec
    training, split = spec.training, spec.split
    assert spec.distortions is None
    distortions = Distortions.model_fields
    assert {
        "how_many_training_steps": training.steps,
        "learning_rate": training.learning_rate,
        "testing_percentage": split.testing_percentage,
        "validation_percentage": split.validation_percentage,
        "eval_step_interval": training.eval_interval,
        "train_batch_size": training.batch_size,
        "test_batch_size": training.test_batch_size,
        "validation_batch_size": training.validation_batch_size,
        "flip_left_right": distortions["flip_left_right"].default,
        "random_crop": distortions["random_crop"].default,
        "random_scale": distortions["random_scale"].default,
        "random_brightness": distortions["random_brightness"].default,
    } == RETRAIN_PY


def test_a_backbone_is_called_by_its_folder_or_by_a_file_with_a_name_of_its_own() -> None:
    names = {
        "s3://networks/dinov2-small/": "dinov2-small",
        "s3://networks/dinov2-small/onnx/model.onnx": "dinov2-small",
        "s3://networks/clip/onnx/vision_model.onnx": "vision_model",
        "efficientnet_lite0/backbone.tflite": "efficientnet_lite0",
        "nets/birds.tflite": "birds",
        "model.onnx": "model",
        "s3://networks": "networks",
    }
    assert {url: BackboneSource(url=url).name for url in names} == names


def test_the_other_defaults_are_those_of_the_design() -> None:
    spec = parse_job(MINIMAL).spec
    assert spec.weights == "imagenet"
    assert spec.export is None  # savedModel and tflite, or of a backbone its own format
    assert spec.cache_url == "s3://models/flowers/.bottlenecks"
    assert spec.max_rejected_fraction == 0.05
    assert (spec.shards, spec.backoff_limit, spec.suspend) == (1, 3, False)
    assert spec.active_deadline_seconds is spec.ttl_seconds_after_finished is None
    assert spec.training.early_stopping is None
    assert (spec.training.optimizer, spec.training.sampling) == (Optimizer.SGD, Sampling.PER_LABEL)
    assert spec.training.seed == 0
    assert Distortions(flip_left_right=True).views == 4


WRONG = [
    ("spec.training.steps", 0, "spec.training.steps: must be at least 1, got 0"),
    ("spec.training.steps", "many", "spec.training.steps: must be a whole number, got 'many'"),
    ("spec.training.steps", 1.5, "spec.training.steps: must be a whole number, got 1.5"),
    ("spec.training.learningRate", -1,
     "spec.training.learningRate: must be above 0, at least 1e-09, got -1"),
    ("spec.training.learningRate", float("nan"),
     "spec.training.learningRate: must be a number, got nan"),
    ("spec.training.learningRate", "0.1", "spec.training.learningRate: must be a number, got '0.1'"),
    ("spec.training.seed", -1, "spec.training.seed: must be at least 0, got -1"),
    ("spec.training.stepps", 1, "spec.training.stepps: unknown field; did you mean steps?"),
    ("spec.training.learning_rte", 1,
     "spec.training.learning_rte: unknown field; did you mean learningRate?"),
    ("spec.training.stepps", None, "spec.training.stepps: unknown field; did you mean steps?"),
    ("spec.images", None, "spec.images: is required"),
    ("spec.traning", {}, "spec.traning: unknown field; did you mean training?"),
    ("spec.training.earlyStopping.patience", 0,
     "spec.training.earlyStopping.patience: must be at least 1, got 0"),
    ("spec.training", 3, "spec.training: must be a mapping, got 3"),
    ("spec.shards", 10_001, "spec.shards: must be at most 10000, got 10001"),
    ("spec.suspend", "maybe", "spec.suspend: must be true or false, got 'maybe'"),
    ("spec.images", 3, "spec.images: must be text, got 3"),
    ("spec.images", "", "spec.images: must not be empty"),
    ("spec.export", "tflite", "spec.export: must be a list, got 'tflite'"),
    ("spec.export", [], "spec.export: must not be empty"),
    ("kind", "Job", "kind: must"),
    ("spec.distortions", {}, "distortions must turn on at least one of flipLeftRight"),
    ("spec.weights", "builtin", "builtin exists only for architecture mobilenet_0.25_128"),
    ("spec.split", {"testingPercentage": 60, "validationPercentage": 40}, "together less than 100"),
    ("spec.architecture", "mobilenet_0.5_224", "did you mean mobilenet_0.50_224?"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "sentence"), WRONG, ids=lambda x: str(x)[:30])
def test_a_wrong_field_is_named_by_its_path_in_the_file(
    path: str, value: Any, sentence: str
) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(with_field(path, value))
    assert sentence in str(caught.value)
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(path.partition(".")[0])


@pytest.mark.parametrize(
    "path", ["spec.training", "spec.training.steps", "spec.export", "spec.pod.labels", "spec.cache"]
)
def test_a_field_with_nothing_behind_it_has_its_default_as_in_a_cluster(path: str) -> None:
    assert parse_job(with_field(path, None)).spec == parse_job(MINIMAL).spec


def test_every_wrong_field_has_its_sentence() -> None:
    job = with_field("spec.training.steps", 0)
    job["spec"]["shards"] = 0
    del job["spec"]["images"]
    with pytest.raises(InvalidJob) as caught:
        parse_job(job, where="job.yaml")
    assert sorted(caught.value.problems) == [
        "spec.images: is required",
        "spec.shards: must be at least 1, got 0",
        "spec.training.steps: must be at least 1, got 0",
    ]
    assert str(caught.value).startswith("job.yaml: 3 problems\n  spec.")


@pytest.mark.parametrize("thing", [None, [], "text", 3])
def test_what_is_no_mapping_is_told_so(thing: object) -> None:
    with pytest.raises(
        InvalidJob, match="must be a mapping with apiVersion, kind, metadata and spec"
    ):
        parse_job(thing)


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(with_field("spec.training.steps", "9" * 5000))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["Flowers", "a" * 47, "-a", "a-", "a.b", "a_b", ""])
def test_a_name_that_is_no_dns_label_of_46_is_refused(name: str) -> None:
    with pytest.raises(InvalidJob, match=r"metadata\.name"):
        parse_job(with_field("metadata.name", name))


def test_the_longest_name_is_allowed() -> None:
    assert parse_job(with_field("metadata.name", "a" * 46)).name == "a" * 46


def test_there_are_33_architectures_each_with_its_figures() -> None:
    assert len(ARCHITECTURES) == 33
    # MobileNets, table 6 and 7 (multiply-adds in millions, the classifier's 1 million less).
    for name, published in (
        ("mobilenet_1.0_224", 569),
        ("mobilenet_0.75_224", 325),
        ("mobilenet_0.50_224", 149),
        ("mobilenet_0.25_224", 41),
        ("mobilenet_1.0_128", 186),
    ):
        assert architecture(name).multiply_adds / 1e6 == pytest.approx(published, abs=2)
    assert architecture("mobilenet_0.50_160").bottleneck == 512
    assert architecture("inception_v3").bottleneck == 2048
    assert architecture("mobilenet_0.25_128_quantized").backbone == "mobilenet_0.25_128"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mobilenet_0.5_224", "mobilenet_0.50_224"),
        ("mobilenet_1_224", "mobilenet_1.0_224"),
        ("mobilenet_0.25-128", "mobilenet_0.25_128"),
        ("mobilenet_0.50_160_quant", "mobilenet_0.50_160_quantized"),
        ("mobilenet_0.50_200", "mobilenet_0.50_192"),
        ("inception-v3", "inception_v3"),
        ("Mobilenet_1.0_224", "mobilenet_1.0_224"),
    ],
)
def test_the_nearest_architecture_is_named(written: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"did you mean {meant}\?"):
        architecture(written)


names = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
inputs = st.builds("s3://photos/{}".format, names)
outputs = st.builds("s3://models/{}".format, names)
trainings = st.builds(
    Training,
    steps=st.integers(1, 10**7),
    learning_rate=st.floats(1e-9, 1e9),
    batch_size=st.sampled_from([-1, 1, 100]),
    eval_interval=st.integers(1, 10**7),
    seed=st.integers(0, 2**31 - 1),
    optimizer=st.sampled_from(Optimizer),
    sampling=st.sampled_from(Sampling),
    early_stopping=st.none() | st.builds(EarlyStopping, patience=st.integers(1, 100_000)),
)
distortions = st.builds(
    Distortions,
    flip_left_right=st.just(True),
    random_crop=st.integers(0, 90),
    random_scale=st.integers(0, 500),
    random_brightness=st.integers(0, 100),
    views=st.integers(1, 64),
)
jobs = st.builds(
    RetrainJob,
    metadata=st.builds(Metadata, name=names),
    spec=st.builds(
        RetrainJobSpec,
        architecture=st.sampled_from(sorted(ARCHITECTURES)),
        images=inputs,
        output=outputs,
        cache=st.none() | outputs,
        storage=st.builds(Storage, region=st.none() | st.just("eu-west-1"), insecure=st.booleans()),
        split=st.builds(
            Split,
            testing_percentage=st.integers(0, 49),
            validation_percentage=st.integers(1, 49),
        ),
        training=trainings,
        distortions=st.none() | distortions,
        export=st.lists(st.sampled_from(Export), min_size=1, unique=True),
        max_rejected_fraction=st.floats(0, 1),
        active_deadline_seconds=st.none() | st.integers(1, 2**31 - 1),
    ),
)


# The machine may be busy: how long an example takes says nothing.
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(jobs)
def test_a_job_survives_yaml_and_back(job: RetrainJob) -> None:
    text = yaml.safe_dump(job.dump())
    parsed = parse_job(yaml.safe_load(text))
    assert parsed == job
    assert parsed.dump() == job.dump()

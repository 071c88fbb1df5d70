"""Types and contracts that the SDK, the operator and the trainer share; needs pydantic only."""

from retrainer.api.architectures import ARCHITECTURES, Architecture, architecture
from retrainer.api.backbone import BackboneSource, Channels, Crop, Layout, Token
from retrainer.api.evaluation import Accuracy, CommonestLabel, Evaluation, ExportCheck, LabelFigures
from retrainer.api.parsing import parse_job
from retrainer.api.pod import Pod, Resources, Toleration
from retrainer.api.status import (
    FINISHED,
    Condition,
    CurvePoint,
    Metrics,
    Phase,
    Progress,
    RetrainJobStatus,
    SweepChoice,
    SweepStatus,
)
from retrainer.api.task import Curve, Report, Task
from retrainer.api.v1alpha1 import (
    Distortions,
    EarlyStopping,
    Export,
    Metadata,
    Optimizer,
    RetrainJob,
    RetrainJobSpec,
    Sampling,
    Solver,
    Split,
    Storage,
    Sweep,
    Training,
)

__all__ = [
    "ARCHITECTURES", "FINISHED", "Accuracy", "Architecture", "BackboneSource", "Channels",
    "CommonestLabel", "Condition", "Crop", "Curve", "CurvePoint", "Distortions",
    "EarlyStopping", "Evaluation", "Export", "ExportCheck", "LabelFigures", "Layout",
    "Metadata", "Metrics", "Optimizer", "Phase", "Pod", "Progress", "Report", "Resources",
    "RetrainJob", "RetrainJobSpec", "RetrainJobStatus", "Sampling", "Solver", "Split",
    "Storage", "Sweep", "SweepChoice", "SweepStatus", "Task", "Token", "Toleration", "Training",
    "architecture", "parse_job",
]  # fmt: skip

"""A job's places on this machine: made absolute, and checked before anything heavy starts."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from retrainer.api import RetrainJob, rules
from retrainer.inference.leftovers import PICTURES

NAMED_WEIGHTS = ("imagenet", "builtin")


def local_path(place: str) -> Path | None:
    """Find the absolute path that a place of a job names on this machine; None if it is in a store."""
    if place.startswith("file://"):
        return Path(urlsplit(place).path)
    return None if "://" in place else Path(place).expanduser().absolute()


def lies_inside(place: str, folder: str) -> bool:
    """Say whether a place of a job is another place or inside it; links and `..` are followed."""
    path, above = local_path(place), local_path(folder)
    if path is None or above is None:
        return (place.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")
    return path.resolve().is_relative_to(above.resolve())


def absolute(job: RetrainJob) -> RetrainJob:
    """Make the job's paths absolute, so that its report says where things really are."""
    spec = job.spec
    places = {
        "images": spec.images,
        "manifest": spec.manifest,
        "corrections": spec.corrections,
        "output": spec.output,
        "cache": spec.cache,
    }
    if spec.weights not in NAMED_WEIGHTS:
        places["weights"] = spec.weights
    update: dict[str, object] = {
        field: _without_dots(place)
        for field, place in places.items()
        if place and "://" not in place
    }
    if spec.backbone and "://" not in spec.backbone.url:
        url = _without_dots(spec.backbone.url)
        update["backbone"] = spec.backbone.model_copy(update={"url": url})
    return job.model_copy(update={"spec": spec.model_copy(update=update)})


def _without_dots(place: str) -> str:
    path = Path(place).expanduser()
    return str(path.resolve() if ".." in path.parts else path.absolute())


def problems(job: RetrainJob) -> list[str]:
    """Say what is wrong with the job's places on this machine, one sentence per field.

    Links and `..` are followed: an output that lies inside images is one more label, however it is
    spelled.
    """
    spec = job.spec
    sentences = []
    images = local_path(spec.images)
    if images is not None and not images.is_dir():
        why = "is no folder" if images.exists() else "does not exist"
        sentences.append(f"spec.images: the folder {spec.images} {why}")
    for field, place in (("manifest", spec.manifest), ("corrections", spec.corrections)):
        path = local_path(place) if place else None
        if path is not None and not path.is_file():
            why = "is a folder" if path.is_dir() else "does not exist"
            sentences.append(f"spec.{field}: the file {place} {why}")
    for field, place in (("output", spec.output), ("cache", spec.cache)):
        path = local_path(place) if place else None
        if path is None:
            continue
        if path.exists() and not path.is_dir():
            sentences.append(f"spec.{field}: {place} is no folder")
        elif place and not spec.manifest and lies_inside(place, spec.images):
            sentences.append(f"spec.{field}: {rules.OUTPUT_APART.message}, got {place!r}")
    if spec.weights not in NAMED_WEIGHTS:
        weights = local_path(spec.weights)
        if weights is not None and not weights.exists():
            sentences.append(f"spec.weights: there is no file or folder {spec.weights}")
    if spec.backbone:
        backbone = local_path(spec.backbone.url)
        if backbone is not None and not backbone.exists():
            sentences.append(f"spec.backbone.url: there is no file or folder {spec.backbone.url}")
    return sentences


def label_counts(images: Path) -> dict[str, int]:
    """Count the pictures of each label folder under `images`, by name; folders without are left out."""
    counts = {}
    for folder in sorted(images.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            pictures = sum(
                name.lower().endswith(PICTURES) and not name.startswith(".")
                for _, _, names in os.walk(folder)
                for name in names
            )
            if pictures:
                counts[folder.name] = pictures
    return counts


def find_photos(here: Path) -> Path | None:
    """Find the first folder in `here` whose folders, two at least, have pictures directly in them."""
    for folder in sorted(here.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            labels = [label for label in folder.iterdir() if label.is_dir() and _has_picture(label)]
            if len(labels) > 1:
                return folder
    return None


def _has_picture(folder: Path) -> bool:
    return any(path.suffix.lower() in PICTURES for path in folder.iterdir())

"""Rows of a manifest as any of its forms gives them, and which column holds what."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class ManifestError(ValueError):
    """The file as a whole is no manifest; the message is the end of a sentence that says why."""


class Row(NamedTuple):
    """One row as it is written; "" where it says nothing.

    Attributes:
        line: number of the line that it begins at, or of the row, from 1.
        path: of the image, as written.
        label: of the image.
        split: the set that it is to be in.
        group: rows of one group stay in one set.
        identity: 32 hexadecimal digits that stand for the image's content.
        problem: why the row cannot be used; "" if it can.
    """

    line: int
    path: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    identity: str = ""
    problem: str = ""


class Columns(NamedTuple):
    """Where a row has what: indices into it, or None."""

    path: int
    label: int
    split: int | None = None
    group: int | None = None
    identity: int | None = None

    def row(self, line: int, cells: Sequence[Any]) -> Row:
        """Make a row of the cells of one line; those that are missing at its end are empty."""

        def cell(index: int | None) -> Any:
            return "" if index is None or index >= len(cells) else cells[index]

        label, problem = one_label(cell(self.label))
        return Row(
            line,
            text(cell(self.path)),
            label,
            text(cell(self.split)),
            text(cell(self.group)),
            text(cell(self.identity)),
            problem,
        )


# Names of columns, the surest first; case, spaces and hyphens do not matter.
_NAMES = {
    "path": (
        "path", "file_name", "filename", "file_path", "filepath", "image_path", "file", "image",
        "image_url", "image_uri", "url", "uri", "img", "photo", "picture",
    ),
    "label": ("label", "class", "class_name", "label_name", "category", "choice", "target"),
    "split": ("split", "set", "subset", "ml_use"),
    "group": ("group", "group_id"),
    "identity": ("identity",),
}  # fmt: skip

# What Label Studio writes about each annotation; by this one its exports are recognised.
_LABEL_STUDIO = "annotation_id"
_LABEL_STUDIO_OWN = frozenset({
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement",
    "comments",
})  # fmt: skip

_MOST_NAMED = 10


def find_columns(names: Sequence[str]) -> Columns:
    """Find which column holds what, by the columns' names.

    Raises:
        ManifestError: none holds the path, or none the label.
    """
    plain = [name.strip().casefold().replace(" ", "_").replace("-", "_") for name in names]
    places: dict[str, int] = {}
    for role, headings in _NAMES.items():
        for name in headings:
            if name in plain:
                places[role] = plain.index(name)
                break
    if _LABEL_STUDIO in plain:
        _add_label_studio(plain, places)
    absent = [role for role in ("path", "label") if role not in places]
    if absent:
        listed = ", ".join(repr(name)[1:-1] for name in names[:_MOST_NAMED])
        raise ManifestError(
            f"its columns are {listed}, and none is called {' or '.join(absent)}; name the columns path "
            "and label, and if there are such split and group"
        )
    return Columns(**places)


def _add_label_studio(names: Sequence[str], places: dict[str, int]) -> None:
    """Find what a Label Studio project calls its pictures (before `id`) and its labels (behind it)."""
    middle = names.index("id") if "id" in names else len(names)
    for role, among in (("path", range(middle)), ("label", range(middle, len(names)))):
        free = [i for i in among if names[i] not in _LABEL_STUDIO_OWN and i not in places.values()]
        if role not in places and len(free) == 1:
            places[role] = free[0]


def text(value: object) -> str:
    """Give a cell as text; "" for none, and a whole number without a point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)


def one_label(value: object) -> tuple[str, str]:
    """Read a label, or a list of labels that has one.

    Returns:
        The label, and why it cannot be used: "" if it can.
    """
    if isinstance(value, dict) and "choices" in value:  # Label Studio's form of several
        value = value["choices"]
    if not isinstance(value, list):
        return (text(value).strip(), "") if not isinstance(value, dict) else ("", _NO_TEXT)
    if len(value) == 1 and not isinstance(value[0], (dict, list)):
        return text(value[0]).strip(), ""
    return "", f"it has {len(value)} labels, and one is needed" if value else ""


_NO_TEXT = "its label is no text"

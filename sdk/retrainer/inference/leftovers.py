"""Which files are photos, and which beside them are none, by their names."""

from pathlib import PurePosixPath

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".heic", ".tif", ".tiff")
"""How names of pictures end, in lower case."""

# Without regard to case: Windows and macOS have none, and copies of copies come in every spelling.
_SYSTEM = frozenset({
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r",
    "$recycle.bin", "system volume information", "lost+found", "__macosx",
    "@eadir", "@tmp", "#recycle", "#snapshot",  # of network drives: @eaDir holds thumbnails
})  # fmt: skip

# What programs write beside a photo: boxes, captions, edits, the sound and film of a live photo.
_SIDECARS = frozenset({
    ".xml", ".json", ".jsonl", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".md", ".html",
    ".aae", ".xmp", ".thm", ".pp3", ".dop", ".mov", ".mp4", ".m4v", ".wav", ".mp3",
    ".db", ".ini", ".log", ".py", ".cfg", ".parquet", ".npy", ".npz", ".pkl", ".h5",
})  # fmt: skip


def is_leftover(name: str) -> bool:
    """Say whether a file or folder of this name is hidden, or left by an operating system."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_sidecar(name: str) -> bool:
    """Say whether a file of this name describes a photo and is none itself."""
    return PurePosixPath(name).suffix.casefold() in _SIDECARS

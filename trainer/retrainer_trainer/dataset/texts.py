"""Many strings in little memory, and strings on one line: the paths and labels of a job."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Self, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 50_000


class Texts(Sequence[str]):
    """Many strings in little memory: one block of bytes and where each ends."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self._block = b"".join(values)
        self._ends = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=self._ends[1:])

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Pack strings, which may hold any bytes that a file's name can (surrogateescape)."""
        return cls([text.encode(errors="surrogateescape") for text in texts])

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """Put several one behind the other."""
        texts = cls([])
        texts._block = b"".join(part._block for part in parts)
        starts = np.cumsum([0, *(len(part._block) for part in parts)])
        ends = [part._ends[1:] + start for part, start in zip(parts, starts, strict=False)]
        texts._ends = np.concatenate([np.zeros(1, np.int64), *ends])
        return texts

    def arrow(self) -> "pa.LargeBinaryArray":
        """Give the strings as an Arrow array of their bytes, which shares this memory."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(self._block)]
        return pa.Array.from_buffers(pa.large_binary(), len(self), buffers)

    def chosen(self, rows: npt.NDArray[np.integer]) -> "Texts":
        """Give the strings of these rows, in their order."""
        block, ends = self._block, self._ends
        return type(self)([block[ends[row] : ends[row + 1]] for row in rows.tolist()])

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return _text(self._block[self._ends[index] : self._ends[index + 1]])

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            ends = self._ends[start : start + _CHUNK + 1].tolist()
            for low, high in pairwise(ends):
                yield _text(self._block[low:high])

    def raw(self) -> list[bytes]:
        """Give the strings as bytes of UTF-8."""
        return [self._block[low:high] for low, high in pairwise(self._ends.tolist())]


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def shown(path: str) -> str:
    """Put `path` on one line: control characters and bytes that are no UTF-8 become escapes."""
    safe = path.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)

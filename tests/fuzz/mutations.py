"""Bytes that are nearly a right file, for hypothesis to choose and to shrink."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

_NUMBERS = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
"""Those at which programs err: the ends of what fits."""
_FORMS = ("B", "<H", ">H", "<I", ">I")


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, with up to six places changed, taken out, put in, doubled or cut off."""
    body = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(body)))
        end = min(len(body), place + draw(st.integers(1, 64)))
        match draw(st.sampled_from(["set", "number", "out", "in", "double", "cut", "splice"])):
            case "set":
                body[place:end] = draw(st.binary(min_size=end - place, max_size=end - place))
            case "number":
                form = draw(st.sampled_from(_FORMS))
                number = draw(st.sampled_from(_NUMBERS)) % 2 ** (8 * struct.calcsize(form))
                body[place : place + struct.calcsize(form)] = struct.pack(form, number)
            case "out":
                del body[place:end]
            case "in":
                body[place:place] = draw(st.binary(max_size=16))
            case "double":
                body[place:place] = body[place:end]
            case "cut":
                del body[place:]
            case _:
                other = draw(st.sampled_from(seeds))
                body[place:] = other[draw(st.integers(0, len(other))) :]
    return bytes(body)

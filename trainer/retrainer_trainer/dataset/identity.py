"""The identity of an image: the same content has the same identity, wherever it lies."""

import hashlib

import numpy as np
import numpy.typing as npt

IDENTITY_BYTES = 16

Identities = npt.NDArray[np.uint8]
"""(N, 16), a row per image."""


def identity(etag: str, size: int) -> bytes:
    """Compute an image's identity: 16 bytes of BLAKE2b of its ETag (without quotes) and its size.

    For a plain upload the ETag is the MD5 of the bytes, so a local copy has the same identity.
    """
    return hashlib.blake2b(
        f"{etag.strip(chr(34))} {size}".encode(), digest_size=IDENTITY_BYTES
    ).digest()


def content_identity(body: bytes) -> bytes:
    """Compute the identity of an image that has no ETag, from its bytes."""
    return identity(hashlib.md5(body, usedforsecurity=False).hexdigest(), len(body))


def nearly_black(identities: Identities) -> Identities:
    """Make the names under which the cache marks images as nearly black, a row per image.

    So a later run, which decodes nothing, can tell it as well. Identities are digests: those with some
    bits flipped are no other image's.
    """
    return identities ^ np.uint8(0xA5)


def shard_of(identities: Identities, shards: int) -> npt.NDArray[np.int64]:
    """Say which of `shards` computes each image, (N,): the same for equal images, evenly spread."""
    first = np.ascontiguousarray(identities[:, :8]).view("<u8")[:, 0]
    return (first % np.uint64(shards)).astype(np.int64)


def same(identities: Identities) -> list[npt.NDArray[np.int64]]:
    """Group the row numbers of equal identity, two or more in each group."""
    if not len(identities):
        return []
    whole = np.ascontiguousarray(identities).view(f"S{IDENTITY_BYTES}")[:, 0]
    order = np.argsort(whole, kind="stable")
    ordered = whole[order]
    edges = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(order)]])
    many = ends - starts > 1
    groups = [order[s:e] for s, e in zip(starts[many], ends[many], strict=True)]
    return sorted(groups, key=lambda g: int(g[0]))

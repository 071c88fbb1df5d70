"""The two files of a segment: a Parquet file of bottlenecks, and beside it the index of their places.

Anyone who can write to the cache can put any file there: none is unpacked before its size is checked.
"""

import hashlib
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api.layout import INDEX_CHECK_BYTES
from retrainer_trainer.arrays import Floats
from retrainer_trainer.dataset.identity import IDENTITY_BYTES

ROW_GROUP = 1000
"""Rows per row group: at 512 floats, 2 MB, a good size for one read of other tools."""

MOST_SEGMENT_BYTES = 1 << 30
"""A larger file is not read: a segment has about 4,000 bottlenecks, at most 33 MB of them."""

RECORD = np.dtype([("image", "V16"), ("offset", "<u8"), ("crc", "<u4")])
"""One row of an index: the image's identity, where its floats begin, and their checksum."""

_MAGIC = b"RTINDEX1"
_HEADER = struct.Struct("<8sIIQ")  # magic, floats per row, rows, bytes of the segment
_FLOAT_BYTES = 4


class DamagedError(ValueError):
    """A segment or an index that is not as it was written."""


def check_size(segment_bytes: int) -> None:
    """Refuse a file that is too large to be a segment, before it is read.

    Raises:
        DamagedError: it is.
    """
    if segment_bytes > MOST_SEGMENT_BYTES:
        raise DamagedError("the segment is larger than any that is written")


def pack_segment(identities: npt.NDArray[np.uint8], bottlenecks: Floats) -> bytes:
    """Write a Parquet file of identities (N, 16) and bottlenecks (N, width)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, width = bottlenecks.shape
    # From buffers: pyarrow.array() would import pandas, which takes a second.
    image_type, float_type = pa.binary(IDENTITY_BYTES), pa.float32()
    image = pa.Array.from_buffers(image_type, count, [None, pa.py_buffer(identities.tobytes())])
    flat = pa.Array.from_buffers(
        float_type, count * width, [None, pa.py_buffer(bottlenecks.tobytes())]
    )
    rows = pa.FixedSizeListArray.from_arrays(flat, width)
    table = pa.Table.from_arrays([image, rows], names=["image", "bottleneck"])
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP,
        use_dictionary=False,
        compression="none",
        write_statistics=False,
        write_page_checksum=True,
        # One page per row group and column, so that its floats lie in one piece.
        data_page_size=1 << 30,
        write_batch_size=1 << 30,
        max_rows_per_page=1 << 30,
    )
    return bytes(sink.getvalue())


def index_records(body: bytes, width: int, path: str) -> npt.NDArray[np.void]:
    """Find identity, place and checksum of each row of the segment at `path`, named by its SHA-256.

    Raises:
        DamagedError: not a segment, or its floats do not lie in one piece.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if hashlib.sha256(body).hexdigest() not in path:
        raise DamagedError(path)
    try:
        # Without pyarrow's threads: one of them may kill a program that is ending.
        source = pa.BufferReader(body)
        with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
            _check_shape(file.metadata, width, len(body))
            table: Any = file.read(use_threads=False)
            groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
        images = table.column("image").combine_chunks()
        lists = table.column("bottleneck").combine_chunks()
        # By their buffers: numpy's asarray() of an Arrow array imports pandas.
        count = len(images)
        flat = np.frombuffer(lists.values.buffers()[1], np.float32, count * width)
        raw = np.frombuffer(images.buffers()[1], np.uint8, count * IDENTITY_BYTES)
        values, identities = flat.reshape(-1, width), raw.reshape(-1, IDENTITY_BYTES)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedError("it is no segment that can be read") from error
    records = np.empty(len(values), RECORD)
    records["image"] = np.ascontiguousarray(identities).view("V16")[:, 0]
    row = 0
    for group in groups:
        column = group.column(1)
        size = group.num_rows * width * 4
        # Plain and uncompressed, the values are the end of the only page (parquet-format, Data Pages).
        start = column.data_page_offset + column.total_compressed_size - size
        slab = body[start : start + size]
        if slab != values[row : row + group.num_rows].tobytes():
            raise DamagedError("its floats do not lie in one piece")
        for k in range(group.num_rows):
            crc = zlib.crc32(slab[k * width * 4 : (k + 1) * width * 4])
            records[row + k] = (records["image"][row + k], start + k * width * 4, crc)
        row += group.num_rows
    return records


def _check_shape(metadata: Any, width: int, body_bytes: int) -> None:
    """Refuse, before it is decoded, a Parquet file that is no segment or would unpack to more.

    Raises:
        DamagedError: it has other columns, is compressed or encoded, or counts rows that do not fit.
    """
    columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    if [(c.path, c.physical_type, c.length) for c in columns] != [
        ("image", "FIXED_LEN_BYTE_ARRAY", IDENTITY_BYTES),
        ("bottleneck.list.element", "FLOAT", 0),
    ]:
        raise DamagedError("it has other columns than a segment")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows * (width * _FLOAT_BYTES + IDENTITY_BYTES) > body_bytes:
        raise DamagedError("it counts more rows than it has room for")
    for group in groups:
        images, bottlenecks = group.column(0), group.column(1)
        if (images.num_values, bottlenecks.num_values) != (group.num_rows, group.num_rows * width):
            raise DamagedError("its columns have other numbers of values than rows")
        for column in (images, bottlenecks):
            plain = column.compression == "UNCOMPRESSED" and not column.has_dictionary_page
            if not plain or not set(column.encodings) <= {"PLAIN", "RLE"}:
                raise DamagedError("it is compressed or encoded")


def pack_index(records: npt.NDArray[np.void], width: int, segment_bytes: int) -> bytes:
    """Write the file beside a segment: header, records, and a digest of both."""
    body = _HEADER.pack(_MAGIC, width, len(records), segment_bytes) + records.tobytes()
    return body + hashlib.blake2b(body, digest_size=INDEX_CHECK_BYTES).digest()


def unpack_index(body: bytes, width: int, segment_bytes: int) -> npt.NDArray[np.void]:
    """Read the records of an index.

    Raises:
        DamagedError: it is not whole, or not of this segment.
    """
    if len(body) < _HEADER.size + INDEX_CHECK_BYTES:
        raise DamagedError("the index is not whole")
    content, check = body[:-INDEX_CHECK_BYTES], body[-INDEX_CHECK_BYTES:]
    if hashlib.blake2b(content, digest_size=INDEX_CHECK_BYTES).digest() != check:
        raise DamagedError("the index is not whole")
    magic, floats, rows, size = _HEADER.unpack_from(content)
    if magic != _MAGIC or floats != width or size != segment_bytes:
        raise DamagedError("the index is of another segment")
    if len(content) != _HEADER.size + rows * RECORD.itemsize:
        raise DamagedError("the index has another number of rows than it says")
    records = np.frombuffer(content, RECORD, rows, _HEADER.size)
    if rows and int(records["offset"].max()) > segment_bytes - width * _FLOAT_BYTES:
        raise DamagedError("the index points outside its segment")
    return records


def index_bytes(width: int, segment_bytes: int) -> int:
    """Compute the size of the largest index that a segment of this size can have."""
    rows = segment_bytes // (width * _FLOAT_BYTES)
    return _HEADER.size + rows * RECORD.itemsize + INDEX_CHECK_BYTES

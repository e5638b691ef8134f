"""Protocol Buffers without a schema: enough to tell files apart and to look before loading.

The encoding is specified at protobuf.dev, "Encoding": a message is a sequence of (number, wire
type, value), where a value with a length is a text, bytes or another message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10
BEGINNING = 1 << 12  # bytes of a long field that tell what it is
Value = int | memoryview
Field = tuple[int, Value]


class WireError(ValueError):
    """Bytes that are no message."""


def fields(message: memoryview) -> Iterator[Field]:
    """Number and value of each field; integers for numbers of any kind.

    Raises:
        WireError: the bytes end within a field, or no encoder writes them.

    """
    position = 0
    while position < len(message):
        number, value, position = _field(message, position)
        if position > len(message):
            raise WireError("it ends within a field")
        yield number, value


def first_field(message: memoryview) -> Field:
    """The first one, of which the end may be missing."""
    number, value, _ = _field(message, 0)
    return number, value


def top_level(path: Path, most: int) -> Iterator[Field]:
    """The first fields of a file, of long ones the beginning; the rest is not read.

    Raises:
        WireError: the file is no message.

    """
    position, end = 0, path.stat().st_size
    with path.open("rb") as handle:
        for _ in range(most):
            if position >= end:
                return
            handle.seek(position)
            number, value, used = _field(memoryview(handle.read(BEGINNING)), 0)
            position += used
            yield number, value


def _field(message: memoryview, position: int) -> tuple[int, Value, int]:
    """Number, value and where the next field begins, which may lie behind the end."""
    tag, position = _varint(message, position)
    number, kind = tag >> 3, tag & 7
    if not number:
        raise WireError("a field has the number 0")
    if kind == VARINT:
        value, position = _varint(message, position)
        return number, value, position
    if kind == LENGTH:
        size, position = _varint(message, position)
        return number, message[position : position + size], position + size
    if kind not in (FIXED32, FIXED64):
        raise WireError(f"a field has the wire type {kind}")
    size = 4 if kind == FIXED32 else 8
    piece = message[position : position + size]
    return number, int.from_bytes(piece, "little"), position + size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for count in range(LONGEST_VARINT):
        try:
            byte = message[position + count]
        except IndexError as error:
            raise WireError("it ends within a number") from error
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise WireError("a number is too long")


def messages(message: memoryview, *path: int) -> Iterator[memoryview]:
    """The values with a length at a path of field numbers, all of them."""
    number, *rest = path
    for found, value in fields(message):
        if found == number and isinstance(value, memoryview):
            if rest:
                yield from messages(value, *rest)
            else:
                yield value


def text(message: memoryview, number: int) -> str:
    """The last text under a number, '' without one.

    Raises:
        WireError: it is no UTF-8.

    """
    found = b""
    for field, value in fields(message):
        if field == number and isinstance(value, memoryview):
            found = bytes(value)
    try:
        return found.decode()
    except UnicodeDecodeError as error:
        raise WireError("a name is no text") from error

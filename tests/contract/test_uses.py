"""What the standard library does with a file it can do with a stream."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import pickle
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from makers import Maker, Source
from support import in_thread

PY311 = sys.version_info >= (3, 11)

VALUE = {"text": "é€", "numbers": list(range(5000)), "nothing": None}
MEMBERS = {"a.txt": b"text\n", "dir/b.bin": bytes(range(256)) * 500, "empty": b""}


def test_json(maker: Maker) -> None:
    data = json.dumps(VALUE, ensure_ascii=False).encode()
    for options in ({}, {"text": True}, {"bufsize": 0}):
        with maker.source(data, **options) as stream:
            assert json.load(stream) == VALUE
    with maker.channel(text=True) as channel:
        json.dump({"a": [1, "é"]}, channel.writer)
        channel.writer.write("\n")
        channel.writer.flush()
        assert json.loads(channel.reader.readline()) == {"a": [1, "é"]}


def test_csv(source: Source) -> None:
    rows = [["name", "text"], ["é", 'quo"ted'], ["two\nlines", ""]]
    target = io.StringIO(newline="")
    csv.writer(target).writerows(rows)
    with source(target.getvalue().encode()) as stream:
        with io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
            assert list(csv.reader(text)) == rows


def test_pickle(maker: Maker, bufsize: int) -> None:
    with maker.channel() as channel:
        for value in (VALUE, (1, "x"), None):
            pickle.dump(value, channel.writer)
            assert pickle.load(channel.reader) == value
    # Of several in a row each is taken by itself, with or without a buffer.
    many = b"".join(map(pickle.dumps, (1, VALUE, "end")))
    if bufsize:
        with maker.source(many, bufsize=bufsize) as stream:
            assert [pickle.load(stream) for _ in range(3)] == [1, VALUE, "end"]
            with pytest.raises(EOFError):
                pickle.load(stream)


@pytest.mark.parametrize("module", [gzip, lzma], ids=["gzip", "lzma"])
def test_compressed(maker: Maker, module: Any) -> None:
    data = b"compress me " * 20_000
    packed = module.compress(data)
    with maker.source(packed) as stream, module.open(stream) as file:
        assert file.read() == data
    with maker.source(packed + packed) as stream, module.open(stream, "rt") as file:
        assert file.read() == data.decode() * 2
    with maker.channel() as channel:
        with module.open(channel.writer, "wb") as file:
            file.write(data)
        assert len(channel.reader.read1()) > 0


def archive(make: Callable[[io.BytesIO], Any]) -> bytes:
    target = io.BytesIO()
    make(target)
    return target.getvalue()


def pack(target: Any, mode: str) -> None:
    with tarfile.open(fileobj=target, mode=mode) as tar:
        for name, content in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("compression", ["", "gz"])
def test_tar_as_a_stream(source: Source, bufsize: int, compression: str) -> None:
    packed = archive(lambda target: pack(target, f"w:{compression}"))
    with source(packed, bufsize=bufsize) as stream:
        with tarfile.open(fileobj=stream, mode=f"r|{compression}") as tar:
            assert {info.name: tar.extractfile(info).read() for info in tar} == MEMBERS


def test_tar_there_and_back(maker: Maker) -> None:
    with maker.channel() as channel:
        packing = in_thread(pack, channel.writer, "w|")
        with tarfile.open(fileobj=channel.reader, mode="r|") as tar:
            assert {info.name: tar.extractfile(info).read() for info in tar} == MEMBERS
        packing.result()


def test_zip_of_a_spooled_copy(source: Source) -> None:
    def make(target: io.BytesIO) -> None:
        with zipfile.ZipFile(target, "w") as file:
            for name, content in MEMBERS.items():
                file.writestr(name, content)

    # Spooled files have been seekable() since 3.11.
    temporary = tempfile.SpooledTemporaryFile if PY311 else tempfile.TemporaryFile
    with source(archive(make)) as stream, temporary() as spooled:
        shutil.copyfileobj(stream, spooled)
        with zipfile.ZipFile(spooled) as file:
            assert {name: file.read(name) for name in file.namelist()} == MEMBERS

"""Frameworks that behave badly, for test_worker: `source` says how."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from infer_runtime.errors import UnsupportedOpError, UsageError


def open_source(source, folder, options):
    if source.startswith("at open "):
        HABITS[source.removeprefix("at open ")](options)
    (folder / "left").write_text("a file")

    def run(feeds):
        if source.startswith("at run "):
            HABITS[source.removeprefix("at run ")](options)
        return {name: value + 1 for name, value in feeds.items() if value.dtype != object} | {
            name: np.array([text + "!" for text in value.ravel()], object).reshape(value.shape)
            for name, value in feeds.items()
            if value.dtype == object
        }

    return run, {"options": options, "half": str(ml_dtypes.bfloat16(1.5))}


def talk(_):
    for stream in (sys.stdout, sys.stderr):
        for _ in range(200):
            stream.write("talk " * 10_000)
    os.system("echo from another process")
    sys.stdout.write(f"input: {sys.stdin.read()}")


def crash(_):
    os.write(2, b"what()  a vector is too long\n\n")
    ctypes.string_at(0)


def hang(options):
    Path(options["marker"]).write_text(str(os.getpid()))
    time.sleep(600)


def refuse(error):
    raise error


def fail(_):
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise RuntimeError("outer\nwith lines") from error


HABITS = {
    "print": talk,
    "crash": crash,
    "exit": lambda _: sys.exit("enough"),
    "end": lambda _: os._exit(3),
    "kill": lambda _: os.kill(os.getpid(), 9),
    "hang": hang,
    "usage": lambda _: refuse(UsageError("the option is wrong")),
    "op": lambda _: refuse(UnsupportedOpError("no operator Foo")),
    "raise": fail,
}

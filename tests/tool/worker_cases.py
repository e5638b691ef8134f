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
        misbehave(source.removeprefix("at open "), options)
    (folder / "left").write_text("a file")

    def run(feeds):
        if source.startswith("at run "):
            misbehave(source.removeprefix("at run "), options)
        return {name: value + 1 for name, value in feeds.items() if value.dtype != object} | {
            name: np.array([text + "!" for text in value.ravel()], object).reshape(value.shape)
            for name, value in feeds.items()
            if value.dtype == object
        }

    return run, {"options": options, "half": str(ml_dtypes.bfloat16(1.5))}


def misbehave(how, options):
    if how == "print":
        for stream in (sys.stdout, sys.stderr):
            for _ in range(200):
                stream.write("talk " * 10_000)
        os.system("echo from another process")
        print("input:", sys.stdin.read())
    elif how == "crash":
        os.write(2, b"what()  a vector is too long\n\n")
        ctypes.string_at(0)
    elif how == "exit":
        sys.exit("enough")
    elif how == "end":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), 9)
    elif how == "hang":
        Path(options["marker"]).write_text(str(os.getpid()))
        time.sleep(600)
    elif how == "usage":
        raise UsageError("the option is wrong")
    elif how == "op":
        raise UnsupportedOpError("no operator Foo")
    elif how == "raise":
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer\nwith lines") from error

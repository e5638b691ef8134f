"""One process of TensorFlow that opens many sources: a model whose feeds name sources."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from infer_runtime.errors import InferError
from infer_tool.importers import tensorflow_child
from infer_tool.reason import reason


def open_source(source, folder, options):
    def run(feeds):
        place = Path(mkdtemp(dir=folder))
        asked = json.loads(str(feeds["options"]))
        try:
            _, answer = tensorflow_child.open_source(str(feeds["source"]), place, asked)
        except InferError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        except Exception as error:  # noqa: BLE001 - as infer_tool.worker_child does
            answer = {"error": "ModelError", "text": f"{feeds['source']}: {reason(error)}"}
        finally:
            shutil.rmtree(place)
        return {"answer": np.array(json.dumps(answer), object)}

    return run, {}

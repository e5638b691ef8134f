"""Inside TensorFlow's process: any source becomes a SavedModel that loads and does not act."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers.detect import SAVED_MODEL
from infer_tool.importers.keras_hdf5 import check_hdf5, check_weights
from infer_tool.importers.tensorflow_graph import Ends, ends_of, resave

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT = "serving_default"
MUST_COMPILE = "_XlaMustCompile"
SERVE = "serve"
SUFFIXES = {"keras": ".keras", "keras_h5": ".h5"}
# Operations without a result that write; a graph that computes needs none of them.
SILENCED = {"Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints", "PrintV2"}


def prepare(source: str, folder: Path, options: Mapping[str, Any]) -> tuple[Path, str]:
    """A SavedModel in `folder`, and the name of the signature that is meant.

    Raises:
        UsageError: an option names what the source has not.
        ModelError: the source holds no model, or a signature that cannot be told.

    """
    kind, target = options["kind"], folder / "model"
    if kind == "graph_def":
        graph = _read_graph(Path(source))
        resave(graph, ends_of(graph, source, options), target)
        return target, DEFAULT
    exported = Path(source)
    if kind != "saved_model":
        exported = _exported(source, kind, folder)
    proto = _scrubbed(exported)
    _copy(exported, proto, target)
    meta, name = _choose(proto, source, options["signature"])
    if meta.object_graph_def.nodes:
        return target, name
    graph, ends = _frozen(target, meta, name)
    resave(graph, ends, folder / "frozen")
    return folder / "frozen", DEFAULT


def _exported(source: str, kind: str, folder: Path) -> Path:
    import keras  # type: ignore[import-untyped]

    (check_hdf5 if kind == "keras_h5" else check_weights)(source)
    link = folder / f"source{SUFFIXES[kind]}"  # by which Keras tells its formats apart
    link.symlink_to(Path(source).resolve())
    model = keras.saving.load_model(link, compile=False, safe_mode=True)
    if not model.built:
        raise ModelError(f"{source}: its inputs have no shapes; build the model before saving it")
    model.export(str(folder / "export"), format="tf_saved_model", verbose=False)
    return folder / "export"


def _read_graph(path: Path) -> Any:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    graph.ParseFromString(path.read_bytes())
    _silence(graph.node)
    return graph


def _scrubbed(source: Path) -> Any:
    """The SavedModel's description without what keeps it from loading, converting or being safe.

    Slot variables of old optimisers break loading; functions that must be compiled by XLA, such as
    Keras's grouped convolutions, are not inlined and stay in the graph as calls.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((source / SAVED_MODEL).read_bytes())
    for meta in proto.meta_graphs:
        for tracked in meta.object_graph_def.nodes:
            del tracked.slot_variables[:]
        functions = meta.graph_def.library.function
        nodes = [*meta.graph_def.node, *(n for f in functions for n in f.node_def)]
        for holder in (*functions, *nodes):
            holder.attr.pop(MUST_COMPILE, None)
        _silence(nodes)
    return proto


def _silence(nodes: Any) -> None:
    for node in nodes:
        if node.op in SILENCED:
            node.op = "NoOp"
            node.input[:] = [name for name in node.input if name.startswith("^")]
            node.attr.clear()


def _copy(source: Path, proto: Any, target: Path) -> None:
    """With this description; its other files are only linked."""
    target.mkdir()
    (target / SAVED_MODEL).write_bytes(proto.SerializeToString(deterministic=True))
    for part in source.iterdir():
        if part.name != SAVED_MODEL:
            (target / part.name).symlink_to(part.resolve())


def _choose(proto: Any, source: str, wanted: str) -> tuple[Any, str]:
    """The graph to serve and the signature in it."""
    metas = sorted(proto.meta_graphs, key=lambda m: SERVE not in m.meta_info_def.tags)
    if not metas:
        raise ModelError(f"{source}: holds no graph")
    names = sorted(n for n in metas[0].signature_def if not n.startswith("__"))
    shown = ", ".join(names)
    if not names:
        raise ModelError(f"{source}: has no signature; save it with signatures=")
    if wanted and wanted not in names:
        raise UsageError(f"--signature {wanted}: {source} has {shown}")
    if wanted or DEFAULT in names or len(names) == 1:
        return metas[0], wanted or (DEFAULT if DEFAULT in names else names[0])
    raise UsageError(f"{source}: has the signatures {shown}; choose one with --signature")


def _frozen(folder: Path, meta: Any, name: str) -> tuple[Any, Ends]:
    """A SavedModel of TensorFlow 1 keeps variables in a session; they become constants."""
    import tensorflow as tf

    v1 = tf.compat.v1
    signature = meta.signature_def[name]
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        v1.saved_model.loader.load(session, list(meta.meta_info_def.tags), str(folder))
        outputs = dict(_tensors(signature.outputs))
        constant = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [t.rpartition(":")[0] for t in outputs.values()]
        )
    return constant, Ends(dict(_tensors(signature.inputs)), outputs)


def _tensors(infos: Any) -> Iterator[tuple[str, str]]:
    return ((key, infos[key].name) for key in sorted(infos))

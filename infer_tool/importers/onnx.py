"""ONNX files: opset 7 to 28, external data inside the model's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.errors import ModelError
from infer_runtime.functions import check_functions
from infer_runtime.mapped import map_external
from infer_tool.engines import available_engines, open_engine
from infer_tool.importers import Imported, ImportOptions
from infer_tool.importers.links import relocate
from infer_tool.importers.normalise import bodies, normalise
from infer_tool.quiet import quiet
from infer_tool.reason import reason
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from infer_tool.importers import Outputs

# What wrong values raise in onnx, onnx_ir and here.
DAMAGE = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)

# Where a constant of TensorProto may have its values.
DATA = {
    "raw_data", "float_data", "int32_data", "int64_data", "uint64_data", "double_data",
    "string_data",
}  # fmt: skip


def load(source: str, options: ImportOptions) -> Imported:
    """Read, check and normalise a file.

    The reference is ONNX Runtime without optimisations on the original file where it is installed,
    else the bundled runtime on the original graph.

    Raises:
        ModelError: not a model, damaged, of an unknown opset, or reaching outside its folder.

    """
    path = Path(source)
    try:
        model = read_checked(path, follow_links=options.follow_links)
        if options.follow_links:
            relocate(model)
        map_external(model)
        written = opset(model)
        model = normalise(model, source)
    except DAMAGE as error:
        # A damaged file that still parses fails wherever its first wrong value is used.
        raise ModelError(
            f"{path}: not an ONNX model, or damaged ({reason(error)}); copy it again"
        ) from error
    linked = options.follow_links
    reference = LazyReference(lambda: _original(path) if linked else path)
    return Imported(model, "onnx", path, reference, written)


def read_checked(path: Path, *, follow_links: bool = False) -> ir.Model:
    """The file as it is, its names and constants checked.

    Raises:
        ModelError: not a model, damaged, or reaching outside its folder.

    """
    model = read(path)
    check_texts(path, model)
    check_tensors(path, model, follow_links=follow_links)
    return model


def read(path: Path) -> ir.Model:
    """Parse a file; external weights stay on disk.

    Raises:
        ModelError: the content is no ONNX model, or damaged.

    """
    from google.protobuf.message import DecodeError

    try:
        # Only with a folder in its path does onnx_ir check where external data lies.
        with quiet():
            model = ir.load(path.absolute(), format="protobuf")
    except (DecodeError, ir.serde.SerdeError) as error:
        raise ModelError(
            f"{path}: not an ONNX model, or damaged ({reason(error)}); copy it again"
        ) from error
    check_graph(path, model)
    return model


def check_graph(path: Path, model: ir.Model) -> None:
    """Bytes of other things parse as an empty message; calls may never end."""
    if not model.opset_imports or not (len(model.graph) or model.graph.outputs):
        raise ModelError(f"{path}: not an ONNX model: it holds no graph")
    try:
        check_functions(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def check_texts(path: Path, model: ir.Model) -> None:
    """Damage shows as names that no exporter writes; they would also break messages and logs."""
    for holder in bodies(model):
        for node in holder.all_nodes():
            values = [v.name for v in (*node.inputs, *node.outputs) if v is not None]
            for text in (node.op_type, node.domain, node.name, *values):
                if text and not (isinstance(text, str) and text.isprintable()):
                    raise ModelError(f"{path}: damaged: {text!r} is no name; copy it again")


def check_tensors(path: Path, model: ir.Model, *, follow_links: bool = False) -> None:
    """Every constant must have all its bytes, and external ones inside the model's folder.

    With `follow_links` a plain file name beside the model may be a link to anywhere, as in the
    cache of Hugging Face; the constant then points to where the data lies.

    Raises:
        ModelError: naming the constant.

    """
    folder = path.absolute().parent.resolve()
    for name, tensor in constants(model):
        if tensor.dtype == ir.DataType.UNDEFINED:
            raise ModelError(f"{path}: constant {name!r} has no type; the file is damaged")
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(path, folder, name, tensor, follow_links)
        elif isinstance(tensor, ir.TensorProtoTensor):
            _check_inline(path, name, tensor)


def constants(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """All initialisers and tensor attributes, at every level."""
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
    for holder in bodies(model):
        for node in holder.all_nodes():
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield f"{node.name or node.op_type}.{attribute.name}", attribute.as_tensor()


def _check_external(
    path: Path, folder: Path, name: str, tensor: ir.ExternalTensor, follow_links: bool
) -> None:
    location = str(tensor.location)
    data = (folder / location).resolve()
    if not data.is_relative_to(folder) and _is_link_beside(folder, location):
        if not follow_links:
            raise ModelError(
                f"{path}: its data file {location!r} is a link to {data}, outside the model's "
                "folder; add --follow-links if you trust it, as in the cache of Hugging Face"
            )
    elif Path(location).is_absolute() or not data.is_relative_to(folder):
        raise ModelError(
            f"{path}: constant {name!r} lies at {location!r}, outside the model's folder; "
            "copy the data file there"
        )
    if not data.is_file():
        raise ModelError(f"{path}: its data file {location!r} is missing; put it beside the model")
    if data.stat().st_nlink > 1:
        raise ModelError(f"{path}: its data file {location!r} has hard links; make a plain copy")
    start, size = tensor.offset or 0, tensor.nbytes
    if start < 0 or tensor.length not in (None, 0, size):
        raise ModelError(f"{path}: constant {name!r} has a wrong place in {location!r}")
    if start + size > data.stat().st_size:
        raise ModelError(
            f"{path}: its data file {location!r} ends before constant {name!r}; copy it again"
        )


def _is_link_beside(folder: Path, location: str) -> bool:
    return Path(location).name == location and (folder / location).is_symlink()


def _check_inline(path: Path, name: str, tensor: ir.TensorProtoTensor) -> None:
    proto = tensor.raw
    if tensor.size and not any(field.name in DATA for field, _ in proto.ListFields()):
        raise ModelError(f"{path}: constant {name!r} has no data; the file is damaged")
    if proto.HasField("raw_data") and len(proto.raw_data) != tensor.nbytes:
        raise ModelError(
            f"{path}: constant {name!r} has {len(proto.raw_data)} bytes, its shape needs "
            f"{tensor.nbytes}; the file is damaged"
        )


def _original(path: Path) -> ir.Model:
    """The file as it is; engines have rules of their own for links, so they get a copy."""
    model = read_checked(path, follow_links=True)
    relocate(model)
    return model


class LazyReference:
    """Loads the original only when somebody compares with it."""

    def __init__(self, original: Callable[[], Path | ir.Model]) -> None:
        self._original = original
        self._run: Any = None

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        """Outputs by name."""
        if self._run is None:
            self._run = _open(self._original())
        outputs: Outputs = self._run(feeds)
        return outputs


def _open(original: Path | ir.Model) -> Any:
    """How the file's own engine runs it: ONNX Runtime if it is here and reads it, else ours."""
    if not available_engines().get("onnxruntime"):
        return Session(original).run
    try:
        return open_engine("onnxruntime", original, optimize=False, lean=True).run
    except ModelError:
        # A file that is newer than ONNX Runtime (IR version, opset) is still one of ours.
        return Session(original).run

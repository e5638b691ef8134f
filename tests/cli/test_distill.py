"""`infertool distill` on bundled models: a student of its own, and one made of the teacher."""

from __future__ import annotations

import json

import numpy as np
import pytest

from infer_tool.engines import open_engine

pytest.importorskip("torch")


def test_a_student_made_of_the_teacher(cli, samples, tmp_path) -> None:
    out = tmp_path / "student.onnx"
    result = cli(
        "distill", samples / "digits_mlp.onnx", "--shrink", 0.5, "--data", samples / "digits.npz",
        "-o", out, "--epochs", 8, "--batch-size", 32, "--runs", 0, "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    report = json.loads(result.out)
    (shrink,) = (s for s in report["stages"] if s["name"] == "shrink")
    assert shrink["macs"][1] < 0.4 * shrink["macs"][0]
    assert report["accuracy"]["candidate"] > 0.9
    assert out.stat().st_size < 0.45 * (samples / "digits_mlp.onnx").stat().st_size


def test_a_student_without_labels_agrees_with_its_teacher(cli, samples, tmp_path) -> None:
    """The student's own weights are noise at first; only the teacher tells it anything."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(samples / "digits_mlp.onnx")
    r = np.random.default_rng(3)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2:
            values = r.normal(size=tensor.dims) / np.sqrt(tensor.dims[-1])
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    student, data, out = tmp_path / "s.onnx", tmp_path / "images.npz", tmp_path / "out.onnx"
    onnx.save(model, student)
    with np.load(samples / "digits.npz") as arrays:
        images, labels = arrays["image"], arrays["labels"]
        np.savez(data, image=images)
    result = cli(
        "distill", samples / "digits_cnn.onnx", "--student", student, "--data", data, "-o", out,
        "--epochs", 12, "--batch-size", 16, "--metric", "agreement", "--runs", 0, "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert json.loads(result.out)["accuracy"]["candidate"] > 0.85
    before, after = (
        np.mean(open_engine("onnxruntime", p).run({"image": images})["logits"].argmax(1) == labels)
        for p in (student, out)
    )
    assert before < 0.3
    assert after > 0.85


def test_a_student_learns_from_inside_its_teacher(cli, samples, tmp_path) -> None:
    """Without labels; the file holds nothing of what only training needed."""
    import onnx

    data, out = tmp_path / "images.npz", tmp_path / "student.onnx"
    with np.load(samples / "digits.npz") as arrays:
        np.savez(data, image=arrays["image"][:300])
    result = cli(
        "distill", samples / "digits_cnn.onnx", "--shrink", 0.5, "--data", data, "-o", out,
        "--epochs", 1, "--batch-size", 32, "--runs", 0, "--json", "--match", "auto",
        "--feature-weight", 1, "--attention-weight", 1, "--relation-weight", 1,
    )  # fmt: skip
    assert result.status == 0, result.err
    stages = {s["name"]: s["options"] for s in json.loads(result.out)["stages"]}
    assert len(stages["hints"]["pairs"]) >= 2
    assert stages["hints"]["attention"] == 1
    assert not [t.name for t in onnx.load(out).graph.initializer if "projection" in t.name]
    assert not [n.name for n in onnx.load(out).graph.node if "projected" in n.name]


def test_a_student_of_fewer_and_narrower_blocks(cli, samples, tmp_path) -> None:
    out = tmp_path / "student.onnx"
    result = cli(
        "distill", samples / "digits_cnn.onnx", "--drop-blocks", 0.5, "--shrink", 0.5,
        "--data", samples / "digits.npz", "-o", out, "--epochs", 1, "--runs", 0, "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    stages = {s["name"]: s for s in json.loads(result.out)["stages"]}
    (gone,) = stages["drop-blocks"]["options"]["dropped"]
    assert gone in stages["drop-blocks"]["options"]["losses"]
    for name in ("drop-blocks", "shrink"):
        assert stages[name]["macs"][1] < 0.8 * stages[name]["macs"][0]
    assert stages["shrink"]["macs"][0] == stages["drop-blocks"]["macs"][1]
    assert stages["train"]["options"]["losses"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shrink", 0.5, "--hint", "nobody=logits"], "has no tensor 'nobody'"),
        (["--shrink", 0.5, "--hint", "nobody"], "expected STUDENT=TEACHER"),
        (["--shrink", 0.5, "--relation-weight", 1], "add --match auto or --hint"),
        (["--drop-blocks", 0.5, "--student", "s.onnx"], "give one of --student"),
        ([], "give one of --student"),
        (["--shrink", 0.5, "--student", "digits_mlp.onnx"], "give one of --student"),
        (["--shrink", 1], "give one of --student"),
        (["--shrink", 0.99, "--multiple", 64], "lower --multiple"),
        (["--student", "{samples}/digits_gru.onnx"], "its inputs are rows float32"),
    ],
)
def test_what_is_refused(cli, samples, tmp_path, more, words) -> None:
    words_given = [str(m).format(samples=samples) for m in more]
    result = cli(
        "distill", samples / "digits_cnn.onnx", "--data", samples / "digits.npz",
        "-o", tmp_path / "o.onnx", *words_given,
    )  # fmt: skip
    assert result.status == 2, result.err
    assert words in result.err
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_do_not_fit(cli, samples, tmp_path, tiny) -> None:
    """The same input, other classes."""
    import onnx

    model = onnx.load(tiny)
    for name in ("w2", "b2"):
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        array = onnx.numpy_helper.to_array(tensor)[..., :2]
        tensor.CopyFrom(onnx.numpy_helper.from_array(array.copy(), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    student, data = tmp_path / "student.onnx", tmp_path / "data.npz"
    onnx.save(model, student)
    np.savez(data, x=np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32))
    result = cli("distill", tiny, "--student", student, "--data", data, "-o", tmp_path / "o.onnx",
                 "--batch-size", 4)  # fmt: skip
    assert result.status == 2, result.err
    assert "of the student has shape" in result.err
    assert not (tmp_path / "o.onnx").exists()

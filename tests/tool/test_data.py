"""Samples from files, folders, images and functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infer_runtime import TensorInfo
from infer_runtime.errors import UsageError
from infer_tool.data import open_dataset, synthetic_dataset

X = TensorInfo("x", ("N", 4), np.dtype(np.float32))
IMAGE = TensorInfo("image", ("N", 3, 8, 8), np.dtype(np.float32))
ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)


def samples_for_a_test():
    """Feeds with labels, as a user would write them."""
    for number in range(3):
        yield {"x": ROWS[number]}, number


def feeds_without_labels():
    """Feeds alone, of the wrong name."""
    yield {"z": ROWS[0]}


def _collect(dataset, size: int = 4):
    feeds, labels = zip(*dataset.batches(size), strict=True)
    joined = np.concatenate([next(iter(f.values())) for f in feeds])
    return joined, None if labels[0] is None else np.concatenate(labels)


def test_npz(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=ROWS, labels=np.arange(10))
    dataset = open_dataset(str(tmp_path / "d.npz"), [X])
    rows, labels = _collect(dataset)
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(labels, np.arange(10))
    assert [len(labels) for _, labels in dataset.batches(4)] == [4, 4, 2]


def test_split_is_disjoint_complete_and_seeded(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=ROWS, labels=np.arange(10))
    dataset = open_dataset(str(tmp_path / "d.npz"), [X])
    first, second = dataset.split(4, seed=1)
    assert (len(first), len(second)) == (4, 6)
    assert sorted([*first.labels, *second.labels]) == list(range(10))
    again, _ = dataset.split(4, seed=1)
    np.testing.assert_array_equal(first.labels, again.labels)
    other, _ = dataset.split(4, seed=2)
    assert list(first.labels) != list(other.labels)


def test_float64_is_cast_and_integers_are_not(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=ROWS.astype(np.float64))
    assert _collect(open_dataset(str(tmp_path / "d.npz"), [X]))[0].dtype == np.float32
    np.savez(tmp_path / "u.npz", x=ROWS.astype(np.uint8))
    with pytest.raises(UsageError, match="uint8, the model wants float32"):
        open_dataset(str(tmp_path / "u.npz"), [X])


def test_pickled_arrays_are_not_read(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UsageError, match=r"d\.npz: not a readable"):
        open_dataset(str(tmp_path / "d.npz"), [X])


def test_folder_of_arrays(tmp_path) -> None:
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", ROWS[number])
    rows, labels = _collect(open_dataset(str(tmp_path), [X]))
    np.testing.assert_array_equal(rows, ROWS[:3])
    assert labels is None


def test_function(tmp_path) -> None:
    dataset = open_dataset(f"{__file__}:samples_for_a_test", [X])
    rows, labels = _collect(dataset)
    np.testing.assert_array_equal(rows, ROWS[:3])
    np.testing.assert_array_equal(labels, [0, 1, 2])
    with pytest.raises(UsageError, match="holds z; the model's inputs are x"):
        open_dataset(f"{__file__}:feeds_without_labels", [X])


def _image(path: Path, size: tuple[int, int], value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def test_images_in_class_folders(tmp_path) -> None:
    _image(tmp_path / "cat" / "a.png", (16, 12), 127)
    _image(tmp_path / "dog" / "b.png", (12, 16), 255)
    steps = "resize=10 crop=8 mean=127 std=128 layout=nchw"
    rows, labels = _collect(open_dataset(str(tmp_path), [IMAGE], preprocess=steps))
    assert rows.shape == (2, 3, 8, 8)
    np.testing.assert_allclose(rows[0], 0, atol=1e-6)
    np.testing.assert_allclose(rows[1], 1, atol=1e-6)
    np.testing.assert_array_equal(labels, [0, 1])


def test_images_in_a_table(tmp_path) -> None:
    _image(tmp_path / "a.png", (8, 8), 10)
    _image(tmp_path / "b.png", (8, 8), 20)
    (tmp_path / "labels.csv").write_text("file,label\nb.png,7\na.png,3\n")
    rows, labels = _collect(open_dataset(str(tmp_path), [IMAGE], preprocess="mean=1,2,3"))
    np.testing.assert_array_equal(labels, [7, 3])
    np.testing.assert_array_equal(rows[0, :, 0, 0], [19, 18, 17])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,class\na.png,1\n", "header file,label"),
        ("file,label\nmissing.png,1\n", "missing.png"),
        ("file,label\na.png,cat\n", "no class number"),
    ],
)
def test_bad_tables(tmp_path, table, message) -> None:
    _image(tmp_path / "a.png", (8, 8), 10)
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UsageError, match=message):
        open_dataset(str(tmp_path), [IMAGE])


def test_image_that_is_none(tmp_path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"a\.png: not a readable image"):
        _collect(open_dataset(str(tmp_path), [IMAGE]))


@pytest.mark.parametrize(
    "steps", ["resize", "zoom=3", "mean=a", "layout=chwn", "std=0", "mean=1,2"]
)
def test_bad_steps(tmp_path, steps) -> None:
    _image(tmp_path / "a.png", (8, 8), 10)
    with pytest.raises(UsageError, match="--preprocess"):
        open_dataset(str(tmp_path), [IMAGE], preprocess=steps)


def test_synthetic_is_seeded() -> None:
    first, second = (_collect(synthetic_dataset([X], 5, 1))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5, 4)

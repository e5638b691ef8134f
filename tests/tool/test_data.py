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


def test_integers_of_another_width(tmp_path) -> None:
    ids = TensorInfo("ids", ("N", 2), np.dtype(np.int32))
    np.savez(tmp_path / "d.npz", ids=np.array([[1, 2], [3, 4]], np.int64))
    assert _collect(open_dataset(str(tmp_path / "d.npz"), [ids]))[0].dtype == np.int32
    np.savez(tmp_path / "d.npz", ids=np.array([[1, 2], [3, 1 << 40]]))
    with pytest.raises(UsageError, match="holds 1 to 1099511627776, which int32 cannot hold"):
        open_dataset(str(tmp_path / "d.npz"), [ids])


def test_what_a_narrower_float_cannot_hold(tmp_path) -> None:
    half = TensorInfo("x", ("N", 1), np.dtype(np.float16))
    np.savez(tmp_path / "d.npz", x=np.array([[1.0], [1e6]], np.float32))
    with pytest.raises(UsageError, match="'x' holds NaN or infinity"):
        open_dataset(str(tmp_path / "d.npz"), [half])


def test_nan_in_the_last_sample(tmp_path) -> None:
    rows = ROWS.copy()
    rows[-1, -1] = np.nan
    np.savez(tmp_path / "d.npz", x=rows)
    with pytest.raises(UsageError, match=r"d\.npz: 'x' holds NaN"):
        open_dataset(str(tmp_path / "d.npz"), [X])


def test_arrays_of_different_lengths(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=ROWS, y=ROWS[:3])
    with pytest.raises(UsageError, match=r"different numbers of samples: \{'x': 10, 'y': 3\}"):
        open_dataset(str(tmp_path / "d.npz"), [X, TensorInfo("y", ("N", 4), X.dtype)])


def test_damaged_archives(tmp_path) -> None:
    """A flipped byte is found, or is one of the few that a zip archive does not use."""
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.savez_compressed(tmp_path / "d.npz", x=values)
    messages = []
    whole = (tmp_path / "d.npz").read_bytes()
    for place in range(30, len(whole) - 1, 61):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "d.npz").write_bytes(damaged)
        try:
            rows, _ = _collect(open_dataset(str(tmp_path / "d.npz"), [X]))
            np.testing.assert_array_equal(rows, values)
        except UsageError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all("d.npz: " in message for message in messages)


def test_array_that_claims_more_than_memory_holds(tmp_path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000, 4), }"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "d.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    )
    with pytest.raises(UsageError, match=r"d\.npy: not a readable"):
        open_dataset(str(tmp_path / "d.npy"), [X])


def test_labels_of_a_folder(tmp_path) -> None:
    for part in ("table", "inside"):
        (tmp_path / part).mkdir()
    for number in range(3):
        np.save(tmp_path / "table" / f"{number}.npy", ROWS[number])
        np.savez(tmp_path / "inside" / f"{number}.npz", x=ROWS[number], labels=number + 5)
    np.save(tmp_path / "table" / "labels.npy", np.array([5, 6, 7]))
    for part in ("table", "inside"):
        rows, labels = _collect(open_dataset(str(tmp_path / part), [X]))
        np.testing.assert_array_equal(rows, ROWS[:3])
        np.testing.assert_array_equal(labels, [5, 6, 7])
    np.save(tmp_path / "table" / "labels.npy", np.array([5, 6]))
    with pytest.raises(UsageError, match=r"labels\.npy: labels have shape \[2\].* 3 samples"):
        open_dataset(str(tmp_path / "table"), [X])
    np.savez(tmp_path / "inside" / "1.npz", x=ROWS[1])
    with pytest.raises(UsageError, match="2 of 3 files have labels"):
        open_dataset(str(tmp_path / "inside"), [X])


def test_a_later_file_of_a_folder_that_does_not_fit(tmp_path) -> None:
    np.save(tmp_path / "0.npy", ROWS[0])
    np.save(tmp_path / "1.npy", ROWS[1, :3])
    with pytest.raises(UsageError, match=r"1\.npy: a sample of 'x' has shape \[3\]"):
        _collect(open_dataset(str(tmp_path), [X]))


USER_CODE = """
import numpy as np
print("noise while importing")
alive = 0

class Counted(np.ndarray):
    def __del__(self):
        global alive
        alive -= 1

def stream():
    global alive
    for number in range(20):
        print("noise while yielding")
        assert alive <= 8, alive
        alive += 1
        yield {"x": np.full(4, number, np.float32).view(Counted)}, number

def fails():
    yield {"x": np.zeros(4, np.float32)}
    raise LookupError("the disk is away")

def half_labelled():
    yield {"x": np.zeros(4, np.float32)}, 1
    yield {"x": np.zeros(4, np.float32)}

def empty():
    return []

def nothing():
    return None
"""


def test_a_function_is_streamed(tmp_path, capfd) -> None:
    """The function itself watches how many of its samples are alive."""
    (tmp_path / "user.py").write_text(USER_CODE)
    dataset = open_dataset(f"{tmp_path / 'user.py'}:stream", [X])
    for _ in range(2):
        rows, labels = _collect(dataset)
        np.testing.assert_array_equal(rows[:, 0], np.arange(20))
        np.testing.assert_array_equal(labels, np.arange(20))
    first, second = dataset.split(6, seed=0)
    np.testing.assert_array_equal(_collect(first)[0][:, 0], first.labels)
    np.testing.assert_array_equal(_collect(second)[0][:, 0], second.labels)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "fails: failed: LookupError: the disk is away"),
        ("half_labelled", "some samples with and some without"),
        ("empty", "yields 0 samples"),
        ("nothing", "TypeError: 'NoneType' object is not iterable"),
        ("missing", "has no function 'missing'"),
    ],
)
def test_functions_that_do_not_work(tmp_path, name, message) -> None:
    (tmp_path / "user.py").write_text(USER_CODE)
    with pytest.raises(UsageError, match=message):
        open_dataset(f"{tmp_path / 'user.py'}:{name}", [X])


def test_a_module_of_the_working_folder(tmp_path, monkeypatch) -> None:
    (tmp_path / "module_of_this_folder.py").write_text(USER_CODE)
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset("module_of_this_folder:stream", [X])) == 20


def test_code_that_fails_to_import(tmp_path) -> None:
    (tmp_path / "user.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=r"cannot import .*ZeroDivisionError"):
        open_dataset(f"{tmp_path / 'user.py'}:f", [X])

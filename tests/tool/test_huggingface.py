"""Hugging Face folders of small random models, against transformers itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from infer_runtime import Session
from infer_runtime.errors import MissingExtraError, ModelError, UsageError
from infer_tool.importers import ImportOptions, import_source
from infer_tool.steps import proof_feeds

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import torch  # noqa: E402

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
BERT = {**SMALL, "vocab_size": 50, "max_position_embeddings": 40, "attn_implementation": "eager"}


def _saved(folder: Path, model, dtype=torch.float32):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.to(dtype).save_pretrained(folder)
    return model.float().eval()


def _check(folder: Path, model, output: str, task: str = "", **sizes: tuple) -> str:
    """Two shapes, in our runtime, against the model as it was built here."""
    imported = import_source(str(folder), ImportOptions(task=task))
    session = Session(imported.model)
    assert [o.name for o in session.outputs] == [output]
    for number in (0, 1):
        shapes = [f"{i.name}:{'x'.join(map(str, sizes[i.name][number]))}" for i in session.inputs]
        (feeds,) = proof_feeds(session.inputs, number, shapes, (1,))
        if "attention_mask" in feeds:
            feeds["attention_mask"] = np.tril(np.ones_like(feeds["attention_mask"]), 3)
        with torch.no_grad():
            wanted = model(**{k: torch.from_numpy(v) for k, v in feeds.items()})[output].numpy()
        for run in (session.run, imported.reference):
            got = run(feeds)[output]
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    return imported.route


WORDS = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ((1, 4), (3, 9)))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("classifier")
    config = transformers.BertConfig(**BERT, num_labels=3)
    return folder, _saved(folder, transformers.BertForSequenceClassification(config))


def test_a_classifier_by_its_configuration(classifier) -> None:
    assert _check(*classifier, "logits", **WORDS) == "transformers, classification"


@pytest.mark.usefixtures("here")
def test_the_features_of_a_classifier(classifier) -> None:
    folder, model = classifier
    _check(folder, model.bert, "last_hidden_state", "features", **WORDS)


@pytest.mark.usefixtures("here")
def test_a_causal_language_model_in_bfloat16(tmp_path) -> None:
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=40, attn_implementation="eager"
    )
    model = _saved(tmp_path, transformers.GPT2LMHeadModel(config), torch.bfloat16)
    route = _check(tmp_path, model, "logits", **WORDS)
    assert route == "transformers, causal-lm, bfloat16 weights widened to float32"


@pytest.mark.usefixtures("here")
def test_pictures(tmp_path) -> None:
    config = transformers.ViTConfig(
        **SMALL, image_size=16, patch_size=8, attn_implementation="eager"
    )
    model = _saved(tmp_path, transformers.ViTModel(config))
    _check(tmp_path, model, "last_hidden_state", pixel_values=((1, 3, 16, 16), (2, 3, 16, 16)))


@pytest.mark.usefixtures("here")
def test_a_task_that_the_weights_are_not_for(classifier) -> None:
    """transformers would give the new head random weights and go on."""
    with pytest.raises(ModelError, match=r"holds no weights for .*--task"):
        import_source(str(classifier[0]), ImportOptions(task="causal-lm"))


@pytest.mark.usefixtures("here")
def test_wrong_options(classifier) -> None:
    folder = str(classifier[0])
    with pytest.raises(UsageError, match=r"--task 'translate': expected one of features, "):
        import_source(folder, ImportOptions(task="translate"))
    with pytest.raises(UsageError, match=r"--input words: .* takes input_ids"):
        import_source(folder, ImportOptions(input=("words:1x4:int64",)))


@pytest.mark.usefixtures("here")
def test_code_of_its_own_is_not_run(classifier, tmp_path) -> None:
    for file in classifier[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="transformers cannot build it"):
        import_source(str(tmp_path), ImportOptions(task="features"))
    assert not (tmp_path / "ran").exists()


def test_without_transformers_the_extra_is_named(classifier, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'infertool\[huggingface\]'"):
        import_source(str(classifier[0]), ImportOptions())

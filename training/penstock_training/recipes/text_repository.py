"""Models that take text in front of a registered text classifier, which takes tokens.

    python -m penstock_training.recipes.text_repository training/configs/topics.toml lake/serving
    penstock serve lake/serving models:/topics@champion

`topics_tokenizer` is a Python model with the recipe's tokenizer; `topics_text` is an ensemble: TEXT (BYTES) → SCORES.
The classifier itself stays a plain ONNX model of the registry, so that its versions are compared, rolled out and rolled
back, and everyone who sends text follows.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from penstock_training.recipes.text_classifier import IDS, MASK, TextClassifier

TOKENIZER_MODEL: Final = Path(__file__).parent.parent / "serving" / "tokenizer_model.py"
MAX_BATCH: Final = 64

_ENSEMBLE: Final = """\
# Text in, probabilities out. {model} is the classifier, of whichever version is the default one.
platform: ensemble
max_batch_size: {batch}
input: [{{name: TEXT, data_type: TYPE_STRING, dims: [1]}}]
output: [{{name: SCORES, data_type: TYPE_FP32, dims: [{classes}], label_filename: labels.txt}}]
ensemble_scheduling:
  step:
    - model_name: {model}_tokenizer
      model_version: -1
      input_map: {{TEXT: TEXT}}
      output_map: {{{ids}: ids, {mask}: mask}}
    - model_name: {model}
      model_version: -1
      input_map: {{{ids}: ids, {mask}: mask}}
      output_map: {{SCORES: SCORES}}
"""


def write_text_repository(target: Path, recipe: TextClassifier, model: str) -> None:
    """The two models, for a classifier that is served by the name `model`."""
    tokenizer = target / f"{model}_tokenizer"
    (tokenizer / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TOKENIZER_MODEL, tokenizer / "1" / "model.py")
    recipe.tokenizer().save(str(tokenizer / "1" / "tokenizer.json"))
    (tokenizer / "config.yaml").write_text("backend: python\n")
    text = target / f"{model}_text"
    (text / "1").mkdir(parents=True, exist_ok=True)
    (text / "labels.txt").write_text("".join(f"{name}\n" for name in recipe.class_names))
    classes = len(recipe.class_names)
    (text / "config.yaml").write_text(
        _ENSEMBLE.format(model=model, batch=MAX_BATCH, classes=classes, ids=IDS, mask=MASK)
    )

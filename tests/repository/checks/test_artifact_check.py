"""What `penstock check` says of signed and encrypted models, and of pickles."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from penstock.artifacts_config import ArtifactsSettings
from penstock.config import Settings
from penstock.repository.checks.artifact_check import copies
from penstock.repository.checks.model_check import CheckedModel, check_model
from penstock.secrets_config import SecretRef
from penstock.trust.at_rest import encrypt_version
from trusted_models import Workshop, write


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def settings_of(workshop: Workshop, *, signed: bool = True) -> Settings:
    kek = write(workshop.folder / "kek", base64.b64encode(workshop.kek._key))
    kek.chmod(0o600)
    artifacts = ArtifactsSettings(
        trust=(workshop.rule(),) if signed else (),
        state_file=workshop.folder / "releases.json",
        key_encryption_key=SecretRef("file", str(kek)),
    )
    return Settings(artifacts=artifacts)


def refusals(model: CheckedModel) -> list[str]:
    return [f.text for f in model.findings if "is refused" in f.text]


def test_what_is_signed_and_encrypted_has_a_copy_to_load(workshop: Workshop) -> None:
    workshop.sign()
    encrypt_version(workshop.model, 1, workshop.ring)
    model = check_model(workshop.model)
    assert model.backend == ""
    with copies(settings_of(workshop), [model]) as found:
        folder = found["m", 1]
        # in the copy it is seen what it is
        assert model.backend == "python"
        assert (folder / "1" / "model.py").read_bytes().startswith(b"# the model")
    assert not folder.exists()
    assert refusals(model) == []
    # it was looked at, not served
    assert not (workshop.folder / "releases.json").exists()


def test_what_is_not_signed(workshop: Workshop) -> None:
    model = check_model(workshop.model)
    with copies(settings_of(workshop), [model]) as found:
        assert found == {}
    (text,) = refusals(model)
    assert text.startswith("version 1 is refused: SignatureMissing: ")
    assert model.failed


def test_pickles_without_any_policy(workshop: Workshop) -> None:
    write(workshop.model / "1" / "weights.pkl", b"")
    model = check_model(workshop.model)
    with copies(settings_of(workshop, signed=False), [model]) as found:
        assert found == {}
    assert ["PickleRefused" in text for text in refusals(model)] == [True]


def test_a_key_that_is_not_there_is_named(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """Who checks has no server whose log would say more."""
    encrypt_version(workshop.model, 1, workshop.ring)
    settings = settings_of(workshop, signed=False)
    (workshop.folder / "kek").unlink()
    model = check_model(workshop.model)
    with copies(settings, [model]):
        pass
    (text,) = refusals(model)
    assert "no key-encryption key can be read: " in text and str(workshop.folder / "kek") in text
    assert caplog.messages == []

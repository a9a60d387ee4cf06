"""What the metrics tell of secrets: their places, never their values."""

from __future__ import annotations

from pathlib import Path

from penstock.secrets.source import SecretSource
from penstock.secrets_config import SecretRef
from penstock.telemetry.metrics import MetricsPage
from penstock.telemetry.secret_metrics import secret_metrics


def test_a_place_that_is_gone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("planted-hunter2")
    path.chmod(0o600)
    source = SecretSource()
    page = MetricsPage(lambda: (), others=[secret_metrics(source.health)])

    def shown(accept: str = "") -> str:
        text = page.render(accept)[0].decode()
        assert "planted" not in text
        return text

    assert "penstock_secret" not in shown()
    ref = SecretRef.parse(f"file:{path}")
    source.get(ref)
    labels = f'{{secret="{ref}"}}'
    assert f"penstock_secret_failing{labels} 0.0" in shown()
    assert f"penstock_secret_failures_total{labels} 0.0" in shown()
    path.unlink()
    assert source.get(ref).text() == "planted-hunter2"
    for accept in ("", "application/openmetrics-text"):
        assert f"penstock_secret_failing{labels} 1.0" in shown(accept)
        assert f"penstock_secret_failures_total{labels} 1.0" in shown(accept)
        assert f"penstock_secret_age_seconds{labels} " in shown(accept)
    source.close()

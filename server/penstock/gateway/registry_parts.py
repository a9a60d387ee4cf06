"""What a gateway has of a registry that models come from, beside folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from penstock.audit.log import AuditLog
from penstock.config import Settings
from penstock.gateway.auditing import Auditing
from penstock.gateway.registry_api import RegistryApi
from penstock.gateway.registry_audit import recorded_moves, recorded_notes
from penstock.gateway.registry_models import RegistryModels
from penstock.gateway.rollout_aliases import AliasFollower
from penstock.gateway.rollouts import Rollouts
from penstock.registry.link import RegistryLink
from penstock.registry.messages import SOCKET
from penstock.registry.view import read_state
from penstock.repository.repository import ModelRepository
from penstock.secrets.source import SecretSource
from penstock.telemetry.registry_metrics import registry_metrics


class RegistryParts:
    """One a gateway, also of one without a registry: `link` and `models` are None there."""

    def __init__(
        self,
        settings: Settings,
        repository: ModelRepository,
        secrets: SecretSource,
        audit_log: AuditLog | None,
        auditing: Auditing | None,
    ) -> None:
        self._repository = repository
        self.link: Final = _link(settings, repository)
        self.models: Final = (
            None if self.link is None else RegistryModels(settings, self.link, repository)
        )
        self.api: Final = _api(settings, self.link, secrets, auditing)
        if audit_log is not None and self.link is not None and self.models is not None:
            self.link.on_note = recorded_notes(audit_log)
            self.models.on_moved = recorded_moves(audit_log)

    def metrics(self) -> list[Callable[[], Iterator[Metric]]]:
        """For the metrics page."""
        link = self.link
        if link is None:
            return []
        versions = self._repository.versions
        return [
            registry_metrics(
                lambda: link.state, lambda: link.connected, lambda name: len(versions(name))
            )
        ]

    def follow(self, rollouts: Rollouts, aliases: AliasFollower) -> None:
        """Aliases that move are heard of, and the registry hears of the shares that roll-outs give."""
        if self.link is None:
            return
        self.link.on_alias = aliases.moved
        self.link.share_of = rollouts.index.share_of
        rollouts.effects.on_share = self.link.statuses_changed


def _link(settings: Settings, repository: ModelRepository) -> RegistryLink | None:
    view, run_dir = repository.registry_view, settings.run_dir
    if view is None or run_dir is None:
        return None
    timeout_s = settings.registry.timeout_secs
    return RegistryLink(run_dir / SOCKET, read_state(view), timeout_s=timeout_s)


def _api(
    settings: Settings,
    link: RegistryLink | None,
    secrets: SecretSource,
    auditing: Auditing | None,
) -> RegistryApi:
    reference = settings.registry.webhook_secret
    return RegistryApi(
        link,
        None if reference is None else lambda: secrets.get(reference),
        lambda error, count: (
            None if auditing is None else auditing.refused(None, error, "", "", count)
        ),
    )

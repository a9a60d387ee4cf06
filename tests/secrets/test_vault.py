"""Vault, by `hvac` over HTTP against a server that speaks its documented API."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.certs.folder import CertsFolder
from penstock.certs.inspection import utc_now
from penstock.certs.request import make_request
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.secrets.source import SecretSource
from penstock.secrets.vault import VaultStore
from penstock.secrets_config import SecretRef, SecretsSettings
from vault_server import Token, VaultServer, serve_vault


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    with serve_vault() as server:
        server.secrets["secret/penstock/redis"] = {"password": "hunter2", "number": 7, "none": ""}
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Stores:
    """Makes stores, and closes them."""

    def __init__(self, vault: VaultServer, clock: Clock, folder: Path) -> None:
        self._vault, self._clock, self._folder = vault, clock, folder
        self._made: list[VaultStore] = []

    def file(self, name: str, content: str) -> str:
        path = self._folder / name
        path.write_text(content)
        path.chmod(0o600)
        return f"file:{path}"

    def settings(self, **values: str) -> SecretsSettings:
        return SecretsSettings.model_validate({"vault_address": self._vault.address, **values})

    def by_role(self, **values: str) -> VaultStore:
        return self.make(
            vault_auth="approle",
            vault_role_id=self.file("role", "the-role\n"),
            vault_secret_id=self.file("secret-id", "the-secret-id\n"),
            **values,
        )

    def make(self, **values: str) -> VaultStore:
        self._made.append(VaultStore(self.settings(**values), self._clock))
        return self._made[-1]

    def close(self) -> None:
        for store in self._made:
            store.close()


@pytest.fixture
def stores(vault: VaultServer, clock: Clock, tmp_path: Path) -> Iterator[Stores]:
    stores = Stores(vault, clock, tmp_path)
    yield stores
    stores.close()


def read(store: VaultStore, text: str = "vault:secret/penstock/redis#password") -> Secret:
    return store.read(SecretRef.parse(text)).secret


def test_kv_2_by_approle(vault: VaultServer, stores: Stores) -> None:
    store = stores.by_role()
    assert read(store) == read(store) == Secret(b"hunter2")
    assert vault.asked == [
        "POST auth/approle/login",
        "GET sys/internal/ui/mounts/secret/penstock/redis",
        "GET secret/data/penstock/redis",
        "GET sys/internal/ui/mounts/secret/penstock/redis",
        "GET secret/data/penstock/redis",
    ]


def test_kv_1_and_a_mount_with_slashes(vault: VaultServer, stores: Stores) -> None:
    vault.mounts["team/old"] = "1"
    vault.secrets["team/old/app"] = {"key": "of version 1"}
    assert read(stores.by_role(), "vault:team/old/app#key") == Secret(b"of version 1")
    assert vault.asked[-1] == "GET team/old/app"


def test_where_mounts_may_not_be_asked_the_first_part_is_one_of_version_2(
    vault: VaultServer, stores: Stores
) -> None:
    vault.mounts_may_be_asked = False
    assert read(stores.by_role()) == Secret(b"hunter2")


def test_the_version_can_be_said(vault: VaultServer, stores: Stores) -> None:
    vault.mounts["old"] = "1"
    vault.secrets["old/app"] = {"key": "x"}
    assert read(stores.by_role(vault_kv_version="1"), "vault:old/app#key") == Secret(b"x")
    assert not any("mounts" in line for line in vault.asked)


def test_by_token_and_namespace(vault: VaultServer, stores: Stores) -> None:
    vault.tokens["s.given"] = Token(ttl_s=0, renewable=False)
    store = stores.make(vault_token=stores.file("token", "s.given\n"), vault_namespace="team-a")
    assert read(store) == Secret(b"hunter2")
    assert set(vault.namespaces) == {"team-a"}


def test_by_service_account(vault: VaultServer, stores: Stores) -> None:
    store = stores.make(
        vault_auth="kubernetes",
        vault_role="penstock",
        vault_service_token=stores.file("jwt", "the-service-account"),
    )
    assert read(store) == Secret(b"hunter2")
    assert vault.asked[0] == "POST auth/kubernetes/login"


def test_a_token_is_renewed_when_two_thirds_are_over(
    vault: VaultServer, stores: Stores, clock: Clock
) -> None:
    vault.login_ttl_s = 60
    store = stores.by_role()
    ref = SecretRef.parse("vault:secret/penstock/redis#password")
    assert store.read(ref).fresh_s == 40, "so that the token does not end between two reads"
    clock.now += 39
    store.read(ref)
    assert "POST auth/token/renew-self" not in vault.asked
    clock.now += 1
    store.read(ref)
    assert vault.asked.count("POST auth/token/renew-self") == 1
    assert vault.logins == 1


def test_a_token_that_can_not_be_renewed_is_replaced(
    vault: VaultServer, stores: Stores, clock: Clock
) -> None:
    vault.login_ttl_s = 60
    store = stores.by_role()
    read(store)
    vault.tokens.clear()
    clock.now += 40
    assert read(store) == Secret(b"hunter2")
    assert vault.logins == 2


def test_a_revoked_token_is_replaced_once(vault: VaultServer, stores: Stores) -> None:
    store = stores.by_role()
    read(store)
    vault.tokens.clear()
    assert read(store) == Secret(b"hunter2")
    assert vault.logins == 2


def test_a_token_whose_file_was_replaced(vault: VaultServer, stores: Stores) -> None:
    vault.tokens["first"] = vault.tokens["second"] = Token(0)
    store = stores.make(vault_token=stores.file("token", "first"))
    read(store)
    del vault.tokens["first"]
    stores.file("token", "second")
    assert read(store) == Secret(b"hunter2")


def test_a_lease_says_when_to_ask_again(vault: VaultServer, stores: Stores) -> None:
    store = stores.by_role()
    ref = SecretRef.parse("vault:secret/penstock/redis#password")
    assert store.read(ref).fresh_s == 300
    vault.lease_s = 30
    assert store.read(ref).fresh_s == 20


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("vault:secret/penstock/redis#other", "no such field, its fields are: none, number, passw"),
        ("vault:secret/penstock/redis#number", "is int, expected text"),
        ("vault:secret/penstock/redis#none", "is empty"),
        ("vault:secret/missing#x", "no such secret, or it was deleted"),
        ("vault:secret/gone#x", "no such secret, or it was deleted"),
        ("vault:transit/keys#x", "the engine at transit/ is transit, not kv"),
    ],
)
def test_what_is_not_there(vault: VaultServer, stores: Stores, text: str, reason: str) -> None:
    vault.deleted.add("secret/gone")
    vault.other_mounts["transit"] = "transit"
    with pytest.raises(ConfigError, match=f"^{text}: .*{reason}") as caught:
        read(stores.by_role(), text)
    assert "hunter2" not in str(caught.value)


def test_wrong_credentials_are_named_and_not_shown(vault: VaultServer, stores: Stores) -> None:
    store = stores.by_role()
    stores.file("secret-id", "planted-wrong")
    with pytest.raises(ConfigError, match="invalid role or secret ID") as caught:
        read(store)
    assert "planted-wrong" not in str(caught.value)


def test_credentials_that_are_not_there(stores: Stores) -> None:
    with pytest.raises(ConfigError, match=r"secrets\.vault_token: file:/nowhere can't be read"):
        read(stores.make(vault_token="file:/nowhere"))
    with pytest.raises(ConfigError, match=r"secrets\.vault_token: env:NOT_SET_AT_ALL: the var"):
        read(stores.make(vault_token="env:NOT_SET_AT_ALL"))


def test_without_an_address() -> None:
    with pytest.raises(ConfigError, match=r"vault:a/b#c: .* set secrets.vault_address"):
        read(VaultStore(SecretsSettings()), "vault:a/b#c")


def test_sealed_and_away(vault: VaultServer, stores: Stores) -> None:
    store = stores.by_role()
    vault.sealed = True
    with pytest.raises(ConfigError, match="Vault refuses: Vault is sealed"):
        read(store)
    away = stores.make(vault_address="http://127.0.0.1:1", vault_token=stores.file("t", "x"))
    with pytest.raises(ConfigError, match=r"Vault at http://127.0.0.1:1 can't be reached"):
        read(away)


def test_vaults_own_certificate_is_checked(tmp_path: Path) -> None:
    certs = CertsFolder(tmp_path / "certs", lambda ref: Secret(b""))
    certs.init("CA", utc_now(), 86_400)
    certs.issue(make_request("server", "127.0.0.1"), utc_now())
    own = certs.files_of("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own / "tls.crt", own / "tls.key")
    token = tmp_path / "token"
    token.write_text("s.given")
    token.chmod(0o600)
    with serve_vault(context) as vault:
        vault.tokens["s.given"] = Token(0)
        vault.secrets["secret/app"] = {"key": "hunter2"}
        for ca, taken in ((certs.bundle, True), (None, False)):
            settings = SecretsSettings(
                vault_address=vault.address,
                vault_ca_file=ca,
                vault_token=SecretRef.parse(f"file:{token}"),
            )
            store = VaultStore(settings)
            if taken:
                assert read(store, "vault:secret/app#key") == Secret(b"hunter2")
            else:
                with pytest.raises(ConfigError, match=r"certificate at https://.* is not trusted"):
                    read(store, "vault:secret/app#key")
            store.close()


def test_without_the_package_the_extra_is_named(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[vault\]'"):
        read(stores.by_role())


def test_a_source_goes_on_while_vault_is_sealed_and_hears_of_the_next_value(
    vault: VaultServer, stores: Stores, clock: Clock
) -> None:
    source = SecretSource(stores=dict.fromkeys(("vault",), stores.by_role()), clock=clock)
    try:
        ref = SecretRef.parse("vault:secret/penstock/redis#password")
        watch = source.watch(ref)
        vault.sealed = True
        clock.now += 300
        source.look()
        assert source.get(ref) == watch.secret == Secret(b"hunter2")
        assert source.health()[0].failing
        vault.sealed = False
        vault.secrets["secret/penstock/redis"]["password"] = "hunter3"
        clock.now += 60
        source.look()
        assert watch.secret == Secret(b"hunter3")
    finally:
        source.close()

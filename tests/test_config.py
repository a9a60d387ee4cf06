from __future__ import annotations

import stat
from pathlib import Path

import pytest

from penstock.config import Settings, flagged_settings
from penstock.config_sources import load_settings
from penstock.errors import ConfigError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flag_wins_over_environment_over_file_over_default(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "penstock.toml").write_text("http_port = 1\ngrpc_port = 2\nmetrics_port = 3")
    monkeypatch.setenv("PENSTOCK_GRPC_PORT", "20")
    monkeypatch.setenv("PENSTOCK_METRICS_PORT", "30")
    settings = load_settings({"metrics_port": "300"})
    assert settings.ports() == {"http_port": 1, "grpc_port": 20, "metrics_port": 300}
    assert settings.exit_timeout_secs == 30


def test_config_file_takes_the_place_of_penstock_toml(empty_folder: Path) -> None:
    (empty_folder / "penstock.toml").write_text("http_port = 1")
    (empty_folder / "other.toml").write_text("grpc_port = 2")
    settings = load_settings({}, Path("other.toml"))
    assert (settings.http_port, settings.grpc_port) == (8000, 2)


def test_all_settings_survive_the_file(empty_folder: Path) -> None:
    settings = Settings(
        model_repository=(Path("a"), Path("b")),
        model_control_mode="explicit",
        load_model=("x", "y"),
        exit_on_error=True,
        exit_timeout_secs=1.5,
        http_max_input_size="2MiB",  # type: ignore[arg-type]
        run_dir=Path("/run"),
    )
    settings.write(empty_folder / "settings.json")
    assert Settings.read(empty_folder / "settings.json") == settings
    assert stat.S_IMODE((empty_folder / "settings.json").stat().st_mode) == 0o600


def test_reading_settings_back_ignores_environment_and_file(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settings(http_port=5).write(empty_folder / "settings.json")
    (empty_folder / "penstock.toml").write_text("grpc_port = 2")
    monkeypatch.setenv("PENSTOCK_HTTP_PORT", "9")
    settings = Settings.read(empty_folder / "settings.json")
    assert (settings.http_port, settings.grpc_port) == (5, 8001)


def test_paths_are_absolute_and_those_of_a_file_beside_it(empty_folder: Path) -> None:
    (empty_folder / "etc").mkdir()
    (empty_folder / "etc/p.toml").write_text('model_repository = ["models", "/srv"]')
    settings = load_settings({}, Path("etc/p.toml"))
    assert settings.model_repository == (empty_folder / "etc/models", Path("/srv"))
    flag = load_settings({"model_repository": ["models"]})
    assert flag.model_repository == (empty_folder / "models",)


def test_lists_in_the_environment(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MODEL_REPOSITORY", "/a:/b")
    monkeypatch.setenv("PENSTOCK_MODEL_CONTROL_MODE", "explicit")
    monkeypatch.setenv("PENSTOCK_LOAD_MODEL", "x,y")
    settings = load_settings({})
    assert settings.model_repository == (Path("/a"), Path("/b"))
    assert settings.load_model == ("x", "y")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HTTP_PORT", "")
    assert load_settings({}).http_port == 8000


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("http_port", "abc", "expected a whole number"),
        ("http_port", "65536", "less than or equal to 65535"),
        ("grpc_port", "-1", "greater than or equal to 0"),
        ("allow_http", "maybe", "expected true or false"),
        ("front", "nginx", "'auto', 'envoy' or 'grpcio'"),
        ("host", "example.org", "expected an IP address"),
        ("model_control_mode", "push", "'none', 'explicit' or 'poll'"),
        ("repository_poll_secs", "0", "greater than 0"),
        ("http_max_input_size", "0", "greater than 0"),
        ("http_max_input_size", "12 parsecs", "a size such as 64MiB"),
        ("exit_timeout_secs", "inf", "finite"),
        ("model_load_thread_count", "0", "greater than or equal to 1"),
    ],
)
def test_a_bad_value_names_setting_source_and_expectation(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    def message(flags: dict[str, str]) -> str:
        with pytest.raises(ConfigError) as caught:
            load_settings(flags)
        text = str(caught.value)
        assert expected in text
        assert value in text
        assert "\n" not in text
        return text

    assert message({name: value}).startswith("--" + name.replace("_", "-") + ": ")
    (empty_folder / "penstock.toml").write_text(f'{name} = "{value}"')
    assert message({}).startswith(f"penstock.toml: {name}: ")
    monkeypatch.setenv(f"PENSTOCK_{name.upper()}", value)
    assert message({}).startswith(f"PENSTOCK_{name.upper()}: ")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"http_port": "8001"}, "http_port and grpc_port are both 8001"),
        ({"load_model": ["x"]}, "load_model needs model_control_mode explicit"),
        (
            {"load_model": ["*", "x"], "model_control_mode": "explicit"},
            "`*` means all models, and must stand alone",
        ),
    ],
)
def test_settings_that_contradict_each_other(flags: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        load_settings(flags)
    assert expected in str(caught.value)


def test_ports_that_are_not_served_may_be_equal() -> None:
    assert Settings(http_port=8001, allow_grpc=False).ports() == {
        "http_port": 8001,
        "metrics_port": 8002,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "htp_port = 1",
            "penstock.toml: htp_port: there is no such setting, did you mean http_port?",
        ),
        ("http_port = ", "penstock.toml: not TOML: "),
        ("model_repository = 3", "penstock.toml: model_repository: expected a list (got 3)"),
        (
            "acces_mode = 1",
            "penstock.toml: acces_mode: there is no such setting, did you mean access_mode?",
        ),
        ("[acces]", "penstock.toml: acces: there is no such setting, did you mean access?"),
    ],
)
def test_a_wrong_file(empty_folder: Path, text: str, expected: str) -> None:
    (empty_folder / "penstock.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings({})
    assert str(caught.value).startswith(expected)


def test_a_missing_config_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"nope\.toml: can't be read: No such file"):
        load_settings({}, Path("nope.toml"))


def test_every_setting_has_its_help() -> None:
    assert [name for name, field in flagged_settings() if not field.description] == []


def test_a_table_is_settings_too(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "etc").mkdir()
    (empty_folder / "etc/p.toml").write_text(
        '[access]\nmode = "required"\ntenants_file = "tenants.db"\nanonymous_roles = ["viewer"]\n'
        '[access.roles.reader]\nverbs = ["read_metadata"]\n'
        '[[access.certificates]]\nuri = "spiffe://a/*"\ntenant = "a"\nroles = ["reader"]\n'
    )
    monkeypatch.setenv("PENSTOCK_ACCESS_ANONYMOUS_ROLES", "user,monitor")
    settings = load_settings({"access_anonymous_tenant": "nobody"}, Path("etc/p.toml"))
    access = settings.access
    assert access.mode == "required"
    assert access.tenants_file == empty_folder / "etc/tenants.db"
    assert access.anonymous_roles == ("user", "monitor")
    assert access.anonymous_tenant == "nobody"
    assert access.certificates[0].roles == ("reader",)
    settings.write(empty_folder / "settings.json")
    assert Settings.read(empty_folder / "settings.json") == settings


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("access = 1", "penstock.toml: access: expected a table, [access] (got 1)"),
        (
            "[access]\nmod = 1",
            "penstock.toml: access.mod: there is no such setting, did you mean mode?",
        ),
        (
            "[access]\nquux = 1",
            "penstock.toml: access.quux: there is no such setting",
        ),
        (
            '[access.roles.reader]\nverb = ["infer"]',
            "penstock.toml: access.roles.reader.verb",
        ),
        (
            '[[access.jwt]]\nissuer = "https://a.test"\njwks_file = "k"\ndefault_roles = ["user"]\n',
            "penstock.toml: access.jwt.0 (issuer 'https://a.test').audience: is needed, and missing",
        ),
        (
            '[[access.certificates]]\nuri = "spiffe://a/*"\ntenant = "a"\nrole = ["user"]\n',
            "penstock.toml: access.certificates.0 (uri 'spiffe://a/*').role: there is no such setting,"
            " did you mean roles?",
        ),
        (
            '[access]\nmode = "on"',
            "penstock.toml: access.mode: expected 'off' or 'required' (got 'on')",
        ),
        (
            '[access]\nanonymous_roles = ["king"]',
            "penstock.toml: access: anonymous_roles: there is no role 'king', expected one of",
        ),
        (
            '[[access.certificates]]\ntenant = "a"\n',
            "penstock.toml: access.certificates.0: expected one of uri, dns and subject",
        ),
        (
            '[access.roles.admin]\nverbs = ["infer"]\n',
            "penstock.toml: access: roles.admin: there is a built-in role of this name",
        ),
    ],
)
def test_what_is_wrong_in_a_table_is_named(empty_folder: Path, toml: str, message: str) -> None:
    (empty_folder / "penstock.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load_settings({})
    assert str(caught.value).startswith(message)


def test_a_wrong_variable_of_a_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_ACCESS_MODE", "on")
    with pytest.raises(ConfigError, match=r"^PENSTOCK_ACCESS_MODE: expected 'off' or"):
        load_settings({})


def test_an_error_of_a_whole_table_names_whoever_gave_it(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(flags: dict[str, str]) -> str:
        with pytest.raises(ConfigError) as caught:
            load_settings(flags)
        return str(caught.value).partition(": tls.cert_file")[0]

    assert message({"tls_cert_file": "x"}) == "--tls-cert-file"
    monkeypatch.setenv("PENSTOCK_TLS_CERT_FILE", "x")
    assert message({}) == "PENSTOCK_TLS_CERT_FILE"
    assert message({"tls_min_version": "1.3"}) == "PENSTOCK_TLS_CERT_FILE, --tls-min-version"
    (empty_folder / "penstock.toml").write_text('[tls]\nmin_version = "1.3"\n')
    assert message({}) == "penstock.toml: tls, PENSTOCK_TLS_CERT_FILE"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("http_port = 1.5", "http_port: expected a whole number (got 1.5)"),
        ('exit_timeout_secs = "x"', "exit_timeout_secs: expected a number (got 'x')"),
        ("http_port = [1]", "http_port: expected a whole number (got a list)"),
        ("host = {a = 1}", "host: expected text (got a table)"),
        ('vertex_ai_predict_route = "x"', "vertex_ai_predict_route: expected text that matches "),
        ("http_port = -1", "http_port: expected a number greater than or equal to 0 (got -1)"),
        ("[access]\nroles = 1", "access.roles: expected a table (got 1)"),
        ("[access]\njwt = 1", "access.jwt: expected a list (got 1)"),
        ("[access]\njwt = [1]", "access.jwt.0: expected a table (got 1)"),
    ],
)
def test_nothing_of_python_is_in_an_error(empty_folder: Path, toml: str, message: str) -> None:
    (empty_folder / "penstock.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load_settings({})
    text = str(caught.value).removeprefix("penstock.toml: ")
    assert text.startswith(message)
    assert "nput should" not in text and "tuple" not in text.lower()

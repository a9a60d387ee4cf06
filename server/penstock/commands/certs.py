"""`penstock certs`: a small private CA."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from penstock.certs.folder import CertsFolder
from penstock.certs.inspection import CertInfo, shown, utc_now
from penstock.certs.request import (
    KeyType,
    Kind,
    check_lifetime,
    check_trust_domain,
    make_request,
)
from penstock.commands.terminal import terminal
from penstock.commands.time_values import parse_duration
from penstock.config_sources import load_settings
from penstock.errors import ConfigError, InvalidRequest
from penstock.secrets.secret import Secret
from penstock.secrets.source import SecretSource
from penstock.secrets_config import SecretRef

MAX_CA_LIFETIME_S: Final = 20 * 366 * 86_400
MAX_CA_NAME: Final = 48
STYLES: Final = {
    "valid": "green",
    "due": "yellow",
    "expired": "red",
    "not yet valid": "red",
    "retired": "dim",
}

app = typer.Typer(
    help="A small private CA: make it, issue certificates, renew and list them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Where the CA is.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file, whose [secrets] say where Vault is; in place of ./penstock.toml.",
    ),
]
KeyOption = Annotated[KeyType, typer.Option("--key-type", help="Kind of the private key.")]
DEFAULT_FOLDER: Final = Path("certs")


@app.command("init")
def init(
    folder: Folder = DEFAULT_FOLDER,
    name: Annotated[str, typer.Option("--name", help="The CA's name.")] = "Penstock CA",
    lifetime: Annotated[
        str, typer.Option("--lifetime", help="How long it lasts, as 3650d, 12h.")
    ] = "3650d",
    trust_domain: Annotated[
        str,
        typer.Option(
            "--trust-domain",
            metavar="DOMAIN",
            help="SPIFFE's: certificates get the URI spiffe://DOMAIN/KIND/NAME.",
        ),
    ] = "",
    key_type: KeyOption = "p256",
    passphrase_from: Annotated[
        str,
        typer.Option(
            "--passphrase-from",
            metavar="REFERENCE",
            help="Encrypt the CA's key. Where its passphrase is: file:/path, env:NAME, or"
            " vault:mount/path#field.",
        ),
    ] = "",
    rotate: Annotated[
        bool,
        typer.Option(
            "--rotate",
            help="Make a CA beside the one there is: it issues from now on, both are trusted.",
        ),
    ] = False,
    retire: Annotated[
        bool,
        typer.Option("--retire", help="End a rotation: trust the newest CA alone."),
    ] = False,
    config: Config = None,
) -> None:
    """Make a CA, in a folder that only you may enter."""
    if rotate and retire:
        raise ConfigError("--rotate begins a rotation and --retire ends it: one at a time")
    if (rotate or retire) and trust_domain:
        raise ConfigError("--trust-domain: a CA keeps the trust domain that the first one got")
    if not 1 <= len(name) <= MAX_CA_NAME or not name.isprintable():
        raise ConfigError(f"--name: expected 1 to {MAX_CA_NAME} printable characters")
    lifetime_s = _lifetime(lifetime, MAX_CA_LIFETIME_S)
    passphrase = _reference(passphrase_from)
    domain = check_trust_domain(trust_domain) if trust_domain else ""
    now = utc_now()
    with _opened(folder, config) as certs:
        if retire:
            return _retire(certs, now)
        if rotate:
            made = certs.rotate(name, now, lifetime_s, key_type=key_type, passphrase=passphrase)
        else:
            made = certs.init(
                name,
                now,
                lifetime_s,
                trust_domain=domain,
                key_type=key_type,
                passphrase=passphrase,
            )
    typer.echo(f"{made.name} issues from now on, until {_day(made.ends_at)}")
    typer.echo(f"{certs.bundle} is what others trust{', the older CA too' if rotate else ''}")


@app.command("issue")
def issue(
    kind: Annotated[Kind, typer.Argument(help="What it is for.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, and its folder's.")],
    dns: Annotated[
        list[str] | None,
        typer.Option("--dns", metavar="HOST", help="Name of the host. Repeatable."),
    ] = None,
    ip: Annotated[
        list[str] | None,
        typer.Option("--ip", metavar="ADDRESS", help="Address of the host. Repeatable."),
    ] = None,
    uri: Annotated[
        list[str] | None,
        typer.Option("--uri", metavar="URI", help="Identity, as spiffe://DOMAIN/PATH."),
    ] = None,
    lifetime: Annotated[
        str,
        typer.Option(
            "--lifetime",
            help="How long it lasts, as 30d, 12h, 90m. [default: 30d for a server, 7d for a client]",
            show_default=False,
        ),
    ] = "",
    key_type: KeyOption = "p256",
    replace: Annotated[
        bool, typer.Option("--replace", help="In place of one of this name.")
    ] = False,
    folder: Folder = DEFAULT_FOLDER,
    config: Config = None,
) -> None:
    """Issue a certificate: tls.crt, tls.key and ca.crt in a folder of its own.

    A server's is for the host NAME where no --dns and no --ip is given.
    """
    with _opened(folder, config) as certs:
        request = make_request(
            kind,
            name,
            dns=dns or (),
            ips=ip or (),
            uris=uri or (),
            lifetime_s=_lifetime(lifetime) if lifetime else None,
            key_type=key_type,
            trust_domain=certs.trust_domain(),
        )
        _tell([certs.issue(request, utc_now(), replace=replace)])


@app.command("renew")
def renew(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="NAME or server/NAME.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Renew all.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    config: Config = None,
) -> None:
    """Renew certificates, with new keys.

    Those named; else all that are past two thirds of their life, or of an older CA.
    """
    if names and everything:
        raise ConfigError("--all: names are given too, expected one of the two")
    now = utc_now()
    with _opened(folder, config) as certs:
        issued = [info for info in certs.entries(now) if info.kind != "ca"]
        if names:
            labels = list(dict.fromkeys(label for name in names for label in certs.resolve(name)))
        else:
            labels = [_label(info) for info in issued if everything or info.should_renew()]
        _tell(certs.renew(labels, now))
        authority = certs.authority(now)
    if not labels:
        typer.echo("nothing is due")
    if authority.state != "valid":
        typer.echo(
            f"{authority.name} ends on {_day(authority.ends_at)}: penstock certs init --rotate",
            err=True,
        )


@app.command("list")
def list_certificates(
    folder: Folder = DEFAULT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Show JSON rather than a table.")] = False,
) -> None:
    """List the CAs, and what they have issued."""
    now = utc_now()
    with _opened(folder, None) as certs:
        entries = certs.entries(now)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(entries), indent=2).decode())
        return
    table = Table("name", "kind", "expires", "in", "state")
    table.add_column("stands for", overflow="fold")
    for info in entries:
        left = "" if info.state in ("expired", "retired") else shown(info.ends_at - now)
        state = info.state if info.by_current_ca else f"{info.state}, older CA"
        cells = (info.name, info.kind, _day(info.ends_at), left)
        names = Text("\n".join(info.names))
        table.add_row(*map(Text, cells), Text(state, STYLES[info.state]), names)
    terminal().print(table)


def _retire(certs: CertsFolder, now: datetime) -> None:
    gone = certs.retire(now)
    for info in gone:
        typer.echo(f"{info.name} is trusted no more, its key is destroyed")
    typer.echo(f"{certs.bundle} has the newest CA alone" if gone else "there is no older CA")


@contextmanager
def _opened(folder: Path, config: Path | None) -> Iterator[CertsFolder]:
    """Settings are read only where a passphrase is asked for that Vault has."""
    sources: list[SecretSource] = []

    def read(ref: SecretRef) -> Secret:
        settings = load_settings({}, config).secrets if ref.kind == "vault" else None
        sources.append(SecretSource(settings))
        return sources[-1].get(ref)

    try:
        yield CertsFolder(folder, read)
    finally:
        for source in sources:
            source.close()


def _reference(text: str) -> SecretRef | None:
    try:
        return SecretRef.parse(text) if text else None
    except ValueError as error:
        # not what was given: it may be the passphrase
        raise ConfigError(f"--passphrase-from: {error}") from None


def _lifetime(text: str, longest_s: int | None = None) -> int:
    try:
        seconds = int(parse_duration(text))
    except InvalidRequest as error:
        raise ConfigError(f"--lifetime: {error}") from None
    return check_lifetime(seconds) if longest_s is None else check_lifetime(seconds, longest_s)


def _tell(issued: Iterable[CertInfo]) -> None:
    for info in issued:
        # a client needs none
        facts = [", ".join(info.names)] if info.names else []
        facts += [f"until {_day(info.ends_at)}", f"in {Path(info.path).parent}"]
        typer.echo(f"{_label(info)}: {'; '.join(facts)}")


def _label(info: CertInfo) -> str:
    """By its folder: what it says of itself may be another name."""
    return "/".join(Path(info.path).parent.parts[-2:])


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"

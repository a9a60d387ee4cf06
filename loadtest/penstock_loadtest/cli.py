"""`python -m penstock_loadtest peers`: Penstock against the real Triton; `profile`: where a server's time goes;
`resilience`: both under overload, among tenants and during reloads; `chaos`: whether a request is lost; `buckets`: what
padding to bucket sizes is good for; `cache`: what the response cache saves; `tls`: what mTLS costs; `access`: what
access control costs; `artifacts`: what it costs to verify a model; `kernels`: the kernels against NumPy; `gpu-kernels`:
against torch, on a GPU; `backends`: onnxruntime against openvino; `costs`: what a request costs the parts of several
builds."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from penstock.quiet import keep_quiet
from penstock_loadtest.cases import EMBEDDER_CASE, ClientName, select
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.peers import Peers, PeersOutcome
from penstock_loadtest.profiling import profile_server
from penstock_loadtest.report import print_report, to_json
from penstock_loadtest.resilience.report import Part
from penstock_loadtest.servers import Penstock, Server, Triton

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)

RUN_PENSTOCK = f"{shlex.quote(sys.executable)} -c 'from penstock.cli import main; main()'"


class ServerName(StrEnum):
    """What can be started."""

    PENSTOCK = "penstock"
    TRITON = "triton"


class ClientChoice(StrEnum):
    """What can send the load."""

    AUTO = "auto"
    H2LOAD = "h2load"
    PERF_ANALYZER = "perf_analyzer"

    @property
    def override(self) -> ClientName | None:
        """None leaves each case its own client."""
        names: dict[str, ClientName] = {"h2load": "h2load", "perf_analyzer": "perf_analyzer"}
        return names.get(self.value)


PeersPath = Annotated[Path, typer.Option(help="Folder of triton.sh, perf_analyzer.sh and repo/.")]
ModelRepo = Annotated[Path, typer.Option(help="Repository that holds the embedder.")]
CaseNames = Annotated[list[str], typer.Option("--case", help="Name or pattern, e.g. 'image-*'.")]
PenstockCommand = Annotated[
    str, typer.Option("--penstock", help="The program before `serve`; default: this Python's.")
]
PenstockFlags = Annotated[
    str, typer.Option(help="More words for `penstock serve`, e.g. '--front grpcio'.")
]
Client = Annotated[ClientChoice, typer.Option(help="auto: h2load; perf_analyzer for embedder.")]
PagePath = Annotated[Path, typer.Option(help="Page whose figures are filled in, if it is there.")]
Parts = Annotated[list[Part], typer.Option("--part", help="Some parts only; the others stay.")]
Servers = Annotated[list[ServerName], typer.Option("--server", help="Some servers only.")]


WIDE_ENOUGH = 170


@app.callback()
def main() -> None:
    """Penstock's load tests."""
    keep_quiet()


@app.command()
def peers(
    peers: PeersPath = Path("../shared/peers"),
    model_repo: ModelRepo = Path("model_repo"),
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a turn.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server.")] = 3,
    case: CaseNames = [],  # noqa: B006 (typer copies it)
    subject: ServerName = ServerName.PENSTOCK,
    baseline: ServerName = ServerName.TRITON,
    client: Client = ClientChoice.AUTO,
    threads: Annotated[
        int | None, typer.Option(help="Of the bare loop's session; default: all cores.")
    ] = None,
    penstock: PenstockCommand = RUN_PENSTOCK,
    penstock_flags: PenstockFlags = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write JSON here.")] = None,
) -> None:
    """Start two servers in turns under the same load and print ratios with their spread."""
    console = _console()
    names = {"subject": subject.value, "baseline": baseline.value}
    settings = names | {"seconds": seconds, "rounds": rounds, "client": client.value}
    cores = len(os.sched_getaffinity(0))
    try:
        cases = select(case)
        match = Peers(
            subject=_server(subject, peers, penstock, penstock_flags, ""),
            baseline=_server(
                baseline, peers, penstock, penstock_flags, "'" if baseline is subject else ""
            ),
            peers=_folder(peers),
            model_repo=model_repo.resolve(),
            client=client.override,
            cores=cores,
            threads=threads or cores,
        )
        outcome = match.run(cases, rounds, seconds, console.print)
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    _show(console, outcome, settings, json_file)


@app.command()
def profile(
    case: Annotated[str, typer.Option(help="One case's name.")] = "identity-grpc-64",
    server: ServerName = ServerName.PENSTOCK,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the record.")] = 10.0,
    output: Annotated[Path, typer.Option(help="Folder for the records.")] = Path("profiles"),
    top: Annotated[int, typer.Option(min=1, help="Functions shown for each process.")] = 25,
    peers: PeersPath = Path("../shared/peers"),
    model_repo: ModelRepo = Path("model_repo"),
    penstock: PenstockCommand = RUN_PENSTOCK,
    penstock_flags: PenstockFlags = "",
) -> None:
    """Record with py-spy where the Python of each of the server's processes spends its time under a case's load."""
    console = _console()
    try:
        chosen = select([case])[0]
        repository = model_repo if chosen == EMBEDDER_CASE else _folder(peers) / "repo"
        started = _server(server, peers, penstock, penstock_flags, "")
        for record in profile_server(started, repository, peers, chosen, seconds, output):
            console.print(record.table(top))
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None


@app.command()
def costs(
    build: Annotated[
        list[str], typer.Option("--build", help="NAME=COMMAND, its first words before `serve`.")
    ] = [f"this={RUN_PENSTOCK}"],  # noqa: B006 (typer copies it)
    case: CaseNames = ["identity-grpc-*"],  # noqa: B006
    requests: Annotated[int, typer.Option(min=128, help="Of a turn.")] = 5_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each build and case.")] = 9,
    peers: PeersPath = Path("../shared/peers"),
    penstock_flags: PenstockFlags = "",
) -> None:
    """Measure what a request costs gateway, Envoy and worker, of several builds turn by turn."""
    from penstock_loadtest.costs import measure, table_of

    console = _console()
    try:
        turns = measure(
            [_build(words, penstock_flags) for words in build],
            _folder(peers) / "repo",
            select(case),
            requests,
            rounds,
            console.print,
        )
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print(table_of(turns))


@app.command()
def artifacts(
    mebibytes: Annotated[int, typer.Option(min=1, help="Size of the model.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way to read it.")] = 5,
) -> None:
    """Measure what it costs to verify and to decrypt a model, beside a plain read."""
    # the server's own code is measured: other commands need none of it
    from penstock_loadtest.artifacts import measure, table_of

    _console().print(table_of(measure(mebibytes << 20, rounds)))


@app.command()
def buckets(
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a turn.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each model.")] = 3,
    network: Annotated[
        Path | None, typer.Option(help="ONNX file that takes input_ids and attention_mask.")
    ] = None,
    penstock: PenstockCommand = RUN_PENSTOCK,
    penstock_flags: PenstockFlags = "",
) -> None:
    """Load a network, by default a small recurrent one, with texts of mixed lengths: padded to buckets, and not."""
    from penstock_loadtest.buckets import compare_buckets

    console = _console()
    server = _server(ServerName.PENSTOCK, Path(), penstock, penstock_flags, "")
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-buckets-") as folder:
            outcome = compare_buckets(server, network, Path(folder), rounds, seconds, console.print)
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print(outcome.line(), highlight=False)


@app.command()
def chaos(
    seconds: Annotated[float, typer.Option(min=1, help="How long the server is harmed.")] = 60.0,
    seed: Annotated[int | None, typer.Option(help="Of all chance; default: the time.")] = None,
    front: Annotated[str, typer.Option(help="envoy or grpcio.")] = "envoy",
    poison: Annotated[bool, typer.Option(help="Send requests that kill their worker.")] = True,
    penstock: PenstockCommand = RUN_PENSTOCK,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write JSON here.")] = None,
) -> None:
    """Harm a server under mixed load in every way, then check that each request got exactly one right answer."""
    words = tuple(shlex.split(penstock))
    try:
        # tritonclient, onnx and h2 are not needed by the other commands
        from penstock_loadtest.chaos.command import run_command
    except ImportError as error:
        _console().print(
            f"[red]error:[/] {error}: pip install 'penstock\\[loadtest]'", highlight=False
        )
        raise typer.Exit(1) from None
    try:
        passed = run_command(_console(), seconds, seed, front, words, poison, json_file)
    except BenchmarkError as error:
        _console().print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    if not passed:
        raise typer.Exit(1)


@app.command()
def resilience(
    peers: PeersPath = Path("../shared/peers"),
    output: Annotated[Path, typer.Option(help="Of the plots and the JSON.")] = Path("docs/plots"),
    page: PagePath = Path("docs/resilience.md"),
    part: Parts = [],  # noqa: B006 (typer copies it)
    server: Servers = [],  # noqa: B006
    seconds: Annotated[float, typer.Option(min=1, help="Length of a turn.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server.")] = 3,
    loops: Annotated[int, typer.Option(min=1, help="Reloads of the part `loops`.")] = 200,
    redraw: Annotated[bool, typer.Option("--redraw", help="Draw the JSON anew.")] = False,
    penstock: PenstockCommand = RUN_PENSTOCK,
    penstock_flags: PenstockFlags = "",
) -> None:
    """Measure goodput under overload, fair shares and reloads under load; draw the plots and fill in the page."""
    # grpc.aio and matplotlib are not needed by the other commands
    from penstock_loadtest.resilience.program import Resilience, publish

    console = _console()
    try:
        if not redraw:
            names = server or list(ServerName)
            servers = [_server(name, peers, penstock, penstock_flags, "") for name in names]
            run = Resilience(servers, seconds, rounds, loops, console.print)
            run.run(part or list(Part), output)
        publish(output, page, console.print)
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None


@app.command()
def cache(
    model_repo: ModelRepo = Path("model_repo"),
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a turn.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each model.")] = 5,
    penstock: PenstockCommand = RUN_PENSTOCK,
) -> None:
    """Ask the example `digits` the same again and again, with and without a response cache; print the ratios."""
    # tritonclient is not needed by the other commands
    from penstock_loadtest.caching import measure

    console = _console()
    words = tuple(shlex.split(penstock))
    try:
        ratios = measure(words, model_repo.resolve(), seconds, rounds, console.print)
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    for name, ratio in zip(("median latency", "server CPU a request"), ratios, strict=True):
        console.print(f"{name}: {ratio.median:.2f} ({ratio.least:.2f} - {ratio.most:.2f})")


@app.command()
def tls(
    model_repo: ModelRepo = Path("model_repo"),
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a turn.")] = 6.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server.")] = 5,
    penstock: PenstockCommand = RUN_PENSTOCK,
    penstock_flags: PenstockFlags = "",
) -> None:
    """Ask the example `add_sub` over TLS with client certificates, and in plain text; print the ratios."""
    # tritonclient is not needed by the other commands
    from penstock_loadtest.tls import measure

    console = _console()
    words, flags = shlex.split(penstock), shlex.split(penstock_flags)
    try:
        ratios = measure(words, flags, model_repo.resolve(), seconds, rounds, console.print)
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    for name, ratio in (
        ("median latency", ratios.latency),
        ("server CPU a request", ratios.server_cpu),
        ("new connection", ratios.new_connection),
    ):
        console.print(f"{name}: {ratio.median:.2f} ({ratio.least:.2f} - {ratio.most:.2f})")


@app.command()
def access(
    requests: Annotated[int, typer.Option(min=1, help="Of each kind, a round.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each kind.")] = 9,
) -> None:
    """Measure in process what identity, permission and quota cost a request, and what a new credential costs."""
    from penstock_loadtest.access import measure, tables

    console = _console()
    costs = measure(requests, rounds)
    for table in tables(costs):
        console.print(table)
    console.print(f"API key, permission and quota together: {costs.added_us:.2f} µs a request")


@app.command()
def rollouts(
    runs: Annotated[
        int, typer.Option(min=1, help="With a good candidate, for each traffic.")
    ] = 1000,
    faulty_runs: Annotated[int, typer.Option(min=1, help="With a bad one, for each fault.")] = 50,
    processes: Annotated[int, typer.Option(min=1, help="That share the work.")] = 2,
    page: PagePath = Path("docs/rollouts.md"),
) -> None:
    """Simulate roll-outs: how often a good candidate is taken back, how soon a bad one, what watching costs."""
    from penstock_loadtest.rollouts import CANDIDATE, STABLE, cost_us, measure, publish

    console = _console()
    for version, name in ((STABLE, "stable"), (CANDIDATE, "candidate")):
        costs = ", ".join(f"{cost_us(share, version):.1f} µs at {share:g} %" for share in (1, 50))
        console.print(f"an answer of the {name} version: {costs}")
    measured = measure(runs, faulty_runs, processes, console.print)
    if page.is_file():
        publish(measured, page)
    else:
        console.print(measured.false_alarm_table(), measured.delay_table(), sep="\n\n")


@app.command()
def kernels(
    only: Annotated[str, typer.Option(help="Cases whose name holds this.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each case.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="That a kernel may use.")] = 1,
    write: Annotated[Path | None, typer.Option(help="Page whose table is filled in.")] = None,
) -> None:
    """Compare the kernels' CPU twins with the NumPy expressions that they replace; print or write the table."""
    # Numba is not needed by the other commands
    from penstock_loadtest.kernels import CASES, measure, publish, table_of

    console = _console()
    cases = [case for case in CASES if only in case.name]
    if not cases:
        # a page's table would be emptied
        names = ", ".join(dict.fromkeys(case.name for case in CASES))
        said = f"no case's name holds {only!r}; there are: {names}"
        console.print(f"[red]error:[/] {escape(said)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    results = measure(cases, rounds, threads, lambda line: console.print(line, highlight=False))
    if write is None:
        console.print(table_of(results), highlight=False, soft_wrap=True)
    else:
        publish(results, write)


@app.command()
def gpu_kernels(
    only: Annotated[str, typer.Option(help="Cases whose name holds this.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each case.")] = 15,
) -> None:
    """Compare the kernels' CUDA sources with torch's operators on this machine's first GPU; print the table."""
    from penstock_loadtest.kernels_gpu import measure

    console = _console()
    try:
        text = measure(only, rounds, lambda line: console.print(line, highlight=False))
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print(text, highlight=False, soft_wrap=True)


@app.command()
def backends(
    model_repo: ModelRepo = Path("model_repo"),
    rounds: Annotated[int, typer.Option(min=4, help="Pairs of runs for each line.")] = 60,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Of each model; default: one, and all cores.")
    ] = None,
    page: PagePath = Path("docs/openvino.md"),
) -> None:
    """Run the repository's ONNX files by onnxruntime and openvino in turn, in process, and print ratios."""
    from penstock_loadtest.backends import PART, measure, report
    from penstock_loadtest.marked import fill

    console = _console()
    counts = threads or sorted({1, len(os.sched_getaffinity(0))})
    try:
        text = report(measure(model_repo, counts, rounds, console.print))
    except BenchmarkError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print(text, highlight=False)
    if page.is_file():
        page.write_text(fill(page.read_text(), PART, text))


def _console() -> Console:
    """A file or a pipe has no width of its own, and the tables are wide."""
    return Console() if sys.stdout.isatty() else Console(width=WIDE_ENOUGH)


def _server(name: ServerName, peers: Path, penstock: str, flags: str, mark: str) -> Server:
    """`mark` tells the second of two equal servers from the first."""
    if name is ServerName.TRITON:
        return Triton(_folder(peers), f"triton{mark}")
    return Penstock(tuple(shlex.split(penstock)), tuple(shlex.split(flags)), f"penstock{mark}")


def _build(words: str, flags: str) -> Penstock:
    name, _, command = words.partition("=")
    if not command:
        raise BenchmarkError(f"--build {words}: expected NAME=COMMAND")
    return Penstock(tuple(shlex.split(command)), tuple(shlex.split(flags)), name)


def _folder(peers: Path) -> Path:
    if not (peers / "triton.sh").is_file():
        raise BenchmarkError(f"--peers {peers}: no triton.sh there")
    return peers.resolve()


def _show(
    console: Console, outcome: PeersOutcome, settings: dict[str, Any], json_file: Path | None
) -> None:
    print_report(console, outcome.comparisons, outcome.measurements)
    for line in outcome.skipped:
        console.print(f"[yellow]skipped:[/] {line}", highlight=False)
    if json_file is not None:
        found = to_json(outcome.comparisons, outcome.measurements, outcome.skipped, settings)
        json_file.write_text(json.dumps(found, indent=2) + "\n")

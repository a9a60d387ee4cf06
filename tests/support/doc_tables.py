"""The parts of README.md and docs/ that are made from the code. They lie between `<!-- name -->` and `<!-- /name -->`.

`python tests/support/doc_tables.py` writes them anew; with the JSON file of `penstock_loadtest peers --json` as its
argument also README's table of ratios, which is otherwise left alone. Figures in docs/resilience.md come from the JSON
beside its plots.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from every_rule import every_route, every_rpc
from extensions import extensions_table
from penstock.access_config import BUILT_IN
from penstock.capture_config import CaptureRule
from penstock.commands.metavars import metavar
from penstock.commands.serve import ALIASES, NOT_YET
from penstock.config import flag_of, flagged_settings
from penstock.config_section import Section, section_of
from penstock.errors import PenstockError
from penstock.gateway.status import status_of
from penstock.jwt_config import JwtIssuer
from penstock.scheduling.refusals import Refusal
from penstock.scheduling.sequence_backlog import Ending
from penstock.telemetry import (
    audit_metrics,
    capture_metrics,
    gpu_metrics,
    registry_metrics,
    rollout_metrics,
    secret_metrics,
    tls_metrics,
)
from penstock.telemetry.families import (
    CACHE_COUNTERS,
    CACHE_DURATIONS,
    CACHE_GAUGES,
    CACHE_SUMMARIES,
    ENDED_SEQUENCES_HELP,
    ENDED_SEQUENCES_NAME,
    FAILURE_HELP,
    FAILURE_NAME,
    FALLBACK_HELP,
    FALLBACK_NAME,
    FIRST_RESPONSE_HELP,
    GAUGES,
    HISTOGRAMS,
    HOST,
    OWN_CACHE_COUNTERS,
    OWN_COUNTERS,
    REFUSED_HELP,
    REFUSED_NAME,
    SEQUENCES_HELP,
    SEQUENCES_NAME,
    SLO_GAUGES,
    SUMMARIES,
    TRITON_COUNTERS,
)
from penstock.telemetry.latencies import FIRST_RESPONSE
from penstock.telemetry.tenant_metrics import NAMES as TENANTS
from penstock.telemetry.tenant_metrics import SHARING_HELP, SHARING_NAME
from penstock.verbs import Verb
from penstock_loadtest.cases import EMBEDDER_CASE, PEER_CASES, Case
from penstock_loadtest.marked import fill, table
from penstock_loadtest.resilience.page import MAKERS, part_of
from penstock_training.config import TrainConfig

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"
RESILIENCE: Final = DOCS / "resilience.md"

LOADS: Final = {
    "identity": "`identity`, FP32[16], Triton's Python class",
    "image": "`image`, FP32[3,224,224] in, Triton's Python class",
    "embedder": "`embedder`, texts in, our Python class",
}
BASELINES: Final = {
    "triton": "Triton 2.51",
    "bare loop": "a bare loop: tokenizer and ONNX session in one process",
    "bare onnx": "the ONNX session alone",
}
NOT_MEASURED: Final = "-"
VALUES: Final = {
    "host": "address",
    "tenant_header": "header",
    "tenant_weights": "NAME=WEIGHT",
    "trace_config": "[MODE,]NAME=VALUE",
    "metrics_config": "NAME=VALUE",
    "sagemaker_safe_port_range": "LOW-HIGH",
    "sagemaker_default_model": "model",
    "vertex_ai_default_model": "model",
    "vertex_ai_predict_route": "path",
    "vertex_ai_health_route": "path",
    "rate_limit_resource": "NAME:COUNT[:DEVICE]",
    "cache_config": "CACHE,NAME=VALUE",
    "registry_models": "[NAME=]models:/MODEL@ALIAS",
    "registry_uri": "URI",
}
"""Of settings whose type does not say it."""

CACHED: Final = "Models with `response_cache`"
QUOTAS: Final = "With [access control](access.md), of the first tenants"


def settings_table() -> str:
    """A row for each setting."""
    rows = [
        (
            _flags(name),
            VALUES.get(name) or _values(field, name),
            _default(field.get_default(call_default_factory=True)),
            " ".join((field.description or "").split()),
        )
        for name, field in flagged_settings()
    ]
    return table(("flag", "values", "default", "meaning"), rows)


def refused_flags() -> str:
    """Triton's flags that are refused."""
    return ", ".join(f"`{flag}`" for flag in sorted(NOT_YET))


def statuses_table() -> str:
    """A row for each error of the tree but its root."""
    rows = []
    for error in _below(PenstockError):
        status = status_of(error(""))
        text = (error.__doc__ or "").splitlines()[0]
        rows.append((f"`{error.__name__}`", str(int(status.http)), status.grpc.name, text))
    return table(("error", "HTTP", "gRPC", "meaning"), rows)


GPUS = "Label `gpu_uuid`. With [GPUs](gpu.md)"
FALLBACKS = (
    "Label `reason`: `device`, `backend`. Models that [fall back](gpu.md#a-gpu-that-is-not-there)"
)
CAPTURING = "With [capture](capture.md)"
ROLLED_OUT = "Of models that were [rolled out](rollouts.md)"
TLS_KINDS = "Label `kind`: `server`, `client_ca`. With TLS"


def metrics_table() -> str:
    """A row for each metric, by its name in the text format."""
    rows = [
        *((family.name, "counter", family.help) for family in TRITON_COUNTERS),
        (FAILURE_NAME, "counter", f"{FAILURE_HELP}. Label `reason`"),
        *((f"{family.name}_total", "counter", family.help) for family in OWN_COUNTERS),
        *((f.name, "counter", f"{f.help}. {CACHED}") for f in (*CACHE_COUNTERS, *CACHE_DURATIONS)),
        *((f"{f.name}_total", "counter", f"{f.help}. {CACHED}") for f in OWN_CACHE_COUNTERS),
        *((f.name, "gauge", f"{f.help}. {CACHED}") for f in CACHE_GAUGES),
        (FALLBACK_NAME, "gauge", f"{FALLBACK_HELP}. {FALLBACKS}"),
        (f"{REFUSED_NAME}_total", "counter", f"{REFUSED_HELP}. Label `reason`: {_reasons()}"),
        (
            f"{ENDED_SEQUENCES_NAME}_total",
            "counter",
            f"{ENDED_SEQUENCES_HELP}. Label `reason`: {_endings()}. Stateful models",
        ),
        (
            SEQUENCES_NAME,
            "gauge",
            f"{SEQUENCES_HELP}. Label `state`: `active`, `backlog`. Stateful models",
        ),
        *((family.name, "gauge", family.help) for family in GAUGES),
        *((f.name, "gauge", f"{f.help}. Models with `slo_p99_ms`") for f in SLO_GAUGES),
        *((family.name, "histogram", family.help) for family in HISTOGRAMS),
        (FIRST_RESPONSE, "histogram", f"{FIRST_RESPONSE_HELP}. With `histogram_latencies=true`"),
        *((f.name, "summary", f"{f.help}. With `summary_latencies=true`") for f in SUMMARIES),
        *(
            (f.name, "summary", f"{f.help}. With `summary_latencies=true`. {CACHED}")
            for f in CACHE_SUMMARIES
        ),
        *((name, "gauge", f"{text}. Of the machine") for name, text, _ in HOST),
        *((name, "gauge", f"{text}. {GPUS}") for name, text, _ in gpu_metrics.GAUGES),
        (gpu_metrics.ENERGY[0], "counter", f"{gpu_metrics.ENERGY[1]}. {GPUS}"),
        (tls_metrics.EXPIRY[0], "gauge", f"{tls_metrics.EXPIRY[1]}. {TLS_KINDS}"),
        *(
            (f"{name}_total", "counter", f"{text}. With TLS")
            for name, text, _ in tls_metrics.COUNTERS
        ),
        *(
            (name, "gauge", f"{text}. By `{secret_metrics.LABEL}`, its reference")
            for name, text, _ in secret_metrics.GAUGES
        ),
        *(
            (f"{name}_total", "counter", f"{text}. Likewise")
            for name, text, _ in secret_metrics.COUNTERS
        ),
        *((f"{n}_total", "counter", f"{text}. Label `tenant`. {QUOTAS}") for n, text in TENANTS),
        (SHARING_NAME, "gauge", f"{SHARING_HELP}. With `quotas.redis_url`"),
        *(
            (f"{name}_total", "counter", f"{text}. With an audit log")
            for name, text, _ in audit_metrics.COUNTERS
        ),
        (audit_metrics.FAILING[0], "gauge", f"{audit_metrics.FAILING[1]}. With an audit log"),
        *(
            (f"{name}_total", "counter", f"{text}. {CAPTURING}")
            for name, text, _ in capture_metrics.COUNTERS
        ),
        *(
            (f"{name}_total", "counter", f"{text}. Label `reason`. {CAPTURING}")
            for name, text, _ in capture_metrics.BY_REASON
        ),
        *(
            (name, "gauge", f"{text}. {CAPTURING}")
            for name, text in (capture_metrics.QUEUED, capture_metrics.FAILING)
        ),
        *(
            (name, "gauge", f"{text}. {ROLLED_OUT}")
            for name, text in (rollout_metrics.SHARE, rollout_metrics.STATE)
        ),
        (rollout_metrics.EVIDENCE[0], "gauge", f"{rollout_metrics.EVIDENCE[1]}. {ROLLED_OUT}"),
        *(
            (f"{name}_total", "counter", f"{text}. Labels `version` and `role`. {ROLLED_OUT}")
            for name, text, _ in rollout_metrics.OF_VERSIONS
        ),
        *(
            (f"{name}_total", "counter", f"{text}. {ROLLED_OUT}")
            for name, text, _ in rollout_metrics.OF_ROLLOUTS
        ),
        *(
            (name, "gauge", f"{text}. With a registry")
            for name, text in (
                registry_metrics.AGENT,
                *((name, text) for name, text, _ in registry_metrics.GAUGES),
            )
        ),
        (
            registry_metrics.VERSIONS[0],
            "gauge",
            f"{registry_metrics.VERSIONS[1]}. Label `model`. With a registry",
        ),
        *(
            (f"{name}_total", "counter", f"{text}. With a registry")
            for name, text, _ in registry_metrics.COUNTERS
        ),
        ("penstock_build_info", "gauge", "Always 1; label `version` is the server's"),
    ]
    return table(("metric", "type", "meaning"), [(f"`{n}`", kind, text) for n, kind, text in rows])


def _reasons() -> str:
    return ", ".join(f"`{reason.value}`" for reason in Refusal)


def _endings() -> str:
    return ", ".join(f"`{reason.value}`" for reason in Ending)


def benchmark_table(report: Mapping[str, Any]) -> str:
    """A row for each comparison of a report; those that were not measured have none of the figures."""
    measured = {(c["case"]["name"], c["baseline"]): c for c in report.get("comparisons", ())}
    wanted = [(case, "triton") for case in PEER_CASES]
    wanted += [(EMBEDDER_CASE, name) for name in BASELINES if name != "triton"]
    rows = []
    for case, baseline in wanted:
        found = measured.get((case.name, baseline), {})
        ratios = [_ratio(found.get(key)) for key in ("throughput", "median_latency", "server_cpu")]
        rows.append((_load(case), BASELINES[baseline], *ratios))
    heads = ("load", "against", "throughput", "median latency", "server CPU a request")
    return table(heads, rows)


def roles_table() -> str:
    """A row for each built-in role."""
    rows = [
        (
            f"`{name}`",
            ", ".join(f"`{verb.value}`" for verb in role.verbs),
            "all" if role.tenants == ("*",) else "its own",
        )
        for name, role in BUILT_IN.items()
    ]
    return table(("role", "may", "of tenants"), rows)


def rules_table() -> str:
    """A row for each verb, with all routes and RPCs that ask for it."""
    asked: dict[str, list[str]] = {}
    for route in every_route():
        verb = route.description.rule.verb
        name = f"`{route.method} {route.template}`"
        asked.setdefault("" if verb is None else verb.value, []).append(name)
    for path, rule in every_rpc().items():
        name = f"`{path.rpartition('.')[2] if 'inference' in path else path[1:]}`"
        asked.setdefault("" if rule.verb is None else rule.verb.value, []).append(name)
    verbs = ["", *(verb.value for verb in Verb if verb.value in asked)]
    rows = [(f"`{verb}`" if verb else "nothing", ", ".join(asked[verb])) for verb in verbs]
    return table(("asks for", "routes and RPCs"), rows)


def jwt_table() -> str:
    """A row for each setting of an issuer of tokens."""
    return _fields_table(JwtIssuer)


def capture_table() -> str:
    """A row for each setting of a rule of capture."""
    return _fields_table(CaptureRule)


def training_tables() -> str:
    """The tables of a training's configuration that docs/training.md is about, and their settings."""
    parts = []
    for name in (
        "run",
        "training",
        "optimizer",
        "schedule",
        "evaluation",
        "checkpoints",
        "progress",
    ):
        section = section_of(TrainConfig.model_fields[name])
        assert section is not None
        parts.append(f"`[{name}]`\n\n{_fields_table(section)}")
    return "\n\n".join(parts)


def _fields_table(section: type[Section]) -> str:
    rows = []
    for name, field in section.model_fields.items():
        default = "must be given"
        if not field.is_required():
            default = _default(field.get_default(call_default_factory=True))
        rows.append((f"`{name}`", default, " ".join((field.description or "").split())))
    return table(("setting", "default", "meaning"), rows)


GENERATED: Final[Sequence[tuple[Path, str, Callable[[], str]]]] = (
    (DOCS / "configuration.md", "settings", settings_table),
    (DOCS / "configuration.md", "refused", refused_flags),
    (DOCS / "protocol.md", "statuses", statuses_table),
    (DOCS / "protocol.md", "extensions", extensions_table),
    (DOCS / "metrics.md", "metrics", metrics_table),
    (DOCS / "access.md", "roles", roles_table),
    (DOCS / "access.md", "jwt", jwt_table),
    (DOCS / "access.md", "rules", rules_table),
    (DOCS / "capture.md", "capture", capture_table),
    (DOCS / "training.md", "training", training_tables),
    *((RESILIENCE, name, partial(part_of, RESILIENCE.parent / "plots", name)) for name in MAKERS),
)


def _flags(name: str) -> str:
    return ", ".join(f"`{flag}`" for flag in (flag_of(name), *ALIASES.get(name, ())))


def _values(field: FieldInfo, name: str) -> str:
    if field.annotation is bool:
        return "true, false"
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    form = metavar(name, field)
    return form.lower() if form.isalpha() else f"`{form}`"


def _default(value: object) -> str:
    match value:
        case None | () | "":
            return ""
        case tuple():
            return ", ".join(map(_default, value))
        case dict():
            return ", ".join(f"{key}={each}" for key, each in value.items())
        case bool():
            return str(value).lower()
        case ByteSize():
            return _size(value)
    return f"`{value}`" if isinstance(value, str) else str(value)


def _size(nbytes: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if nbytes % (1 << shift) == 0:
            return f"{nbytes >> shift}{unit}"
    return str(nbytes)


def _below(error: type[PenstockError]) -> Iterable[type[PenstockError]]:
    for each in error.__subclasses__():
        # others are private to one module
        if each.__module__ == PenstockError.__module__:
            yield each
            yield from _below(each)


def _load(case: Case) -> str:
    protocol = {"grpc": "gRPC", "http": "HTTP, binary"}[case.protocol]
    return f"{LOADS[case.model]}; {protocol}, {case.concurrency} at a time"


def _ratio(spread: Mapping[str, Any] | None) -> str:
    if not spread:
        return NOT_MEASURED
    return f"{spread['median']:.2f} ({spread['min']:.2f} - {spread['max']:.2f})"


def main(arguments: Sequence[str]) -> None:
    """Write all parts anew."""
    for path, name, make in GENERATED:
        path.write_text(fill(path.read_text(), name, make()))
    if arguments:
        report = json.loads(Path(arguments[0]).read_text())
        README.write_text(fill(README.read_text(), "benchmark", benchmark_table(report)))


if __name__ == "__main__":
    main(sys.argv[1:])

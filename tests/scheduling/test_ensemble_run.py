"""Any graph, any order of completions, any failure: each step runs once; no tensor is freed early, late or twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduling.ensemble_graph import Course, Graph, Step, stuck
from penstock.scheduling.ensemble_run import EnsembleRun

DIAMOND = Graph(
    [
        Step(("in",), ("a",)),
        Step(("a",), ("left", "spare")),
        Step(("a", "in"), ("right",)),
        Step(("left", "right"), ("out",)),
    ]
)


class Tensor:
    """One that came, and whether it is still valid."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.valid = True

    def free(self) -> None:
        """Nobody needs it."""
        assert self.valid, f"{self.name} is freed twice"
        self.valid = False


class Bench:
    """A run, and all its tensors."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.run = EnsembleRun[Tensor](course, Tensor.free)
        self.tensors: dict[str, Tensor] = {}
        self.under_way: list[int] = []
        self.ran: Counter[int] = Counter()

    def begin(self, *names: str, absent: Sequence[str] = ()) -> None:
        given_: dict[str, Tensor | None] = {name: self.new(name) for name in names}
        self.start(self.run.begin({**given_, **dict.fromkeys(absent)}))

    def over(self, at: int, leaves_out: Sequence[str] = ()) -> list[int]:
        """The step ends; what is due by that."""
        self.under_way.remove(at)
        held = self.run.inputs(at).values()
        assert all(tensor is None or tensor.valid for tensor in held)
        writes = self.course.steps[at].writes
        due = self.run.over(at, {w: self.new(w) for w in writes if w not in leaves_out})
        self.start(due)
        return due

    def start(self, due: Sequence[int]) -> None:
        self.ran.update(due)
        self.under_way += due

    def new(self, name: str) -> Tensor:
        assert name not in self.tensors, f"{name} is written twice"
        self.tensors[name] = Tensor(name)
        return self.tensors[name]

    @property
    def valid(self) -> set[str]:
        return {name for name, tensor in self.tensors.items() if tensor.valid}


def test_branches_run_at_the_same_time() -> None:
    bench = Bench(DIAMOND.course(["out"]))
    bench.begin("in")
    assert bench.under_way == [0]
    assert bench.over(0) == [1, 2]
    assert bench.valid == {"in", "a"}
    assert bench.over(2) == []
    assert bench.valid == {"a", "right"}
    assert bench.over(1) == [3]
    assert bench.valid == {"left", "right"}
    bench.over(3)
    assert bench.run.finished
    assert {name: t is not None for name, t in bench.run.outputs().items()} == {"out": True}
    assert bench.valid == {"out"}
    bench.run.end()
    assert not bench.valid


def test_only_what_is_needed_runs_and_is_written() -> None:
    course = DIAMOND.course(["left"])
    assert list(course.steps) == [0, 1]
    assert course.steps[1].writes == ("left",)
    assert DIAMOND.course(["spare", "out"]).steps[1].writes == ("left", "spare")


def test_what_is_given_and_not_needed_is_freed_at_once() -> None:
    bench = Bench(Graph([Step(("a",), ("x",)), Step(("b",), ("y",))]).course(["y"]))
    bench.begin("a", "b")
    assert (bench.under_way, bench.valid) == ([1], {"b"})


def test_absent_tensors_hold_nobody_up() -> None:
    bench = Bench(DIAMOND.course(["out"]))
    bench.begin(absent=["in"])
    bench.over(0, leaves_out=["a"])
    assert bench.under_way == [1, 2]
    assert bench.run.inputs(2) == {"a": None, "in": None}


def test_after_the_end_answers_are_freed() -> None:
    bench = Bench(DIAMOND.course(["out"]))
    bench.begin("in")
    bench.over(0)
    bench.run.end()
    assert not bench.valid and not bench.run.finished
    assert bench.run.over(1, {"left": bench.new("left")}) == []
    assert not bench.valid


def test_circles_are_found() -> None:
    steps = [Step(("in", "c"), ("a",)), Step(("a",), ("b",)), Step(("b",), ("c",))]
    assert stuck(steps, ["in"]) == [0, 1, 2]
    assert stuck([*steps[1:], Step(("in",), ("a",))], ["in"]) == []
    assert stuck([Step(("x",), ("x",))], ["in"]) == [0]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, list[str]]:
    """Steps that read what came before them; and the inputs."""
    inputs = [f"in{number}" for number in range(draw(st.integers(1, 3)))]
    known, steps = list(inputs), []
    for at in range(draw(st.integers(1, 6))):
        reads = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        writes = [f"t{at}.{number}" for number in range(draw(st.integers(1, 3)))]
        steps.append(Step(tuple(reads), tuple(writes)))
        known += writes
    return Graph(steps), inputs


@given(graphs(), st.data())
def test_any_graph_in_any_order(graph: tuple[Graph, list[str]], data: st.DataObject) -> None:
    steps, inputs = graph[0].steps, graph[1]
    writable = [tensor for step in steps for tensor in step.writes]
    wanted = data.draw(st.lists(st.sampled_from(writable), min_size=1, unique=True), "wanted")
    absent = data.draw(st.sets(st.sampled_from(inputs)), "absent")
    course = graph[0].course(wanted)
    bench = Bench(course)
    bench.begin(*[name for name in inputs if name not in absent], absent=sorted(absent))
    while bench.under_way:
        # whatever a step reads that is under way, is there and valid: `over` looks
        at = data.draw(st.sampled_from(bench.under_way), "next")
        if data.draw(st.integers(0, 9), "fails") == 0:
            break
        assert not bench.run.finished
        leaves_out = data.draw(st.sets(st.sampled_from(course.steps[at].writes)), "left out")
        bench.over(at, sorted(leaves_out))
        reading = {
            t for open_ in set(course.steps) - done(bench) for t in course.steps[open_].reads
        }
        assert bench.valid <= reading | set(wanted)
    else:
        assert bench.run.finished
        assert bench.ran == Counter(course.steps.keys())
        assert set(bench.run.outputs()) == set(wanted)
    assert max(bench.ran.values(), default=1) == 1
    bench.run.end()
    for at in bench.under_way:
        late = Tensor("late")
        assert bench.run.over(at, {course.steps[at].writes[0]: late}) == []
        assert not late.valid
    assert not bench.valid


def done(bench: Bench) -> set[int]:
    """Steps that have ended."""
    return set(bench.ran) - set(bench.under_way)

"""Loads a PyTorch model of each kind as a Program. Raises LoadFailed with what is wrong with the file."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils import _pytree as pytree

from penstock.backends import disk_cache
from penstock.backends.base import LoadSpec
from penstock.backends.torch_class import load_class
from penstock.backends.torch_files import Kind, TorchFile, check_compiled
from penstock.backends.torch_options import Options
from penstock.backends.torch_program import Part, Program, plain
from penstock.backends.torch_reasons import short_reason
from penstock.backends.torch_tensors import DATATYPES
from penstock.errors import LoadFailed

CHECK_INPUTS: Final = "AOTI_RUNTIME_CHECK_INPUTS"
"""Without it, AOTInductor's code takes whatever memory it is given for what it was compiled for."""
COMPILED_CODE: Final = "TORCHINDUCTOR_CACHE_DIR"
TEMPORARY: Final = "TMPDIR"
"""What torch's C++ code reads."""


def load_program(
    file: TorchFile, spec: LoadSpec, options: Options, device: torch.device
) -> Program:
    """The model, on the device."""
    try:
        return _LOADERS[file.kind](file.path, spec, options, device)
    except LoadFailed:
        raise
    except Exception as error:
        raise LoadFailed(
            f"torch {torch.__version__} can't load {file.path} as {file.kind.value}: {short_reason(error)}"
        ) from error


def _torchscript(path: Path, spec: LoadSpec, options: Options, device: torch.device) -> Program:
    _set_executor(options)
    with quiet():
        module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    module.eval()
    schema = module.forward.schema
    # the first is the module, whatever it is called
    arguments = schema.arguments[1:]
    types = [str(argument.type) for argument in arguments]
    if types == ["Dict[str, Tensor]"]:
        return Program(plain(module), (), takes_dict=True, module=module)
    inputs: list[Part] = []
    keyword = False
    for argument, kind in zip(arguments, types, strict=True):
        if kind in ("Tensor", "Optional[Tensor]"):
            keyword = keyword or argument.kwarg_only
            has_default = argument.has_default_value()
            inputs.append(Part(argument.name, optional=has_default, keyword=keyword))
            continue
        keyword = True
        if not argument.has_default_value():
            raise LoadFailed(
                f"{path}: forward needs {argument.name!r}, which is {kind}, expected Tensor, or one Dict[str, Tensor]"
            )
    returned = str(schema.returns[0].type) if schema.returns else "None"
    return Program(plain(module), inputs, _returned_parts(returned, path), module=module)


def _returned_parts(kind: str, path: Path) -> Sequence[Part] | None:
    """Of what TorchScript says it returns."""
    if kind == "Tensor":
        return (Part(),)
    if (match := re.fullmatch(r"Tuple\[(.*)\]", kind)) and set(match[1].split(", ")) == {"Tensor"}:
        return (Part(),) * len(match[1].split(", "))
    if "Tensor" in kind or kind == "Any":
        return None
    raise LoadFailed(f"{path}: forward returns {kind}, expected tensors")


def _exported(path: Path, spec: LoadSpec, options: Options, device: torch.device) -> Program:
    with quiet():
        # by an open file: it takes no path that does not end in .pt2
        with path.open("rb") as file:
            program = torch.export.load(file)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module()
    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    leaves = list(program.graph_signature.user_inputs)
    call_spec = program.call_spec
    signature = program.module_call_graph[0].signature
    # a graph has its inputs' names in small letters
    arguments = (signature.forward_arg_names if signature else None) or ()
    call, places = _of_tree(module, call_spec.in_spec, leaves, values, arguments)
    inputs = [_part(name, values.get(leaf)) for name, leaf in places]
    lower, upper = _row_range(program, [values.get(leaf) for _, leaf in places])
    return Program(
        call,
        inputs,
        _exported_outputs(program, call_spec.out_spec),
        # 2 may only be what torch.export takes for "more than one": its guards let 1 and 0 pass
        min_rows=lower if lower > 2 else 1,
        max_rows=upper,
        module=module,
    )


def _of_tree(
    function: Callable[..., Any],
    spec: Any,
    leaves: Sequence[Any],
    values: Mapping[str, Any],
    arguments: Sequence[str] = (),
) -> tuple[Any, list[tuple[str, Any]]]:
    """What calls a function of trees of tensors with a flat list of them, and each tensor's name and leaf.

    A leaf that is no tensor (a number that the example had) stays what it was.
    """
    args, kwargs = pytree.tree_unflatten(list(range(len(leaves))), spec)
    names: dict[int, str] = {}
    for index, arg in enumerate(args):
        if isinstance(arg, int) and index < len(arguments):
            names[arg] = arguments[index]
        else:
            _name_leaves(arg, leaves, names)
    for key, value in kwargs.items():
        if isinstance(value, int):
            names[value] = key
        else:
            _name_leaves(value, leaves, names)
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, str) and leaf in values]
    flat = list(args) == list(range(len(leaves))) and len(tensors) == len(leaves)
    if flat:
        return plain(function), [(names[i], leaves[i]) for i in tensors]

    def call(given: Sequence[Any], _: Mapping[str, Any]) -> Any:
        filled = list(leaves)
        for index, tensor in zip(tensors, given, strict=True):
            filled[index] = tensor
        args, kwargs = pytree.tree_unflatten(filled, spec)
        return function(*args, **kwargs)

    return call, [(names[i], leaves[i]) for i in tensors]


def _name_leaves(tree: Any, leaves: Sequence[Any], names: dict[int, str]) -> None:
    """A dict's tensors are called by its keys, others by their argument."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if isinstance(value, int):
                names[value] = str(key)
            else:
                _name_leaves(value, leaves, names)
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            _name_leaves(value, leaves, names)
    elif isinstance(tree, int):
        names[tree] = str(leaves[tree])


def _part(name: str, value: Any) -> Part:
    if not isinstance(value, torch.Tensor):
        return Part(name)
    if value.dtype not in DATATYPES:
        raise LoadFailed(
            f"{name or 'an output'!r} is {value.dtype}, which the protocol doesn't have"
        )
    return Part(name, f"TYPE_{DATATYPES[value.dtype]}", sizes_of(value))


def sizes_of(value: Any) -> tuple[int, ...]:
    """A shape of an exported program, -1 where any size is fine."""
    return tuple(size if isinstance(size, int) else -1 for size in value.shape)


def _exported_outputs(program: Any, spec: Any) -> Sequence[Part] | None:
    """None where they are neither one tensor, nor a tuple or dict of them."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    kept = len(program.graph_signature.user_outputs)
    leaves = list(output.args[0])[-kept:] if kept else []
    tree = pytree.tree_unflatten(leaves, spec)
    if isinstance(tree, Mapping):
        pairs = [(str(name), leaf) for name, leaf in tree.items()]
    else:
        parts = tree if isinstance(tree, (tuple, list)) else (tree,)
        pairs = [("", leaf) for leaf in parts]
    values = [(name, getattr(leaf, "meta", {}).get("val")) for name, leaf in pairs]
    if not values or any(not isinstance(value, torch.Tensor) for _, value in values):
        return None
    return [_part(name, value) for name, value in values]


def _row_range(program: Any, values: Sequence[Any]) -> tuple[int, int | None]:
    """How many rows a batch may have, by the constraints of the first dimensions."""
    lower, upper = 1, None
    for value in values:
        rows = value.shape[0] if isinstance(value, torch.Tensor) and value.ndim else None
        if rows is None or isinstance(rows, int):
            continue
        constraint = program.range_constraints.get(rows.node.expr)
        if constraint is None:
            continue
        # others are infinite
        if constraint.lower.is_Integer:
            lower = max(lower, int(constraint.lower))
        if constraint.upper.is_Integer:
            own = int(constraint.upper)
            upper = own if upper is None else min(upper, own)
    return lower, upper


def _compiled(path: Path, spec: LoadSpec, options: Options, device: torch.device) -> Program:
    check_compiled(path, device.type)
    os.environ.setdefault(CHECK_INPUTS, "1")
    # its own place for what it compiles to learn of the processor is one in /tmp that others could make first
    os.environ.setdefault(COMPILED_CODE, str(disk_cache.folder("torchinductor")))
    with quiet(), _place_to_unpack(spec, device):
        index = -1 if device.index is None else device.index
        model = torch._inductor.aoti_load_package(str(path), device_index=index)
    # what the model itself goes by when it is called
    in_spec, out_spec = map(pytree.treespec_loads, model.loader.get_call_spec())
    leaves = [f"\0{index}" for index in range(in_spec.num_leaves)]
    call, places = _of_tree(model, in_spec, leaves, dict.fromkeys(leaves))
    inputs = [Part("" if name.startswith("\0") else name) for name, _ in places]
    tree = pytree.tree_unflatten(list(range(out_spec.num_leaves)), out_spec)
    outputs: Sequence[Part] | None = [Part() for _ in range(out_spec.num_leaves)]
    if isinstance(tree, Mapping):
        outputs = [Part(str(name)) for name in tree]
    # what was exported for any number of rows was compiled for two and more
    return Program(call, inputs, outputs, min_rows=2, casts=False, strides=False)


@contextmanager
def _place_to_unpack(spec: LoadSpec, device: torch.device) -> Iterator[None]:
    """Where torch unpacks a package. What was decrypted stays in the memory where it lies, and goes with it.

    On the CPU nothing of it outlives the load, for the library is mapped by then and needs no name: torch itself would
    leave all of it there when the load fails, or its worker is killed later.
    """
    secret = disk_cache.holds_secrets(spec.model_dir)
    folder = str(spec.model_dir.parent.parent) if secret else tempfile.gettempdir()
    before = os.environ.get(TEMPORARY)
    with ExitStack() as stack:
        if device.type == "cpu":
            own = tempfile.TemporaryDirectory(
                prefix="penstock-torch-", dir=folder, ignore_cleanup_errors=True
            )
            folder = stack.enter_context(own)
        os.environ[TEMPORARY] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[TEMPORARY]
            else:
                os.environ[TEMPORARY] = before


def _weights(path: Path, spec: LoadSpec, options: Options, device: torch.device) -> Program:
    return load_class(path, spec, options.model_class, device)


def _set_executor(options: Options) -> None:
    """Of TorchScript, for the whole process, which is one instance's."""
    if not options.optimized_execution:
        torch._C._set_graph_executor_optimize(False)
    if options.jit_executor is not None:
        torch._C._jit_set_profiling_executor(options.jit_executor)
    if options.jit_profiling is not None:
        torch._C._jit_set_profiling_mode(options.jit_profiling)
    if options.tensor_fuser is not None:
        torch._C._jit_set_texpr_fuser_enabled(options.tensor_fuser)


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's own warnings that what it loads is of a kind that it would rather see replaced: whoever serves a
    model can't change that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        warnings.filterwarnings("ignore", r".*isinstance\(treespec", FutureWarning)
        yield


_LOADERS: Final[Mapping[Kind, Callable[[Path, LoadSpec, Options, torch.device], Program]]] = {
    Kind.TORCHSCRIPT: _torchscript,
    Kind.EXPORTED: _exported,
    Kind.COMPILED: _compiled,
    Kind.WEIGHTS: _weights,
}

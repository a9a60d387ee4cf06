"""The shared memory that clients have registered, and the requests whose tensors lie there."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Final

from penstock.errors import AlreadyExists, InvalidRequest, NotFound, Unavailable, Unsupported
from penstock.gateway.retarget import for_model
from penstock.repository.served_model import ServedModel
from penstock.tensors import count_bytes_elements, element_count
from penstock.types import DEFAULT_TENANT, Buffer, InferHeader, OutputTensor, RegionRef, TensorSpec
from penstock.workers.client_regions import Input, Region, RegionInput, no_such_key
from penstock.workers.copy_in import JOIN_BELOW_BYTES
from penstock.workers.request import Encode, PendingRequest

DISABLED: Final = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)
MAX_NAME_CHARACTERS: Final = 1024
MAX_REGIONS: Final = 4096
"""Each takes a descriptor, which connections need too."""
MAX_STRINGS: Final = 1 << 20
"""Elements of a BYTES input in a region: their lengths are checked on the event loop."""


class ClientMemory:
    """Registered regions by tenant and name. One a gateway, which forgets them when it ends.

    A tenant's regions are there for nobody else, and neither is the memory that they lie in. Where access is not
    controlled all is the default tenant's.
    """

    def __init__(self, *, allowed: bool) -> None:
        self.allowed: Final = allowed
        self._regions: dict[tuple[str, str], Region] = {}
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_regions = MAX_REGIONS if files < 0 else min(MAX_REGIONS, files // 4)

    def check_allowed(self) -> None:
        """Raises Unsupported when the server was started without the flag."""
        if not self.allowed:
            raise Unsupported(DISABLED)

    def register(
        self, name: str, key: str, offset: int, byte_size: int, tenant: str = DEFAULT_TENANT
    ) -> None:
        """Open a client's shared memory, to be named in requests from now on.

        Raises AlreadyExists, InvalidRequest, NotFound, Unavailable, Unsupported.
        """
        self.check_allowed()
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            raise InvalidRequest(
                f"'region name' is necessary to register system shared memory region: expected 1 to"
                f" {MAX_NAME_CHARACTERS} characters, got {len(name)}"
            )
        if (tenant, name) in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        if len(self._regions) >= self._max_regions:
            raise Unavailable(
                f"failed to register shared memory region '{name}': there are {self._max_regions}"
                " already, which is the limit"
            )
        region = Region(name, key, offset, byte_size)
        if any(
            owner != tenant and other.file == region.file
            for (owner, _), other in self._regions.items()
        ):
            raise no_such_key(key)
        self._regions[tenant, name] = region

    def unregister(self, name: str = "", tenant: str = DEFAULT_TENANT) -> None:
        """Forget a region, or all. Requests that were sent before can still use it. A name that is not known is fine.

        Raises Unsupported.
        """
        self.check_allowed()
        if name:
            self._regions.pop((tenant, name), None)
        else:
            for key in [key for key in self._regions if key[0] == tenant]:
                del self._regions[key]

    def status(self, name: str = "", tenant: str = DEFAULT_TENANT) -> Sequence[Region]:
        """A region, or all. Raises NotFound, Unsupported."""
        self.check_allowed()
        if not name:
            return [region for (owner, _), region in self._regions.items() if owner == tenant]
        region = self._regions.get((tenant, name))
        if region is None:
            raise NotFound(f"Unable to find system shared memory region: '{name}'")
        return [region]

    def attach(
        self,
        header: InferHeader,
        buffers: Sequence[Buffer],
        encode: Encode,
        *,
        at_once: bool,
        tenant: str = DEFAULT_TENANT,
    ) -> tuple[Sequence[Input], Encode]:
        """A request's buffers and encoder with the regions that its header names in their place.

        `buffers` has something, whatever, for each input that lies in a region. What is small is copied now, and so are
        strings, whose lengths must not change once they are checked; all else when the batch is made, or also now, if
        `at_once`.
        Raises InvalidRequest, NotFound, Unsupported.
        """
        inputs: list[Input] = [
            buffer
            if spec.region is None
            else self._input(spec, spec.region, tenant, at_once=at_once)
            for spec, buffer in zip(header.inputs, buffers, strict=True)
        ]
        targets = {
            o.name: self._find(o.region, tenant) for o in header.outputs if o.region is not None
        }
        return inputs, IntoRegions(encode, targets) if targets else encode

    def _input(self, spec: TensorSpec, ref: RegionRef, tenant: str, *, at_once: bool) -> Input:
        region, _ = self._find(ref, tenant)
        if spec.datatype == "BYTES":
            count = element_count(spec.shape)
            if count > MAX_STRINGS:
                raise InvalidRequest(
                    f"input '{spec.name}' has {count} strings in shared memory, {MAX_STRINGS} are"
                    " the limit: send them in the request"
                )
            data = region.read(ref)
            count_bytes_elements(data, count, spec.name)
            return data
        if at_once or ref.byte_size < JOIN_BELOW_BYTES:
            return region.read(ref)
        return RegionInput(region, ref)

    def _find(self, ref: RegionRef, tenant: str) -> tuple[Region, RegionRef]:
        self.check_allowed()
        region = self._regions.get((tenant, ref.name))
        if region is None:
            raise NotFound(f"Unable to find shared memory region: '{ref.name}'")
        region.check(ref)
        return region, ref


class Wrapped:
    """An `encode` round another one."""

    __slots__ = ("encode",)

    def __init__(self, encode: Encode) -> None:
        self.encode = encode

    def of(self, model: ServedModel) -> Wrapped:
        """As Retargetable."""
        self.encode = for_model(self.encode, model)
        return self

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As `Encode` says."""
        return self.encode(request, outputs)


class IntoRegions(Wrapped):
    """An `encode` that first writes outputs into the client's regions: for the response only their place is left."""

    __slots__ = ("_targets",)

    def __init__(self, encode: Encode, targets: Mapping[str, tuple[Region, RegionRef]]) -> None:
        super().__init__(encode)
        self._targets = targets

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """The response. Raises InvalidRequest where an output does not fit, and what `encode` raises."""
        return self.encode(request, [self._stored(output) for output in outputs])

    def _stored(self, output: OutputTensor) -> OutputTensor:
        target = self._targets.get(output.name)
        if target is None:
            return output
        region, ref = target
        nbytes = len(output.data)
        if nbytes > ref.byte_size:
            raise InvalidRequest(
                f"shared memory size specified with the request for output '{output.name}'"
                f" ({ref.byte_size} bytes) should be at least {nbytes} bytes to hold the results"
            )
        region.write(output.data, ref)
        place = RegionRef(ref.name, ref.offset, nbytes)
        return OutputTensor(output.name, output.datatype, output.shape, b"", place)


def unwrapped(encode: Encode) -> Encode:
    """The encoder that makes the response's bytes."""
    while isinstance(encode, Wrapped):
        encode = encode.encode
    return encode

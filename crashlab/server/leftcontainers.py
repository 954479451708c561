"""What have dead runs of this user left in the Docker engine, and how does it go?

Everything there that crashlab makes carries the label of the process that made it. An engine may be shared by several
machines, so only what this machine can know to be dead is touched.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crashlab.errors import ServerError
from crashlab.server import owned
from crashlab.server.deadruns import Run
from crashlab.server.engine import API_TIMEOUT_S, docker_errors, docker_problem
from crashlab.server.leftovers import Leftover, Problems, try_to_remove
from crashlab.server.owner import Owner

if TYPE_CHECKING:
    from docker import DockerClient

IN_FLIGHT_S = 5.0  # so long after a run's last word a container that it asked for may still come to be
REMOVAL_TIMEOUT_S = 20.0
POLL_S = 0.1
CONFLICT = 409


@dataclass(frozen=True)
class LeftInEngine(Leftover):
    """A container with its anonymous volumes, a volume, or a network."""

    client: "DockerClient"
    kind: str
    name: str
    owner: Owner
    volumes: tuple[str, ...] = ()

    def text(self) -> str:
        """See Leftover."""
        return self.name + "".join(f", with volume {volume[:12]}" for volume in self.volumes)

    def size_bytes(self) -> None:
        """See Leftover."""

    def remove(self) -> None:
        """See Leftover."""
        deadline = time.monotonic() + REMOVAL_TIMEOUT_S
        with docker_errors(f'could not remove the {self.kind} "{self.name}"'):
            # Another client may be removing it already: then the engine refuses, and it is gone soon.
            while not self._gone():
                if time.monotonic() > deadline:
                    raise ServerError(f'could not remove the {self.kind} "{self.name}" in {REMOVAL_TIMEOUT_S:g} s')
                time.sleep(POLL_S)

    def _gone(self) -> bool:
        from docker.errors import APIError, NotFound

        try:
            if self.kind == "container":
                self.client.api.remove_container(self.name, force=True, v=True)
            elif self.kind == "volume":
                self.client.api.remove_volume(self.name, force=True)
            else:
                self.client.api.remove_network(self.name)
        except NotFound:
            return True
        except APIError as error:
            if error.status_code != CONFLICT:
                raise
        return False


@contextmanager
def engine() -> Iterator["DockerClient"]:
    """Reach the Docker engine. Raises ServerError: there is none."""
    problem = docker_problem()
    if problem is not None:
        raise problem
    import docker

    client = docker.from_env(timeout=API_TIMEOUT_S)
    try:
        with docker_errors("could not ask the Docker engine what there is"):
            yield client
    finally:
        client.close()


def find_in_engine(client: "DockerClient") -> list[LeftInEngine]:
    """Return what dead runs of this user left, containers first, in the order of removal."""
    wanted = {"label": [owned.LABEL]}
    found = []
    for attributes in client.api.containers(all=True, filters=wanted):
        name = attributes["Names"][0].lstrip("/") if attributes["Names"] else attributes["Id"]
        mounts = [mount for mount in attributes.get("Mounts") or [] if mount.get("Type") == "volume"]
        found.append(("container", name, attributes, tuple(mount["Name"] for mount in mounts)))
    found += [("network", one["Id"], one, ()) for one in client.api.networks(filters=wanted)]
    found += [("volume", one["Name"], one, ()) for one in client.api.volumes(filters=wanted)["Volumes"] or []]
    left = []
    for kind, name, attributes, volumes in found:
        owner = _dead_owner(attributes)
        if owner is not None:
            left.append(LeftInEngine(client, kind, name, owner, volumes))
    return left


def _dead_owner(attributes: dict[str, Any]) -> Owner | None:
    owner = Owner.parse((attributes.get("Labels") or {}).get(owned.LABEL, ""))
    if owner is None or owner.uid != os.geteuid() or owner.life() != "dead":
        return None
    return owner


def remove_containers(run: Run, *, patient: bool) -> Problems:
    """Remove what a dead run left in the engine; see `leftovers.remove`."""
    asked_for = set(run.listed("container"))
    problems: Problems = []
    try:
        with engine() as client:
            while not problems:
                for one in find_in_engine(client):
                    if one.owner.same(run.owner):
                        problems += try_to_remove(one)
                        asked_for.discard(one.name)
                if not asked_for or run.age_s() > IN_FLIGHT_S:
                    break
                if not patient:
                    return [(name, "the Docker engine may still be making it") for name in sorted(asked_for)]
                time.sleep(POLL_S)
    except ServerError as error:
        problems += [(name, error.primary) for name in sorted(asked_for)]
    return problems

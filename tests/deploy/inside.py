"""What goes on inside a container, seen from the host."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from tests.deploy.stack import engine


def users(container: str) -> set[int]:
    """The user ids of its processes."""
    processes = engine("top", container, "-eo", "uid,pid").splitlines()[1:]
    return {int(line.split()[0]) for line in processes}


def written(container: str) -> list[str]:
    """What was changed in its root file system: `A /path`, without what the engine itself puts
    there, its init and the places of mounts."""
    mounts = json.loads(engine("inspect", "--format", "{{json .Mounts}}", container))
    places = [PurePosixPath("/usr/sbin/docker-init")]
    places += [PurePosixPath(mount["Destination"]) for mount in mounts]
    ours = {str(path) for place in places for path in (place, *place.parents)}
    changes = engine("diff", container).splitlines()
    return [line for line in changes if line.split(maxsplit=1)[1] not in ours]

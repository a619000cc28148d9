"""What the death of a replica looks like to those who wait for it, and how often they try again."""

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException, ReplicaUnavailableError

PAUSES = (0.3, 3)
"""Seconds between the attempts at a call whose replicas die; extraction changes nothing, so repeating it is safe.
An attempt waits by itself for a replica that starts. They are so few that a call that kills replicas kills three."""

_DEATHS = (
    RayActorError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)


def death(error: RayError | RayServeException) -> Exception:
    """The death of a replica, or of its node, behind what a call raised.

    Raises:
        Exception: what the replica itself raised, where it is alive.
    """
    cause: Exception = error.cause if isinstance(error, RayTaskError) else error
    # Where one replica died under another one that read its answer, Serve only chains its death.
    if not isinstance(cause, _DEATHS) and not isinstance(cause.__cause__, _DEATHS):
        raise cause
    return cause

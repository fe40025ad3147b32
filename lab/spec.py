"""What claims ask for: workers, and what else stands on their stage."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerSpec:
    """One worker beside supervisor.conf's own: another concurrency, pool, queues, paused until told, no heartbeat."""

    concurrency: int | None = None
    pool: str | None = None
    queues: str | None = None
    paused: bool = False
    heartbeat: bool = True
    program: str = "worker"


@dataclass(frozen=True)
class StageSpec:
    """What a claim needs. `fresh`: started for it alone. `server`: lines of redis.conf for a broker of its own.

    `mariadb`: options of `mariadbd` for a database of its own.
    """

    workers: tuple[WorkerSpec, ...] = (WorkerSpec(),)
    web: bool = False
    fresh: bool = False
    server: tuple[tuple[str, str], ...] | None = None
    mariadb: tuple[str, ...] | None = None

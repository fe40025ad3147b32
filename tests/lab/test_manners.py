"""The lab's manners: what it says when it can't start, and what it leaves behind."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.paths import ROOT
from lab.processes import wait_until
from tests.bed import PATIENCE, Bed, Outcome, slowness

CHAPTER = "first_task"


def _at_once(done: Outcome) -> None:
    """Demand that a machine with nothing else to do answers within ten seconds."""
    assert done.seconds / slowness() < 10


def test_an_unreachable_broker_is_one_sentence(bed: Bed) -> None:
    done = bed.run(CHAPTER, REDIS_URL="redis://127.0.0.1:1/0")
    assert done.code != 0
    assert "No broker answers at redis://127.0.0.1:1/0" in done.sentence
    _at_once(done)
    assert not bed.folders()


def test_a_wrong_password_is_one_sentence_that_does_not_repeat_it(bed: Bed, lent: str) -> None:
    wrong = f"redis://:not-the-password@{lent.rpartition('@')[2]}"
    done = bed.run(CHAPTER, "--broker", wrong)
    assert done.code != 0
    assert "refuses the password" in done.sentence
    assert "not-the-password" not in done.err + done.out
    _at_once(done)
    assert not bed.folders()


def test_a_missing_password_is_one_sentence(bed: Bed, lent: str) -> None:
    done = bed.run(CHAPTER, "--broker", f"redis://{lent.rpartition('@')[2]}")
    assert done.code != 0
    assert "password" in done.sentence


def test_a_database_that_holds_a_key_is_left_as_it_was(bed: Bed, lent: str, client: redis.Redis) -> None:
    client.set("somebody's", "data")
    done = bed.run(CHAPTER, REDIS_URL=lent)
    assert done.code != 0
    assert "holds 1 key and is left alone" in done.sentence
    _at_once(done)
    assert client.keys() == [b"somebody's"]
    assert client.get("somebody's") == b"data"


def test_a_lent_database_is_as_empty_as_it_was_found(bed: Bed, lent: str, client: redis.Redis) -> None:
    done = bed.run(CHAPTER, REDIS_URL=lent)
    assert done.code == 0, done.out + done.err
    assert client.keys() == []
    assert not bed.folders()


def test_a_key_that_somebody_else_writes_meanwhile_stays(bed: Bed, lent: str, client: redis.Redis) -> None:
    run = bed.start(CHAPTER, REDIS_URL=lent)
    wait_until(lambda: client.exists("celery-faq-lab"), PATIENCE, "the run's claim on the database")
    client.set("somebody's", "data")
    assert run.wait(PATIENCE) == 0, bed.told()
    assert client.keys() == [b"somebody's"]


def test_two_runs_do_not_share_a_lent_database(bed: Bed, lent: str, client: redis.Redis) -> None:
    first = bed.start(CHAPTER, REDIS_URL=lent)
    wait_until(lambda: client.exists("celery-faq-lab"), PATIENCE, "the run's claim on the database")
    second = bed.run(CHAPTER, REDIS_URL=lent)
    assert second.code != 0
    assert "left alone" in second.sentence
    assert first.wait(PATIENCE) == 0, bed.told()
    assert client.keys() == []


def test_a_redis_server_that_cannot_start_is_one_sentence(bed: Bed, tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho 'Fatal error, no such thing'\nexit 1\n")
    program.chmod(0o755)
    done = bed.run(CHAPTER, "--broker", "path", PATH=f"{tmp_path}:{bed.env['PATH']}")
    assert done.code != 0
    assert "did not start (Fatal error, no such thing)" in done.sentence
    assert "--broker embedded" in done.sentence
    _at_once(done)
    assert not bed.folders()


def test_a_missing_redis_server_is_one_sentence(bed: Bed) -> None:
    done = bed.run(CHAPTER, "--broker", "path", PATH="/nowhere")
    assert done.code != 0
    assert "no redis-server on PATH" in done.sentence


@pytest.mark.parametrize("word", ["chain", "examples/chains", "rabbits"])
def test_an_unknown_chapter_is_one_sentence_that_names_the_chapters(bed: Bed, word: str) -> None:
    done = bed.run(word)
    assert done.code != 0
    assert f"There is no chapter {word!r}" in done.sentence
    assert "first_task" in done.sentence
    _at_once(done)


def test_an_unknown_broker_is_one_sentence(bed: Bed) -> None:
    done = bed.run(CHAPTER, "--broker", "rabbit")
    assert done.code != 0
    assert "--broker rabbit is unknown" in done.sentence


def test_a_choice_of_claims_that_matches_none_is_a_failure(bed: Bed) -> None:
    done = bed.run(CHAPTER, "-k", "no_such_claim")
    assert done.code != 0
    assert "no claim" in done.sentence


def _started(bed: Bed, *argv: str) -> tuple["subprocess.Popen[bytes]", list[psutil.Process]]:
    run = bed.start(*argv)
    # The guard and two workers; three workers where the broker is not ours.
    wait_until(lambda: len(bed.registered()) >= 4 - ("--broker" in argv), PATIENCE, "the start of all")
    return run, bed.registered()


def _gone(bed: Bed, processes: list[psutil.Process]) -> None:
    def alive() -> list[psutil.Process]:
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    wait_until(lambda: not alive() and not bed.registered(), PATIENCE, "the end of every process")
    wait_until(lambda: not bed.folders(), PATIENCE, "the removal of the run's folder")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(bed: Bed, sign: signal.Signals) -> None:
    run, processes = _started(bed)
    processes += psutil.Process(run.pid).children(recursive=True)
    run.send_signal(sign)
    run.wait(PATIENCE)
    _gone(bed, processes)


def test_a_run_on_a_lent_database_that_is_killed_leaves_it_empty(bed: Bed, lent: str, client: redis.Redis) -> None:
    run, processes = _started(bed, "--broker", lent)
    assert client.dbsize()
    run.kill()
    run.wait(PATIENCE)
    _gone(bed, processes)
    assert client.keys() == []


def test_a_run_whose_parent_is_killed_leaves_nothing(bed: Bed) -> None:
    code = (
        "import subprocess, sys, os; os.environ['LAB_PARENT'] = str(os.getpid()); "
        "subprocess.run([sys.executable, '-m', 'lab'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=bed.env, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(bed.registered()) >= 3, PATIENCE, "the start of broker, guard and worker")
    processes = [*bed.registered(), *psutil.Process(parent.pid).children(recursive=True)]
    parent.kill()
    parent.wait(PATIENCE)
    _gone(bed, processes)


def test_two_runs_at_the_same_time_are_both_green(bed: Bed) -> None:
    runs = [bed.start(CHAPTER, "--broker", "embedded") for _ in range(2)]
    assert [run.wait(PATIENCE) for run in runs] == [0, 0], bed.told()
    assert not bed.folders()


def test_the_broker_listens_on_loopback_only_and_keeps_its_password_to_itself(bed: Bed) -> None:
    run = bed.start(CHAPTER, "--broker", "embedded")

    def servers() -> list[psutil.Process]:
        return [process for process in bed.registered() if "valkey-server" in process.name()]

    def listening() -> set[tuple[str, int]]:
        return {c.laddr for server in servers() for c in server.net_connections() if c.status == psutil.CONN_LISTEN}

    wait_until(listening, PATIENCE, "the start of the broker")
    ((ip, port),) = listening()
    assert ip == "127.0.0.1"
    (shown,) = [" ".join(server.cmdline()) for server in servers()]
    assert shown.endswith((f"valkey-server 127.0.0.1:{port}", "valkey-server -"))
    with pytest.raises(redis.AuthenticationError):
        # A retry would outlast the run.
        redis.Redis(ip, port, retry=Retry(NoBackoff(), 0)).ping()
    assert run.wait(PATIENCE) == 0, bed.told()

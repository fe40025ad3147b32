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
from lab.processes import lives
from lab.waiting import wait_until
from tests.bed import PATIENCE, Bed

_INTERRUPTED = """
import os, signal, sys
from lab import errors
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
def main(_):
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
    print(errors.interrupted.is_set())
    return 0
sys.exit(errors.told(main))
"""
_ORPHAN = """
import os, signal, sys
from pathlib import Path
from lab.guard import Guard

guard, parent = Guard(Path(sys.argv[1])), os.getpid()
if os.fork():
    os.kill(parent, signal.SIGKILL)
while os.getppid() == parent:
    pass
guard.part(parent)
Path(sys.argv[2]).touch()
"""
CHAPTER = "first_task"


@pytest.mark.parametrize(
    ("argv", "env", "words"),
    [
        ([], {"REDIS_URL": "redis://127.0.0.1:1/0"}, "No broker answers at redis://127.0.0.1:1/0"),
        (["--broker", "path"], {"PATH": "/nowhere"}, "no redis-server on PATH"),
        (["--broker", "rabbit"], {}, "--broker rabbit is unknown"),
        (["chain"], {}, "There is no chapter 'chain'"),
    ],
)
def test_what_can_not_be_had_is_one_sentence(bed: Bed, argv: list[str], env: dict[str, str], words: str) -> None:
    bed.refused(CHAPTER, *argv, words=words, **env)


def test_a_wrong_password_is_one_sentence_that_does_not_repeat_it(bed: Bed, lent: str) -> None:
    wrong = f"redis://:not-the-password@{lent.rpartition('@')[2]}"
    done = bed.refused(CHAPTER, "--broker", wrong, words="refuses the password")
    assert "not-the-password" not in done.err + done.out


def test_a_missing_password_is_one_sentence(bed: Bed, lent: str) -> None:
    bed.refused(CHAPTER, "--broker", f"redis://{lent.rpartition('@')[2]}", words="password")


def test_a_database_that_holds_a_key_is_left_as_it_was(bed: Bed, lent: str, client: redis.Redis) -> None:
    client.set("somebody's", "data")
    bed.refused(CHAPTER, REDIS_URL=lent, words="holds 1 key and is left alone")
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
    path = f"{tmp_path}:{bed.env['PATH']}"
    done = bed.refused(CHAPTER, "--broker", "path", words="did not start (Fatal error, no such thing)", PATH=path)
    assert "--broker embedded" in done.sentence


def test_a_choice_of_claims_that_matches_none_is_a_failure(bed: Bed) -> None:
    done = bed.run(CHAPTER, "-k", "no_such_claim")
    assert done.code != 0
    assert "no claim" in done.sentence


def ends_with_all(bed: Bed, run: "subprocess.Popen[bytes]", sign: signal.Signals, least: int) -> None:
    """Wait until `least` processes are registered, end the run, and demand that nothing of it is left."""
    wait_until(lambda: len(bed.registered()) >= least, PATIENCE, "the start of all")
    processes = [*bed.registered(), *psutil.Process(run.pid).children(recursive=True)]
    run.send_signal(sign)
    run.wait(PATIENCE)
    wait_until(lambda: not any(map(lives, processes)) and not bed.registered(), PATIENCE, "the end of every process")
    wait_until(lambda: not bed.folders(), PATIENCE, "the removal of the run's folder")


def test_a_fork_whose_parent_is_killed_before_it_parts_goes_no_further(bed: Bed) -> None:
    folder, further = bed.tmp / "run", bed.tmp / "further"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", _ORPHAN, str(folder), str(further)], cwd=bed.root, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not folder.exists() and not bed.registered(), PATIENCE, "the end of guard and fork")
    assert not further.exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(bed: Bed, sign: signal.Signals) -> None:
    ends_with_all(bed, bed.start(), sign, least=4)
    assert "Traceback" not in bed.told()


def test_ctrl_c_in_the_middle_of_a_fork_is_no_traceback_and_is_known_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_run_on_a_lent_database_that_is_killed_leaves_it_empty(bed: Bed, lent: str, client: redis.Redis) -> None:
    run = bed.start("--broker", lent)
    wait_until(client.dbsize, PATIENCE, "a key in the database")
    ends_with_all(bed, run, signal.SIGKILL, least=3)
    assert client.keys() == []


def test_a_run_whose_parent_is_killed_leaves_nothing(bed: Bed) -> None:
    code = (
        "import subprocess, sys, os; os.environ['LAB_PARENT'] = str(os.getpid()); "
        "subprocess.run([sys.executable, '-m', 'lab'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=bed.env, stdout=subprocess.DEVNULL)
    ends_with_all(bed, parent, signal.SIGKILL, least=3)


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

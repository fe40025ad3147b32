"""What is said about thousands of tasks: what they weigh, what they keep waiting, what they make of a worker."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from configparser import ConfigParser
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

import psutil
import pytest
from celery import current_app
from celery.signals import task_postrun
from celery.utils.time import rate
from django.db.models.signals import post_init
from django.dispatch import receiver
from django.utils import timezone
from supervisor.childutils import getRPCInterface

from thousands import tasks
from thousands.models import Member

UPDATE = "thousands.tasks.update_member"
STALEST = "thousands.tasks.update_stalest"
CHAIN = "thousands.tasks.update_in_a_chain"
MEMBERS = "thousands.tasks.update_members"
SLOWLY = "thousands.tasks.update_member_slowly"
TRICKLE = "thousands.tasks.trickle"
REPORT = "thousands.tasks.report_one_by_one"
RANK = "thousands.tasks.rank_members"
CHUNK = "celery.starmap"
WATCHED = ("worker", "worker_services", "gunicorn")
ENTRY = "thousands_update_stalest"
PRIORITY_7 = "celery\x06\x167"
FIRST = 90000001
COUNT = 500
MANY = 20_000
# Of a calculation that lasts some fifth of a second.
ROUNDS = 2_000_000
WAYS = {
    "a task each, in a loop": tasks.update_in_a_loop,
    "links of a chain": tasks.update_in_a_chain,
    "chunks of fifty": tasks.update_in_chunks,
    "one task for all": lambda ids: tasks.update_members.apply_async(args=[ids], priority=7),
    "a trickle": lambda ids: tasks.trickle(ids, 7.2),
    "a twelfth each run": lambda _: tasks.update_stalest(),
}
# A worker asked for one pool gets the other.
# A worker that sends each task on once more.
TWICE = """
from celery.signals import task_postrun

SENT = set()


@task_postrun.connect
def again(task, task_id, args, **_):
    if task_id not in SENT:
        SENT.add(task_id)
        task.apply_async(args=args, task_id=task_id)
"""
POOLS = "from celery.concurrency import ALIASES\n\nALIASES['{}'] = ALIASES['{}']\n"
LOGGER = "logger = get_extension_logger(__name__)\n"


def make_members(count, first=FIRST):
    """Make members and return their ids."""
    ids = list(range(first, first + count))
    Member.objects.bulk_create(Member(character_id=one) for one in ids)
    return ids


def messages(rig):
    """Take every message that waits, the first sent first."""
    found = [raw for key in rig.waiting() for raw in reversed(rig.redis.lrange(key, 0, -1))]
    if keys := rig.waiting():
        rig.redis.delete(*keys)
    return found


def body(message):
    """Return the arguments in a message: the list and the dictionary."""
    return json.loads(base64.b64decode(json.loads(message)["body"]))[:2]


def time_in(message, header):
    return datetime.fromisoformat(json.loads(message)["headers"][header])


def asked(rig):
    """Let a run ask, and return for whom."""
    tasks.update_stalest()
    return [body(message)[0][0] for message in messages(rig)]


def updated(rig):
    """Return how often the tasks have told of each member."""
    found = [re.fullmatch(r"INFO Updated member (\d+)", line) for line in rig.logged()]
    return Counter(int(line[1]) for line in found if line)


def once(ids):
    return dict.fromkeys(ids, 1)


def noted():
    return Path(os.environ["LAB_DATABASE"]).with_name("noted")


def note(number):
    with noted().open("a") as file:
        file.write(f"{os.getpid()} {number}\n")


@task_postrun.connect(weak=False)
def note_process(**_):
    """Note in which process a task ran; every worker inherits this by its fork."""
    if noted().exists():
        note(0)


@receiver(post_init, sender=Member)
def note_size(instance, **_):
    """Note the memory of the process that has read the last of many rows."""
    if instance.pk == FIRST + MANY - 1 and noted().exists():
        note(size_of(os.getpid()))


def size_of(pid):
    """Return the bytes that a process has to itself."""
    return psutil.Process(pid).memory_full_info().uss


@pytest.fixture
def notes(rig):
    """Wait until there are so many notes of other processes, and return them: the process, and a size or 0."""

    def read(count):
        def found():
            lines = [tuple(map(int, line.split())) for line in noted().read_text().splitlines()]
            return [line for line in lines if line[0] != os.getpid()]

        return rig.wait(lambda: len(found()) >= count and found(), f"note {count}")

    noted().write_text("")
    yield read
    noted().unlink()


# ---- with Auth's worker: what an urgent task waits behind


@pytest.mark.broken_by(r"updated", file="models.py", old="ceil(cls.objects.count() / parts)", new="1")
def test_a_run_updates_the_stalest_twelfth(rig):
    """One run updates the twelfth of the members that nobody has asked for yet, and the next run the next twelfth."""
    rig.settle(after="demo.py")
    rig.same(Member.objects.exclude(updated_at=None).count(), 2, "{} updated in the database")
    rig.settle(after="demo.py")
    rig.same(updated(rig), once(range(FIRST, FIRST + 4)), "updated {}")
    rig.same(len(rig.runs(STALEST)), 2, "{} runs on the worker")


@pytest.mark.broken_by(r"updated", file="tasks.py", old="update(asked_at=timezone.now())", new="count()")
def test_twelve_runs_update_every_member_once(rig):
    """Twelve runs, each with a worker that does what it sends, update each of 24 members once."""
    ids = make_members(24)
    for _ in range(12):
        tasks.update_stalest.delay()
        rig.settle()
    rig.same(updated(rig), once(ids), "updated {}")


def ahead(rig, name, sent):
    """Send by `sent` what is held, then an urgent task; return how many called `name` the worker took before that."""
    earlier = {run.id for run in rig.runs(name)}
    with rig.hold(name):
        sent()
        rig.started(name, len(earlier) + 5)
        rig.wait(lambda: rig.redis.hlen("unacked") == 5, "the receipt of all that a worker holds")
        urgent = tasks.update_members.apply_async(args=[[1]], priority=0)
    rig.settle(timeout=30)
    runs = {run.id: run for run in rig.runs()}
    those = [run for run in runs.values() if run.name == name and run.id not in earlier]
    return sum(run.received < runs[urgent.id].received for run in those)


@pytest.mark.broken_by(r"behind", file="tasks.py", old="size=50", new="size=20")
def test_behind_chunks_an_urgent_task_waits_for_fifty_times_as_many_members(rig):
    """Behind a loop, a twelfth or chunks an urgent task waits for ten messages, with Auth's worker.

    These are ten members with a task each, and 500 in chunks of fifty.
    """
    ids = make_members(COUNT)
    loop = ahead(rig, UPDATE, lambda: tasks.update_in_a_loop.delay(ids[:20]))
    twelfth = ahead(rig, UPDATE, tasks.update_stalest.delay)
    chunks = ahead(rig, CHUNK, lambda: tasks.update_in_chunks.delay(ids))
    members = updated(rig)
    rig.same([loop, twelfth, chunks], [10, 10, 10], "behind {} messages")
    rig.same(sorted(Counter(members.values()).items()), [(1, 458), (2, 22), (3, 21)], "updated {}")
    rig.same(len(rig.runs(CHUNK)), 10, "behind {} chunks")


IN_LINE = {"file": "tasks.py", "old": "chain(update_member.si(one).set(priority=7) for one in ids).delay()"}


@pytest.mark.broken_by(
    r"the end of 1 x", new="[update_member.apply_async((one,), priority=0) for one in ids]", **IN_LINE
)
def test_beside_a_chain_a_trickle_and_one_task_for_all_an_urgent_task_runs(rig):
    """While a link of a chain, a step of a trickle or one task for 500 members runs, an urgent task runs beside it."""
    ids = make_members(COUNT)
    with rig.hold(UPDATE):
        tasks.update_in_a_chain.delay(ids[:20])
        rig.finished(CHAIN)
        rig.started(UPDATE)
        tasks.report_one_by_one.apply_async(priority=0)
        rig.finished(REPORT, timeout=5)
    with rig.hold(TRICKLE):
        tasks.trickle.delay(ids[:20], 0)
        rig.started(TRICKLE)
        tasks.report_one_by_one.apply_async(priority=0)
        rig.finished(REPORT, 2, timeout=5)
    with rig.hold(MEMBERS):
        tasks.update_members.delay(ids)
        rig.started(MEMBERS)
        tasks.report_one_by_one.apply_async(priority=0)
        rig.finished(REPORT, 3, timeout=5)
    rig.settle(timeout=30)
    rig.same(updated(rig), {**once(ids), **dict.fromkeys(ids[:20], 3)}, "updated {}")


def traffic(rig, way, ids):
    """Return the bytes of all messages that `way` and its worker send until all is done."""
    number = rig.redis.get_connection_kwargs()["db"]
    total = 0
    with rig.redis.monitor() as monitor:
        way(ids)
        rig.settle(timeout=30)
        rig.redis.echo("all are sent")
        # The server tells of other runs' databases, too.
        mine = (told["command"] for told in monitor.listen() if told["db"] == number)
        for command in takewhile(lambda command: "all are sent" not in command, mine):
            if command.startswith("LPUSH celery"):
                total += len(command.partition("{")[2])
    return total


@pytest.mark.broken_by(r"times the bytes", new="update_in_a_loop(ids)", **IN_LINE)
def test_a_hundred_links_move_more_than_ten_times_the_bytes_of_a_hundred_tasks(rig):
    """Until all are done, the messages of a chain of 100 links weigh more than ten times those of 100 tasks."""
    ids = make_members(100)
    loop, links = traffic(rig, tasks.update_in_a_loop, ids), traffic(rig, tasks.update_in_a_chain, ids)
    assert links > 10 * loop, f"{links / loop:.1f} times the bytes"
    rig.same(updated(rig), dict.fromkeys(ids, 2), "updated {}")


@pytest.mark.broken_by(r"started", conf={"worker_disable_rate_limits": True})
def test_a_limit_of_83_a_minute_lets_nearly_5000_an_hour_start(rig):
    """A limit of `83/m` lets one task start every 0.72 s, 4,980 an hour, on each worker."""
    rig.send(tasks.update_member_slowly, 2, FIRST)
    rig.settle()
    first, second = rig.runs(SLOWLY)
    # A start may be told of late, and the receipt is never later than the first start.
    assert second.started - first.received > 0.7, f"started {second.started - first.received} s later"
    rig.same(round(rate(tasks.update_member_slowly.rate_limit) * 3600), 4980, "{} an hour")
    rig.same(updated(rig), once([FIRST, FIRST + 1]), "updated {}")


@pytest.mark.broken_by(r"larger", file="tasks.py", old="Member.objects.iterator())", new="list(Member.objects.all()))")
@pytest.mark.fresh
@pytest.mark.workers({"concurrency": 1})
def test_a_list_of_all_rows_makes_the_worker_grow_and_an_iterator_does_not(rig, notes):
    """With 20,000 rows `iterator()` lets a warm worker of one thread grow by less than a third of what a list does."""
    Member.objects.filter(pk=make_members(MANY)[0]).update(updated_at=timezone.now())
    sizes = []
    # One process runs all of them. What it loads with its first task is none of it.
    for task in (tasks.report_one_by_one, tasks.report_one_by_one, tasks.report_in_a_list):
        task.delay()
        sizes = [size for _, size in notes(2 * len(sizes) + 2) if size]
    rig.settle()
    one, listed = sizes[1] - sizes[0], sizes[2] - sizes[0]
    assert one < listed / 3, f"larger by {one} bytes and {listed}"
    rig.same(rig.logged(), ["INFO 19999 members were never updated"] * 3, "logged {}")


# ---- without a worker: what is sent


@pytest.mark.workers
@pytest.mark.broken_by(r"asked for", file="tasks.py", old="update(asked_at=timezone.now())", new="count()")
def test_nobody_is_asked_for_again_before_all_others_were(rig):
    """Twelve runs ask for each of 65 members, and for nobody again before all others were asked for."""
    ids = make_members(65)
    turns = [one for _ in range(12) for one in asked(rig)]
    rig.same(turns, ids + ids[:7], "asked for {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"asked for", file="models.py", old='F("asked_at").asc(nulls_first=True), ', new="")
def test_who_joins_comes_first_and_who_leaves_costs_no_turn(rig):
    """Once all were asked for, who joins is asked for in the next run, and who leaves costs no other a turn."""
    ids = make_members(24)
    for _ in range(12):
        asked(rig)
    (new,) = make_members(1, FIRST + 100)
    joined = asked(rig)
    Member.objects.filter(pk__in=ids[2:12]).delete()
    left = [one for _ in range(6) for one in asked(rig)]
    rig.same([joined, left], [[new, *ids[:2]], ids[12:]], "asked for {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"asked for", file="tasks.py", old="update(asked_at=timezone.now())", new="delete()")
def test_what_was_lost_is_asked_for_again_in_the_next_round(rig):
    """Where a message is lost, its member is asked for again in the next round."""
    ids = make_members(24)
    rounds = [[one for _ in range(12) for one in asked(rig)] for _ in range(2)]
    rig.same(rounds, [ids, ids], "asked for {}")


@pytest.mark.workers
@pytest.mark.broken_by(r"runs an hour", file="local.py", old="*/5", new="*/10")
def test_the_entry_runs_twelve_times_an_hour(rig):
    """The entry starts the task twelve times an hour, so that a twelfth each run is all of them each hour."""
    entry = current_app.conf.beat_schedule[ENTRY]
    rig.same(len(entry["schedule"].minute), 12, "{} runs an hour")
    assert entry["apply_offset"], "every installation runs in the same minutes"
    make_members(24)
    began = timezone.now()
    current_app.tasks[entry["task"]]()
    found = messages(rig)
    rig.same(len(found), 24 // 12, "{} asked for in a run")
    for message in found:
        kept = time_in(message, "expires") - timedelta(hours=1)
        assert began < kept < timezone.now(), f"a message of {began} expires at {time_in(message, 'expires')}"


@pytest.mark.workers
@pytest.mark.broken_by(r"the messages", file="tasks.py", old="size=50", new="size=25")
def test_what_is_sent_for_500_members(rig):
    """For 500 members a loop sends 500 messages, chunks of fifty send ten, and a chain, one task or a trickle one.

    A run for the stalest twelfth sends 42. To send 500 takes more than twenty times the work of sending one.
    """
    ids, started = make_members(COUNT), timezone.now()
    rows, counts, weights, work, lists, sent = [], {}, {}, {}, set(), {}
    for name, way in WAYS.items():
        began, worked = time.perf_counter(), time.process_time()
        way(ids)
        took, work[name] = time.perf_counter() - began, time.process_time() - worked
        lists |= set(rig.waiting())
        sent[name] = found = messages(rig)
        counts[name], weights[name] = len(found), sum(map(len, found))
        noun = "message" if counts[name] == 1 else "messages"
        rows.append((f"{name}: {counts[name]} {noun}, {weights[name] / 1000:.0f} KB", "", 0, took))
    rig.same(list(counts.values()), [500, 1, 10, 1, 1, 42], "the messages are {}")
    loop, bulk, links = "a task each, in a loop", "one task for all", "links of a chain"
    assert work[loop] > 20 * work[bulk], f"the work is {work}"
    assert weights[loop] > 50 * weights[bulk], f"the bytes are {weights}"
    assert weights[loop] > 2 * weights[links], f"the bytes are {weights}"
    rig.same(lists, {PRIORITY_7}, "they wait in {}")
    rig.same({len(body(chunk)[1]["it"]) for chunk in sent["chunks of fifty"]}, {50}, "members of a chunk: {}")
    (step,) = sent["a trickle"]
    assert time_in(step, "eta") > started + timedelta(seconds=7.2), f"the next step is due at {time_in(step, 'eta')}"
    values = {"count": COUNT, "time": f"{rows[0][3] / rows[3][3]:.0f}", "bytes": f"{weights[loop] / weights[bulk]:.0f}"}
    rig.chart("sending", "timeline", rows, values)


# ---- with workers of their own


@pytest.mark.workers({"paused": True})
@pytest.mark.broken_by(r"updated", file="tasks.py", old=", expires=seconds", new="")
def test_what_waited_for_longer_than_a_round_is_thrown_away(rig):
    """After an outage of three rounds each of 24 members is updated once: what has expired is thrown away."""
    ids = make_members(24)
    for seconds in (0.01, 0.01, 3600):
        for _ in range(12):
            tasks.update_stalest(seconds=seconds)
    rig.resume()
    rig.settle()
    rig.same(updated(rig), once(ids), "updated {}")


@pytest.mark.workers({"paused": True}, {"paused": True}, {"paused": True}, {"paused": True})
@pytest.mark.broken_by(r"started \[.*2", file="tasks.py", old=LOGGER, new=LOGGER + TWICE)
def test_over_ten_priorities_and_four_workers_nothing_is_lost_or_doubled(rig):
    """Of 500 tasks over the ten priorities each starts once, sent to one, two and four workers of Auth's."""
    sent = []
    for workers, count in (((0,), 100), ((1,), 150), ((2, 3), 250)):
        for number in workers:
            rig.resume(number)
        for one in range(count):
            sent.append(tasks.update_member.apply_async(args=[one], priority=one % 10).id)
        rig.settle(timeout=30)
    starts = Counter(event["uuid"] for event in rig.events if event["type"] == "task-started")
    rig.same([starts[one] for one in sent], [1] * COUNT, "started {} times")
    rig.same(len({run.worker for run in rig.runs()}), 4, "{} workers took part")


def processes(rig, notes, pool, count=20):
    """Run tasks on a worker with this pool; return the processes in which they ran, and the worker."""
    worker = rig.start_worker(pool=pool, concurrency=2)
    rig.send(tasks.update_member, count, FIRST)
    rig.settle(timeout=60)
    rig.same(updated(rig), once(range(FIRST, FIRST + count)), "updated {}")
    return {pid for pid, _ in notes(count)}, worker


LIMITS = ("worker_max_tasks_per_child", "worker_max_memory_per_child")


@pytest.mark.workers
@pytest.mark.broken_by(r"processes", file="tasks.py", old=LOGGER, new=LOGGER + POOLS.format("threads", "prefork"))
def test_with_threads_the_limits_of_a_child_are_ignored(rig, notes, monkeypatch):
    """With the pool `threads` a worker ignores both limits of a child: 20 tasks run in one process, which lives on."""
    for name in LIMITS:
        monkeypatch.setitem(current_app.conf, name, 1)
    found, worker = processes(rig, notes, "threads")
    rig.same(found, {worker.pid}, "ran in the processes {}")
    assert worker.alive


@pytest.mark.workers
@pytest.mark.broken_by(r"processes", file="tasks.py", old=LOGGER, new=LOGGER + POOLS.format("prefork", "threads"))
def test_with_prefork_a_child_is_replaced_after_as_many_tasks(rig, notes, monkeypatch):
    """With the pool `prefork` and `worker_max_tasks_per_child` of 5, 20 tasks run in four processes or more."""
    monkeypatch.setitem(current_app.conf, "worker_max_tasks_per_child", 5)
    found, worker = processes(rig, notes, "prefork")
    assert len(found) >= 4, f"ran in {len(found)} processes"
    assert worker.pid not in found


@pytest.mark.workers
@pytest.mark.broken_by(r"processes", file="tasks.py", old=LOGGER, new=LOGGER + POOLS.format("prefork", "threads"))
def test_with_prefork_a_child_is_replaced_when_it_is_too_large(rig, notes, monkeypatch):
    """With `prefork`, a child larger than `worker_max_memory_per_child` is replaced after its task."""
    monkeypatch.setitem(current_app.conf, "worker_max_memory_per_child", 1)
    found, _ = processes(rig, notes, "prefork", 4)
    rig.same(len(found), 4, "ran in {} processes")


@pytest.mark.workers({"concurrency": 10})
@pytest.mark.broken_by(r"\d+ are held", conf={"worker_prefetch_multiplier": 2})
def test_ten_threads_wait_for_ten_answers_at_once_and_hold_ten_more(rig):
    """With ten threads instead of Auth's five, ten tasks wait for the network at once, and ten more are held."""
    with rig.hold(UPDATE):
        rig.send(tasks.update_member, 30, FIRST)
        rig.started(UPDATE, 10)
        rig.wait(lambda: rig.redis.hlen("unacked") >= 10, "the receipt of ten more")
        # If it wants more, it takes them before it answers the last of these.
        for _ in range(3):
            assert current_app.control.ping(timeout=5, limit=1)
        rig.same(rig.redis.hlen("unacked"), 10, "{} are held")
    rig.settle()
    rig.same(updated(rig), once(range(FIRST, FIRST + 30)), "updated {}")


@pytest.mark.broken_by(
    r"times the work",
    file="tasks.py",
    old="return sum(number * number for number in range(rounds))",
    new="""if vars(logger).setdefault("busy", []):
        return 0
    logger.busy.append(1)
    total = sum(number * number for number in range(rounds))
    logger.busy.clear()
    return total""",
)
def test_five_threads_calculate_no_faster_than_one(rig):
    """Five tasks that calculate in Python last more than three times the work of one, although on five threads."""
    worker = psutil.Process(rig.workers[0].pid)

    def work(of):
        """Return the seconds of work that `of` tasks at once are: not their time, which a busy machine makes longer."""
        before = sum(worker.cpu_times()[:2])
        for _ in range(of):
            tasks.rank_members.delay(ROUNDS)
        rig.settle(timeout=60)
        return sum(worker.cpu_times()[:2]) - before

    # The first of all includes what a worker does but once; a processor is not as fast at all times.
    work(1)
    alone = work(1)
    of_five = work(5)
    one = (alone + work(1)) / 2
    five = rig.runs(RANK)[2:7]
    began, ended = min(run.started for run in five), max(run.ended for run in five)
    assert one > 0.02, f"one takes {one} s of work"
    assert of_five > 3 * one, f"five are {of_five / one:.1f} times the work of one"
    assert ended - began > 3 * one, f"five take {(ended - began) / one:.1f} times the work of one"
    rows = [("the work of all five", "", 0, of_five, "two")]
    rows += [("five tasks on five threads", "", run.started - began, run.ended - began, "one") for run in five]
    values = {"work": f"{of_five:.1f}", "five": f"{ended - began:.1f}", "count": len(five)}
    rig.chart("threads", "timeline", rows, values)


# ---- supervisor's memmon


@pytest.fixture
def supervisor(tmp_path):
    """Run the programs and groups of Auth's supervisor.conf under a real supervisor, each by the name it has there.

    What runs is `cat`, which ends with its supervisor.
    """
    lines = ["[supervisord]", "nodaemon=true", "logfile=/dev/null", "logfile_maxbytes=0", f"pidfile={tmp_path}/pid"]
    lines += ["[unix_http_server]", f"file={tmp_path}/socket", "[rpcinterface:supervisor]"]
    lines += ["supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface"]
    for section, given in by_auth().items():
        names = [name for name in ("process_name", "numprocs", "programs") if name in given]
        if names or section.startswith("program:"):
            lines += [f"[{section}]", *(f"{name}={given[name]}" for name in names)]
        if section.startswith("program:"):
            lines += ["command=cat", "startsecs=0"]
    (tmp_path / "conf").write_text("\n".join(lines))
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(tmp_path / "conf")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    yield f"unix://{tmp_path}/socket"
    process.terminate()
    process.wait()


def by_auth():
    """Return the sections of Auth's supervisor.conf."""
    conf = ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    conf.read("supervisor.conf")
    return conf


def restarted(rig, url, names):
    """Let memmon look once, with a limit of a kilobyte for each of the names; return what it restarted and printed."""
    environment = {"SUPERVISOR_SERVER_URL": url}
    processes = getRPCInterface(environment).supervisor
    rig.wait(lambda: Path(url.removeprefix("unix://")).exists(), "supervisor's start")
    rig.wait(lambda: all(one["pid"] for one in processes.getAllProcessInfo()), "the start of its programs")
    before = {one["name"]: one["pid"] for one in processes.getAllProcessInfo()}
    tick = "ver:3.0 server:supervisor serial:1 pool:memmon poolserial:1 eventname:TICK_60 len:6\nwhen:0"
    command = [sys.executable, "-m", "superlance.memmon", *(word for name in names for word in ("-p", f"{name}=1KB"))]
    told = subprocess.run(
        command, input=tick, env=os.environ | environment, text=True, capture_output=True, check=False
    )
    after = {one["name"]: one["pid"] for one in processes.getAllProcessInfo()}
    return sorted(name for name in before if after[name] != before[name]), told.stdout, told.stderr


MEMMON = "demo_memmon.py"


@pytest.mark.workers
@pytest.mark.broken_by(
    r"restarted", file=MEMMON, old="for name in watched:", new="told, watched = watched, processes\nfor name in told:"
)
def test_auths_memmon_names_no_process_of_a_worker(rig, supervisor):
    """Auth's `supervisor.conf` lets memmon watch `worker`, but the process is called `worker_00`.

    However large it is, memmon does not restart it. So it is with `worker_services`.
    """
    names = rig.prints(MEMMON, "worker is no process\nworker_services is no process\ngunicorn is no process\n")
    assert names["conf"] == by_auth(), "the demo reads the file otherwise than supervisor"
    rig.same(names["processes"], ["beat", "worker_00", "worker_services_00"], "supervisor runs {}")
    rig.same({word for word in names["words"] if "=" in word}, {f"{name}=256MB" for name in WATCHED}, "it watches {}")
    found, out, _ = restarted(rig, supervisor, names["watched"])
    rig.same(found, [], "restarted {}")
    assert "RESULT 2\nOK" in out, f"memmon said {out!r}"


@pytest.mark.workers
@pytest.mark.broken_by(r"restarted", file=MEMMON, old='"process_num": 0', new='"process_num": 1')
def test_memmon_restarts_a_worker_whose_process_it_names(rig, supervisor):
    """With the process's own name, as in `-p worker_00=512MB`, memmon restarts a worker that is larger than that."""
    worker = next(name for name in rig.demo(MEMMON)["processes"] if name.startswith("worker_0"))
    found, _, told = restarted(rig, supervisor, [worker])
    rig.same([found, worker], [["worker_00"], "worker_00"], "restarted {}")
    assert "Restarting myauth:worker_00" in told


@pytest.mark.workers
@pytest.mark.broken_by(r"memmon said", file=MEMMON, old='"process_num": 0', new='"process_num": 1')
def test_memmon_fails_on_a_group_and_process(rig, supervisor):
    """With `-p myauth:worker_00=512MB`, group and process, memmon 2.0 raises `KeyError` and restarts nothing."""
    worker = next(name for name in rig.demo(MEMMON)["processes"] if name.startswith("worker_0"))
    found, _, told = restarted(rig, supervisor, [f"myauth:{worker}"])
    rig.same(found, [], "restarted {}")
    assert told.endswith("KeyError: 'worker_00'\n"), f"memmon said {told!r}"

"""Which changes are made to a piece of Python, and what is left alone."""

import ast
from pathlib import Path

import pytest

from lab import mutants, score
from lab.mutation import changes
from lab.paths import EXAMPLES, chapters
from lab.source import left_out

FILES = sorted(path for path in EXAMPLES.glob("*/*.py") if not path.name.startswith("test_"))


def made(text: str) -> set[str]:
    """Return the texts that the changes of `text` make of it."""
    return {change.apply(text) for change in changes(text)}


@pytest.mark.parametrize(
    ("text", "mutant"),
    [
        ("task.apply_async(args=[1], priority=7)", "task.apply_async(args=[1])"),
        ("task.apply_async(priority=7)", "task.apply_async(priority=8)"),
        ("task.apply_async(priority=9)", "task.apply_async(priority=8)"),
        ("task.apply_async(countdown=0.5)", "task.apply_async(countdown=1.0)"),
        ("task.apply_async(args=[number])", "task.apply_async(args=[])"),
        ("task.delay(number)", "task(number)"),
        ("chain(links).delay()", "chain(links).apply()"),
        ("chain(first.si(), second.si())", "chain(first.si(), second.s())"),
        ("task.delay(number)", "pass"),
        ("with transaction.atomic():\n    task.delay()", "with transaction.atomic():\n    task.delay_on_commit()"),
        ("with transaction.atomic():\n    task.delay()", "if True:\n    task.delay()"),
        ("task.delay_on_commit()", "task.delay()"),
        ("links = [task.si(number)]", "links = [task.s(number)]"),
        ("task.si(1).set(priority=2)", "task.si(1)"),
        ('logger.info("done")', "logger.warning('done')"),
        ("@shared_task(bind=True)\ndef work(self):\n    go()", "# \ndef work(self):\n    go()"),
        ("@shared_task(bind=True)\ndef work(self):\n    go()", "@shared_task(bind=False)\ndef work(self):\n    go()"),
        (
            '@shared_task(rate_limit="4/s")\ndef work():\n    go()',
            "@shared_task(rate_limit='5/s')\ndef work():\n    go()",
        ),
        ("def scatter(seconds=600):\n    go()", "def scatter(seconds=601):\n    go()"),
        ("if attempt == 1:\n    go()", "if (attempt != 1):\n    go()"),
        ("if rest:\n    go()", "if not (rest):\n    go()"),
        ("for one in all:\n    go(one)", "for one in all:\n    go(one)\n    break"),
        ("try:\n    go()\nexcept ValueError:\n    tell()", "if True:\n    go()"),
        ("def work():\n    return 3", "def work():\n    return"),
        ('entry = {"task": name, "apply_offset": True}', "entry = {'task': name}"),
        ('crontab(minute="*/6")', "crontab(minute='*/7')"),
        ("class Tells(DjangoTask):\n    x = 1", "class Tells(object):\n    x = 1"),
    ],
)
def test_a_change_is_made(text: str, mutant: str) -> None:
    assert mutant in made(text)


@pytest.mark.parametrize(
    ("text", "literal", "reason"),
    [
        ("task.delay(98000001)", "98000001", "an id"),
        ("time.sleep(0.25 * pages)", "0.25", "stands for work"),
        ("task.si(corporation_id, pages=20)", "20", "stands for work"),
        ("def task(corporation_id, pages=3): ...", "3", "stands for work"),
        ("task.apply_async(args=[character_id, 7], priority=9)", "7", "an argument of a task"),
    ],
)
def test_what_is_an_id_or_stands_for_work_is_left_alone_and_listed(text: str, literal: str, reason: str) -> None:
    assert (1, literal, reason) in left_out(text)
    assert {change.old for change in changes(text)}.isdisjoint({literal})


def test_names_and_log_texts_are_left_alone() -> None:
    assert changes('LOGGER = "a name"\n')[0].kind == "statement dropped"
    assert {change.kind for change in changes('logger.info("a text", name="x")')} == {
        "statement dropped",
        "method swapped",
        "keyword dropped (name)",
    }


def test_outside_a_transaction_delay_is_not_swapped_as_both_do_the_same() -> None:
    assert "task.delay_on_commit()" not in made("task.delay()")


def test_the_first_link_of_a_chain_is_not_swapped_as_nothing_is_handed_to_it() -> None:
    assert "chain(first.s(), second.si())" not in made("chain(first.si(), second.si())")


def test_a_template_loses_its_token_its_variables_and_where_its_form_leads() -> None:
    text = '<form method="post">{% csrf_token %}<b>{{ name }}</b></form>'
    assert [change.old for change in changes(text, "index.html")] == [
        ' method="post"',
        "{% csrf_token %}",
        "{{ name }}",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_change_of_every_example_is_python_and_differs(path: Path) -> None:
    text = path.read_text()
    for change in changes(text):
        assert ast.dump(ast.parse(change.apply(text))) != ast.dump(ast.parse(text)), str(change)


def test_each_mutant_that_is_listed_as_equivalent_is_one_of_its_chapter() -> None:
    listed = {(name, *one) for name in chapters() for one in score.listed(name)}
    assert listed - {(one.chapter, *one.listed) for name in chapters() for one in mutants.of(name)} == set()

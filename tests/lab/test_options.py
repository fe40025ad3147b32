"""Which chapters, claims and options a command line names."""

from collections.abc import Callable

import pytest

from lab import falsify, mutants
from lab.errors import LabError
from lab.options import Parser

NAMES = ["chains", "priorities"]


def taken(*argv: str) -> tuple[str, list[str], list[str]]:
    """Return what is understood: the expression, the chapters, and what is passed on."""
    parser = Parser("examples", None, NAMES)
    parser.take_k()
    known, names, unknown = parser.take(list(argv), passed_on=True)
    return known.k, names, unknown


@pytest.mark.parametrize(
    ("argv", "understood"),
    [
        ([], ("", NAMES, [])),
        (["chains", "chains"], ("", ["chains"], [])),
        (["-k", "priorities"], ("priorities", NAMES, [])),
        (["-k", "not lock", "chains"], ("not lock", ["chains"], [])),
        (["-x", "chains", "-k", "lock", "--maxfail=2", "priorities"], ("lock", NAMES, ["-x", "--maxfail=2"])),
    ],
)
def test_a_word_after_k_is_its_expression_and_what_is_not_known_is_passed_on(
    argv: list[str], understood: tuple[str, list[str], list[str]]
) -> None:
    assert taken(*argv) == understood


@pytest.mark.parametrize("word", ["chain", "examples/chains", "rabbits"])
def test_a_chapter_that_is_not_there_is_one_sentence_that_names_those_that_are(word: str) -> None:
    with pytest.raises(LabError, match=f"^There is no chapter '{word}': name one of chains, priorities\\.$"):
        taken(word)


@pytest.mark.parametrize("main", [falsify.main, mutants.main])
@pytest.mark.parametrize("argv", [["rabbits"], ["--broker=path"], ["-k"]])
def test_falsify_and_mutants_refuse_what_they_do_not_know_before_anything_starts(
    main: Callable[[list[str]], int], argv: list[str]
) -> None:
    with pytest.raises(LabError) as refused:
        main(argv)
    assert len(str(refused.value).splitlines()) == 1

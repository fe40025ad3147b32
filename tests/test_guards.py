"""Each guard stops the build, names page, line and remedy, and lets nothing be written."""

from pathlib import Path

import pytest

from tests.site_bed import DEMO, INDEX, PAGE, TASKS, SiteBed


@pytest.fixture
def site(tmp_path: Path) -> SiteBed:
    """A small site that is proven from end to end."""
    return SiteBed(tmp_path)


def stopped(site: SiteBed, lines: dict[int, str], *words: str, **env: str) -> None:
    """Build, and demand that it stops and tells what `lines` says of each line of the page, and all `words`."""
    built = site.build(**env)
    assert built.code != 0, "the build went through"
    for line, what in lines.items():
        place = f"docs/greetings.md:{line}:"
        told = [paragraph for paragraph in built.told.splitlines() if place in paragraph]
        assert any(what in paragraph for paragraph in told), f"{place} … {what} is not in: {built.told}"
    for word in words:
        assert word in built.told, f"{word!r} is not in: {built.told}"
    assert "report this error" not in built.told, built.told
    assert not (site.folder / "build" / "html" / "greetings.html").exists(), "the page was written"


def test_what_is_proven_is_built_with_its_evidence_though_a_line_that_is_not_shown_never_ran(site: SiteBed) -> None:
    site.prove(not_executed=(15,))
    built = site.build()
    assert built.code == 0, built.told
    page = site.text()
    assert "Ran on Alliance Auth 1.2.3 · Celery 1.2.3 · Valkey 9.1.2 · SQLite 3, Python 1.2.3" in page
    assert "<summary>1 claim</summary>" in page
    assert "proof/greetings.html#test_greet_says_hello" in page


def test_code_typed_into_a_page_stops_the_build_in_whatever_way_it_is_typed(site: SiteBed) -> None:
    typed = ["```python\nx = 1\n```", "```sh\nls\n```", "```\nls\n```", "    indented = True", "<pre>ls</pre>"]
    page, lines = PAGE, []
    for code in typed:
        page += f"\nText.\n\n{code}\n"
        lines.append(page.count("\n") - code.count("\n"))
    site.write("docs/greetings.md", page)
    first, *others = lines
    also = ", ".join(map(str, others))
    stopped(site, {first: "typed into the page"}, f"(Also on line {also}.)", "examples/<chapter>/", "{block}")


def test_lines_that_cut_through_a_function_stop_the_build(site: SiteBed) -> None:
    site.write("docs/greetings.md", PAGE.replace(":pyobject: greet", ":lines: 1-9"))
    stopped(site, {9: "greetings/tasks.py cuts through its lines 8 to 10"}, "Show all of them, or none")


def test_an_unexecuted_line_stops_the_build(site: SiteBed) -> None:
    site.prove(not_executed=(10,))
    stopped(site, {9: "tasks.py: no test executes line 10"}, "nox -s examples -- greetings")


def test_a_line_that_no_claim_ran_stops_the_build_though_something_else_did(site: SiteBed) -> None:
    site.prove(ran=(15,))
    stopped(site, {9: "tasks.py: no claim runs what is shown here"}, "nox -s examples -- greetings")


def test_evidence_older_than_the_file_stops_the_build(site: SiteBed) -> None:
    tasks = site.folder / "examples" / "greetings" / "tasks.py"
    tasks.write_text(tasks.read_text() + "# changed\n")
    stopped(site, {9: "tasks.py has changed since it was last run"}, "nox -s examples -- greetings")


def test_missing_evidence_stops_the_build(site: SiteBed) -> None:
    (site.folder / "build" / "evidence.json").unlink()
    stopped(site, {9: "no evidence for the chapter 'greetings'"}, "nox -s examples -- greetings")


def test_an_unproven_claim_stops_the_build_though_no_page_has_changed(site: SiteBed) -> None:
    assert site.build().code == 0
    (site.folder / "build" / "html" / "greetings.html").unlink()
    site.prove(outcome="failed")
    stopped(site, {7: "test_greet_says_hello is not proven: its test failed"}, "nox -s examples -- greetings")


def test_what_a_stopped_build_had_read_is_written_by_the_next(site: SiteBed) -> None:
    assert site.build().code == 0
    site.write("examples/greetings/tasks.py", TASKS.replace("Hello %s", "Good day, %s"))
    site.prove()
    site.write("docs/index.md", INDEX + "\n```sh\nls\n```\n")
    assert "typed into the page" in site.build().told
    site.write("docs/index.md", INDEX)
    built = site.build()
    assert built.code == 0, built.told
    assert "Good day" in site.text()


def test_a_new_page_or_title_stands_in_the_sidebar_of_every_page_though_no_other_has_changed(site: SiteBed) -> None:
    assert site.build().code == 0
    for title in ("Farewells", "Goodbyes"):
        site.write("docs/farewells.md", f"# {title}\n")
        site.write("docs/index.md", INDEX.replace("greetings", "greetings\nfarewells"))
        built = site.build()
        assert built.code == 0, built.told
        assert title in site.text()


def test_whatever_a_page_names_that_is_not_there_stops_the_build(site: SiteBed) -> None:
    page = PAGE.replace("test_greet_says_hello", "test_greet_sings").replace("greetings/tasks.py", "greetings/task.py")
    site.write("docs/greetings.md", page + "\n```{chart} pie\nA pie.\n```\n\n```{measured}\n```\n")
    site.write(
        "docs/measured/greetings.toml",
        '[[statement]]\nsays = "x"\nverdict = "holds"\nclaims = ["test_nothing"]\ninstead = ""\n',
    )
    told = {
        7: "the claim test_greet_sings has no proof",
        9: "there is no file examples/greetings/task.py",
        13: "there is no figure 'pie'",
        17: "docs/measured/greetings.toml, statement 1: the claim test_nothing has no proof",
    }
    stopped(site, told, "examples/greetings/test_greetings.py")


def test_what_carries_no_claim_is_listed_by_page_and_line(site: SiteBed) -> None:
    mark = "{claim}`test_greet_says_hello`"
    text = f"""
Said once. Said twice with `a.B` in it,
and *more*. {mark} Then this
is said, e.g. so. It is said
that: {mark}

- an item
- an item with a mark {mark}
- [a link alone](index.md)

| a | b |
|---|---|
| one | two |
| three | four {mark} |
| five | `six` |
"""
    site.write("docs/greetings.md", PAGE + text)
    built = site.build()
    assert built.code == 0, built.told
    # The page's other sentence has a mark, its heading and its block are none.
    listed = (site.folder / "build" / "unclaimed" / "greetings.txt").read_text().splitlines()
    wanted = ["13: Said once.", "14: Then this is said, e.g. so.", "18: an item", "24: one | two", "26: five | six"]
    assert [line for line in listed if not line.startswith("#")] == wanted
    assert "5 sentences and table rows carry no claim: build/unclaimed/<page>.txt" in built.told


HELLOS = {"kind": "staircase", "rows": [["said", [0.5, 1]]], "more": {"counted": "hellos"}, "values": {"count": 1200}}


def charts(site: SiteBed, *captions: str) -> list[int]:
    """Put charts with these captions on the page and return the lines on which they stand."""
    site.prove(charts={"hellos": HELLOS})
    page, lines = PAGE, []
    for caption in captions:
        lines.append(page.count("\n") + 2)
        page += f"\n```{{chart}} hellos\n{caption}\n```\n"
    site.write("docs/greetings.md", page)
    return lines


def test_a_number_in_a_caption_is_the_recorded_one(site: SiteBed) -> None:
    charts(site, "The task says {count} hellos, one after the other.")
    built = site.build()
    assert built.code == 0, built.told
    caption = "The task says 1,200 hellos, one after the other."
    page = site.text()
    assert f'<figcaption id="hellos-caption">{caption}<' in page
    assert '<svg role="img" aria-labelledby="hellos-caption"' in page
    assert f"Figure (hellos): {caption}" in (site.folder / "build" / "html" / "greetings.md").read_text()


def test_a_number_typed_into_a_caption_stops_the_build(site: SiteBed) -> None:
    typed = ["1,200", "0.5", "12", "Twelve", "forty-two", "hundred", "hundredth", "half", "twice"]
    lines = charts(site, *(f"The task says {number} of {{count}} hellos." for number in typed), "{many} hellos.")
    told = {line: f"the number '{number}' typed into it" for number, line in zip(typed, lines, strict=False)}
    stopped(site, {**told, lines[-1]: "no value {many} for its caption"}, "What was recorded for it is {count}")


def test_a_call_that_raises_hangs_or_writes_to_stderr_stops_the_build(site: SiteBed) -> None:
    calls = {
        "raises": 'raise ValueError("a mistake")\n',
        "hangs": "while True:\n    pass\n",
        "stderr": 'import sys\n\nprint("careless", file=sys.stderr)\n',
    }
    page = PAGE
    for name, call in calls.items():
        site.write(f"examples/greetings/demo_{name}.py", DEMO + call)
        page += f"\n```{{call}} greetings/demo_{name}.py\n```\n"
    site.write("docs/greetings.md", page)
    site.prove()
    told = {13: "demo_raises.py raised", 16: "demo_hangs.py raised", 19: "demo_stderr.py wrote to stderr"}
    words = ("ValueError: a mistake", "did not end within 8 s", "careless", "Mend examples/greetings/demo_raises.py")
    stopped(site, told, *words, LAB_CELL_DEADLINE="8")

"""Why a call has no Run: by what the claim does whose run gave the page its output."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from lab.paths import EVIDENCE, EXAMPLES

# What a claim does with its rig or asks for, and what of it a browser has not; the first that fits is told.
_WHY = (
    ({"start_beat", "beat"}, "it needs beat"),
    ({"web", "url"}, "it needs Auth's web server"),
    ({"kill", "stop"}, "it needs a worker that is ended while it works"),
    ({"start_worker", "resume", "fresh", "monkeypatch"}, "it needs a worker that is started in another way"),
    ({"hold", "send"}, "its output was recorded while other tasks were held"),
)
_NO_WORKER = "its output was recorded while no worker ran"
_OTHER_WORKER = "it needs a worker that is started in another way"


def reason(call: str) -> str:
    """Return it in half a sentence; nothing where its claim does no more than to play the call."""
    if _listens(EXAMPLES / call):
        return "it needs a server that listens"
    test, functions = _claim(call)
    if not test:
        return ""
    found = set(_words(test, functions))
    for words, why in _WHY:
        if words & found:
            return why
    for mark in test.decorator_list:
        if ast.unparse(mark).startswith("pytest.mark.workers"):
            return _OTHER_WORKER if isinstance(mark, ast.Call) and mark.args else _NO_WORKER
    return ""


def sends_others(call: str) -> bool:
    """Return whether the claim whose run gave the call its output starts other tasks in it, too."""
    test, _ = _claim(call)
    named = [node.attr for node in ast.walk(test) if isinstance(node, ast.Attribute)] if test else []
    return named.count("demo") > 1 or bool({"delay", "apply_async"} & set(named))


def _claim(call: str) -> tuple[ast.FunctionDef | None, dict[str, ast.FunctionDef]]:
    """Return the claim whose run gave the call the output that its page shows, and its module's functions."""
    chapter, _, file = call.partition("/")
    claims = json.loads(EVIDENCE.read_text())["chapters"][chapter]["claims"]
    module = ast.parse((EXAMPLES / chapter / f"test_{chapter}.py").read_text())
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    first = next((claim["test"] for claim in claims if file in claim["outputs"]), "")
    return functions.get(first), functions


def _listens(call: Path) -> bool:
    """Whether a module of the chapter that `call` imports from is a server."""
    imported = (node.module for node in ast.walk(ast.parse(call.read_text())) if isinstance(node, ast.ImportFrom))
    modules = [EXAMPLES / f"{(name or '').replace('.', '/')}.py" for name in imported]
    return any("http.server" in path.read_text() for path in modules if path.exists())


def _words(claim: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """Yield a claim's fixtures and markers, and the verbs of its rig, also in functions of its module that it calls."""
    yield from (argument.arg for argument in claim.args.args)
    yield from (
        node.attr for mark in claim.decorator_list for node in ast.walk(mark) if isinstance(node, ast.Attribute)
    )
    seen, left = {claim.name}, [claim]
    while left:
        for node in ast.walk(left.pop()):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rig":
                yield node.attr
            if isinstance(node, ast.Name) and node.id in functions and node.id not in seen:
                seen.add(node.id)
                left.append(functions[node.id])

"""The changes that `nox -s mutants` makes to a file of the examples: pure functions from its text to changes.

Texts are ids, names and log lines and stay as they are; which numbers do, `lab.source.left_alone` decides.
"""

import ast
import copy
import re
from collections.abc import Iterator
from typing import Any

from lab.source import Change, Source, called, left_alone, works

_RATE = re.compile(r"(\d+)/[smh]")
_SWAPS = {
    "s": "si",
    "si": "s",
    "delay": "delay_on_commit",
    "delay_on_commit": "delay",
    "debug": "info",
    "info": "warning",
    "warning": "info",
    "exception": "error",
    "success": "info",
    "danger": "warning",
    "incr": "decr",
}
# A call of one of these gives back what it is called on, changed.
_STEPS = {"set", "on_error", "filter", "annotate", "order_by"}
# Called like a function, these send their tasks as `delay()` does.
_CANVASES = {"chain", "group", "chord", "chunks"}
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}


def changes(text: str, file: str = "file.py") -> list[Change]:
    """Return every change of a file, in the order of its lines; `file` says whether it is Python or a template."""
    if file.endswith(".html"):
        return list(_of_template(text))
    source = Source(text)
    found = [change for node in ast.walk(source.tree) for change in _of_node(source, node)]
    return sorted(set(found), key=lambda change: (change.line, change.start, change.kind, change.new))


def _of_template(text: str) -> Iterator[Change]:
    """Yield the changes of a template: without a tag, a variable or an attribute that does something."""
    for found in re.finditer(r"{% csrf_token %}|{{.*?}}| (?:method|action)=\"[^\"]*\"", text):
        start, end = (len(text[:place].encode()) for place in found.span())
        yield Change("markup dropped", text.count("\n", 0, found.start()) + 1, start, end, found[0], "")


def _altered(node: Any, **fields: Any) -> str:
    twin = copy.copy(node)
    for name, value in fields.items():
        setattr(twin, name, value)
    text = ast.unparse(twin)
    return f"({text})" if isinstance(twin, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp) else text


def _without(items: list[Any], place: int) -> list[Any]:
    return items[:place] + items[place + 1 :]


def _of_node(source: Source, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.stmt):
        yield from _of_statement(source, node)
    elif isinstance(node, ast.Call):
        yield from _of_call(source, node)
    elif isinstance(node, ast.Constant):
        yield from _of_literal(source, node)
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            ops = [*node.ops[:place], _COMPARED[type(operator)](), *node.ops[place + 1 :]]
            yield source.change("comparison turned", node, _altered(node, ops=ops))
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATED and not works(source, node):
        yield source.change("operator changed", node, _altered(node, op=_OPERATED[type(node.op)]()))
    elif isinstance(node, ast.BoolOp):
        op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield source.change("and, or swapped", node, _altered(node, op=op))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield source.change("condition negated", node, f"bool({ast.unparse(node.operand)})")
    elif isinstance(node, ast.IfExp):
        yield source.change("condition negated", node.test, f"(not ({ast.unparse(node.test)}))")
    elif isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield source.change("condition negated", test, f"(not ({ast.unparse(test)}))")
    elif isinstance(node, ast.Dict) and isinstance(source.parents.get(node), ast.keyword | ast.Dict | ast.Assign):
        for place, key in enumerate(node.keys):
            entry = {"keys": _without(node.keys, place), "values": _without(node.values, place)}
            yield source.change(f"entry dropped ({ast.unparse(key) if key else '**'})", node, _altered(node, **entry))
    elif isinstance(node, ast.List) and node.elts and isinstance(source.parents.get(node), ast.keyword | ast.Dict):
        yield source.change("list emptied", node, "[]")


def _of_call(source: Source, node: ast.Call) -> Iterator[Change]:
    for place, keyword in enumerate(node.keywords):
        if called(node) == "crontab" and ast.unparse(keyword.value) == "'*'":
            # What a crontab says of a field that is left out.
            continue
        rest = _altered(node, keywords=_without(node.keywords, place))
        yield source.change(f"keyword dropped ({keyword.arg or '**'})", node, rest)
    if not isinstance(node.func, ast.Attribute):
        return
    name, called_on = node.func.attr, ast.unparse(node.func.value)
    if name in _SWAPS and not _does_the_same(source, node, name):
        yield source.change("method swapped", node, _altered(node, func=_attribute(node.func, _SWAPS[name])))
    if name in ("delay", "delay_on_commit"):
        canvas = called(node.func.value) in _CANVASES
        func = _attribute(node.func, "apply") if canvas else node.func.value
        yield source.change("called like a function", node, _altered(node, func=func))
    if name in _STEPS:
        yield source.change("step dropped", node, called_on)


def _in_transaction(source: Source, node: ast.AST) -> bool:
    """Return whether a transaction is open around `node`; where none is, `delay` and `delay_on_commit` do the same."""
    around = [parent for parent, _ in source.above(node) if isinstance(parent, ast.With)]
    return any("atomic" in ast.unparse(item.context_expr) for parent in around for item in parent.items)


def _does_the_same(source: Source, node: ast.Call, name: str) -> bool:
    """Return whether the method that `name` is swapped for does the same here: the first link is handed no result."""
    if name == "delay":
        return not _in_transaction(source, node)
    parent = source.parents.get(node)
    first = isinstance(parent, ast.Call) and called(parent) == "chain" and parent.args[0] is node
    return name in ("s", "si") and first


def _attribute(node: ast.Attribute, name: str) -> ast.Attribute:
    return ast.Attribute(value=node.value, attr=name, ctx=node.ctx)


def _of_literal(source: Source, node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield source.change("boolean flipped", node, str(not value))
    elif isinstance(value, int | float) and not left_alone(source, node):
        inside = [parent.arg for parent, _ in source.above(node) if isinstance(parent, ast.keyword)]
        least_urgent = value == 9 and "priority" in inside
        yield source.change(
            "number changed", node, str(value * 2 if isinstance(value, float) else value + 1 - 2 * least_urgent)
        )
    elif isinstance(value, str):
        call = next((parent for parent, _ in source.above(node) if isinstance(parent, ast.Call)), None)
        timed = call and ast.unparse(call.func) == "crontab" and any(sign.isdigit() for sign in value)
        if timed or _RATE.fullmatch(value):
            yield source.change(
                "limit or time changed", node, repr(re.sub(r"\d+", lambda n: str(int(n[0]) + 1), value))
            )


def _of_statement(source: Source, node: ast.stmt) -> Iterator[Change]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        for decorator in node.decorator_list:
            first, last = source.span(decorator)
            yield source.change("decorator dropped", decorator, "# ", start=first - 1, end=last)
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            yield source.change("base dropped", base, "object")
        return
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) or _is_docstring(node):
        return
    if isinstance(node, ast.Return):
        if node.value:
            yield source.change("answer dropped", node, "return")
        return
    if isinstance(node, ast.With | ast.Try):
        yield from _unwrapped(source, node)
        return
    yield source.change("statement dropped", node, "pass")
    if isinstance(node, ast.If | ast.While):
        yield source.change("condition negated", node.test, f"not ({ast.unparse(node.test)})")
    if isinstance(node, ast.For | ast.While):
        _, behind = source.span(node.body[-1])
        stop = "\n" + " " * node.body[-1].col_offset + "break"
        yield source.change("loop cut", node.body[-1], stop, start=behind, end=behind)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _unwrapped(source: Source, node: ast.With | ast.Try) -> Iterator[Change]:
    """Yield the change of `with …:` or `try:` to `if True:`, without a handler."""
    body, _ = source.span(node.body[0])
    _, behind = source.span(node.body[-1])
    head, last = source.span(node)
    indent = "\n" + " " * node.body[0].col_offset
    kept = source.raw[body:behind].decode()
    yield source.change(
        f"{type(node).__name__.lower()} unwrapped", node, f"if True:{indent}{kept}", start=head, end=last
    )

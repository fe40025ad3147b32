"""Lay a changed copy of a chapter over the original in a fork of a run: what `falsify` and `mutants` have in common."""

import ast
import contextlib
import importlib
import inspect
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from celery import signals
from celery.utils.dispatch.signal import Signal

from lab.paths import EXAMPLES, chapters

# Loaded once by Django: the lay-over takes the copy's only where they were changed.
_MODELS = "models.py"


def lay_over(chapter: str, folder: Path, file: str = "", change: Callable[[str], str] = str) -> None:
    """Put a copy of the chapter into `folder` and in the chapter's place, its `file` changed by `change`.

    Whatever `change` or the import of the changed file raises comes through.
    """
    copy = folder / chapter
    shutil.copytree(EXAMPLES / chapter, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        (copy / file).write_text(change((copy / file).read_text()))
    package = importlib.import_module(chapter)
    package.__path__ = [str(copy)]
    _forget(chapter, models=file == _MODELS)
    if file == _MODELS:
        importlib.import_module(f"{chapter}.models")
    if file == "local.py":
        set_settings(own_settings(), {chapter: copy / "local.py"})
    if file.endswith(".html"):
        _look_for_templates(chapter, copy)
    if (copy / "auth_hooks.py").exists():
        importlib.import_module(f"{chapter}.auth_hooks")
    # Workers look for the tasks of an app once, which the process that they are forked from has done. What can't be
    # loaded, pytest tells.
    if (copy / "tasks.py").exists():
        with contextlib.suppress(Exception):
            importlib.import_module(f"{chapter}.tasks")


def _forget(chapter: str, *, models: bool) -> None:
    """Drop the chapter's modules, tasks, views and hooks, so that the copy's are loaded in their place."""
    from allianceauth import hooks
    from django.apps import apps
    from django.urls import clear_url_caches
    from myauth.celery import app

    stays = ("apps",) if models else ("models", "apps")
    for name in list(sys.modules):
        inside = name.startswith(f"{chapter}.") and name.split(".")[1] not in stays
        if inside or name in ("myauth.urls", "allianceauth.urls"):
            _disconnect(sys.modules.pop(name))
            # `from . import views` would find it there.
            package, _, own = name.rpartition(".")
            if package in sys.modules:
                vars(sys.modules[package]).pop(own, None)
    if models:
        apps.all_models[chapter].clear()
        apps.clear_cache()
    # By module: a task may have a name of its choice.
    for name in [name for name, task in app.tasks.items() if task.__module__.startswith(f"{chapter}.")]:
        app.tasks.pop(name)
    for registered in hooks._hooks.values():
        registered[:] = [hook for hook in registered if not hook.__module__.startswith(chapter)]
    clear_url_caches()


def _disconnect(module: ModuleType) -> None:
    """Let none of the module's functions answer Celery's signals any more."""
    known = [one for one in vars(signals).values() if isinstance(one, Signal)]
    for function in filter(inspect.isfunction, vars(module).values()):
        for signal in known:
            signal.disconnect(function)


def _look_for_templates(chapter: str, copy: Path) -> None:
    from django.apps import apps
    from django.template import engines
    from django.template.utils import get_app_template_dirs

    apps.get_app_config(chapter).path = str(copy)
    get_app_template_dirs.cache_clear()
    for loader in engines["django"].engine.template_loaders:
        loader.reset()


def own_settings() -> str:
    """Return the statements of Alliance Auth's `settings/base.py` that are about Celery, as Python."""
    return _statements("myauth.settings.base", "CELERY")


def celery_settings() -> str:
    """Return the statements of Alliance Auth's `celery.py` that set its Celery app's configuration, as Python."""
    return _statements("myauth.celery", "app.conf.")


def _statements(module: str, beginning: str) -> str:
    """Return the statements of a module that has been imported which begin so, one a line."""
    tree = ast.parse(Path(str(sys.modules[module].__file__)).read_text())
    found = [ast.unparse(node) for node in tree.body]
    return "\n".join(text for text in found if text.startswith(beginning)) + "\n"


def set_celery_settings(code: str) -> None:
    """Run `code` in place of `celery_settings()`; what it leaves out gets Celery's own default."""
    from celery.app.defaults import NAMESPACES, flatten
    from myauth.celery import app

    before, after = SimpleNamespace(conf=SimpleNamespace()), SimpleNamespace(conf=SimpleNamespace())
    exec(celery_settings(), {"app": before})  # noqa: S102
    exec(code, {"app": after})  # noqa: S102
    defaults = {name: option.default for name, option in flatten(NAMESPACES)}
    app.conf.update({name: defaults.get(name, {}) for name in vars(before.conf)} | vars(after.conf))


def set_settings(own: str, local: dict[str, Path]) -> None:
    """Run `own`, statements in place of `own_settings()`, and each chapter's `local.py`; take over what they set.

    `local` names files that are run instead of a chapter's own.
    """
    from celery.schedules import crontab
    from django.conf import settings
    from myauth.celery import app

    names: dict[str, Any] = {"crontab": crontab, "CELERYBEAT_SCHEDULE": {}}
    exec(own, names)  # noqa: S102
    for chapter in chapters():
        path = local.get(chapter, EXAMPLES / chapter / "local.py")
        if path.exists():
            exec(compile(path.read_bytes(), str(path), "exec"), names)  # noqa: S102
    for name, value in names.items():
        if name.isupper():
            setattr(settings, name, value)
    app.conf.beat_schedule = settings.CELERYBEAT_SCHEDULE
    app.conf.beat_scheduler = names.get("CELERYBEAT_SCHEDULER", "celery.beat:PersistentScheduler")

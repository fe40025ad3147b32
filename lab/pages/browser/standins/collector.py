"""In place of Python's automatic garbage collection: a full one, where a stack takes over and much has piled up.

The automatic one walks the frames of all stacks, of which suspended ones are not where they were, and ends Pyodide:
https://github.com/pyodide/pyodide/issues/6464, still so in 314.0.7. A full one and one of the young walk no frames.
"""

import gc

# So many more objects than at the last collection are much: a few megabytes.
_MUCH = 50_000
_full = gc.collect


def install() -> None:
    """Leave collections to `tidy`, whatever somebody asks for."""
    gc.disable()
    gc.enable = lambda: None
    gc.collect = collect


def collect(generation: int = 2) -> int:
    """`gc.collect`, which takes the whole of it instead of the middle."""
    return _full(0 if generation == 0 else 2)


def settle() -> None:
    """Take what is there by now for what stays for ever, which no later collection looks at."""
    _full()
    gc.freeze()


def tidy() -> None:
    """Collect if much has piled up."""
    if gc.get_count()[0] > _MUCH:
        _full()

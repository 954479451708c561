"""What do the files of a folder declare, one feature a file?

A new file in such a folder is found by itself: there is no list beside it that could be forgotten.
"""

import pkgutil
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any


def declared(package: str, folders: Iterable[str], name: str) -> Iterator[Any]:
    """Yield what each module directly in a package calls `name`, in the modules' order.

    Raises:
        AttributeError: a module declares nothing.
    """
    for module in pkgutil.iter_modules(folders):
        yield getattr(import_module(f"{package}.{module.name}"), name)

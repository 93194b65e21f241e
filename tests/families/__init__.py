"""Tiny pipelines of every family, real classes with seeded random weights; one file a family, found by being here."""

import importlib
import pkgutil

from families.base import TinyFamily

FAMILIES: dict[str, TinyFamily] = {
    family.name: family
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base")
    for family in importlib.import_module(f"families.{module}").FAMILIES
}

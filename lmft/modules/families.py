"""Find the LightningModule of each family.

A family NAME has a LightningModule in lmft/modules/NAME.py and options in conf/model/NAME.yaml.
"""

import importlib
import pkgutil

import lmft.modules
from lmft.errors import UserError, did_you_mean
from lmft.modules.base import LanguageModel


def all_families() -> dict[str, type[LanguageModel]]:
    """Return {family name: LightningModule}, bidirectional families first.

    They come first because BERT, for example, also has a class for causal language modelling.
    """
    modules = {}
    for file in pkgutil.iter_modules(lmft.modules.__path__):
        python_module = importlib.import_module(f"lmft.modules.{file.name}")
        for value in vars(python_module).values():
            is_module = isinstance(value, type) and issubclass(value, LanguageModel)
            if is_module and value.__module__ == python_module.__name__ and "family" in vars(value):
                modules[value.family.name] = value
    return dict(sorted(modules.items(), key=lambda item: item[1].family.is_causal))


def family_named(name: str, families: dict[str, type[LanguageModel]]) -> type[LanguageModel]:
    """Return the LightningModule of a family. Raises: UserError if there is none of that name."""
    if name not in families:
        what = f"model.family={name} is unknown{did_you_mean(name, families)}"
        raise UserError(what, fix=f"one of: {', '.join(families)}")
    return families[name]

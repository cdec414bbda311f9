"""Find the LightningModule of each family: a family NAME is the file lmft/modules/NAME.py and
conf/model/NAME.yaml.
"""

import importlib
import pkgutil

import lmft.modules
from lmft.errors import UserError, did_you_mean
from lmft.modules.base import LanguageModel


def all_families() -> dict[str, type[LanguageModel]]:
    """Return each family's name and LightningModule.

    Those that attend to both sides come first: BERT, for one, also has a class that can be trained as a
    causal model.
    """
    found = {}
    for file in pkgutil.iter_modules(lmft.modules.__path__):
        module = importlib.import_module(f"lmft.modules.{file.name}")
        for value in vars(module).values():
            is_module = (
                isinstance(value, type)
                and issubclass(value, LanguageModel)
                and value.__module__ == module.__name__
            )
            if is_module and "family" in vars(value):
                found[value.family.name] = value
    return dict(sorted(found.items(), key=lambda item: item[1].family.is_causal))


def family_named(name: str, families: dict[str, type[LanguageModel]]) -> type[LanguageModel]:
    """Return the LightningModule of a family. Raises: UserError if there is none of that name."""
    if name not in families:
        what = f"model.family={name} is unknown{did_you_mean(name, families)}"
        raise UserError(what, fix=f"one of: {', '.join(families)}")
    return families[name]

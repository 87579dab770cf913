"""The first page of a folder of many files names each of them, so that nobody has to open all to find one."""

import importlib
import pkgutil

import pytest


@pytest.mark.parametrize("name", ["deliveries.models", "deliveries.pipeline", "deliveries.services"])
def test_the_map_has_every_file_of_its_folder(name: str) -> None:
    package = importlib.import_module(name)

    files = [module.name for module in pkgutil.iter_modules(package.__path__)]

    assert [each for each in files if f"`{each}`" not in (package.__doc__ or "")] == []

"""The web server under test with the hook of `at_step` in it."""

from importlib import import_module

from webhooks_platform.wsgi import application

# The settings are loaded now, as the hook needs them.
import_module("tests.faults.at_step")

__all__ = ["application"]

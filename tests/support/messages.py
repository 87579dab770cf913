"""Texts that people read, and their translations: found in code and templates, written to `locale/*/LC_MESSAGES`.

`python -m tests.support.messages` (or `make messages`) brings the files up to date, compiles them, and says what is
left to translate. Without the gettext tools: texts are found by Python's own parser and by Django's, the files are
written by polib.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import polib
from django.conf import settings
from django.utils.translation.template import templatize

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("webhooks_platform", "tenants", "deliveries")
LANGUAGES: Final = ("de",)

SINGULAR: Final = {"gettext", "gettext_lazy", "gettext_noop", "_"}
PLURAL: Final = {"ngettext", "ngettext_lazy"}
CONTEXTUAL: Final = {"pgettext", "pgettext_lazy"}
CONTEXTUAL_PLURAL: Final = {"npgettext", "npgettext_lazy"}
CALL: Final = re.compile(r"\b(?:n?p?gettext|_)\(")


class Message(NamedTuple):
    """A text, as gettext tells it from others."""

    context: str | None
    text: str
    plural: str | None


def found() -> dict[Message, set[str]]:
    """Every text of the project, and the files that have it."""
    messages: dict[Message, set[str]] = {}
    for name, source in [*_python(), *_templates()]:
        for message in _messages_of(source):
            messages.setdefault(message, set()).add(name)
    return messages


def _python() -> Iterator[tuple[str, ast.AST]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def _templates() -> Iterator[tuple[str, ast.AST]]:
    """Django turns a template into something in which its texts are calls of gettext; the rest is blotted out."""
    for path in sorted((ROOT / "templates").rglob("*.*")):
        name = str(path.relative_to(ROOT))
        if path.suffix not in {".html", ".txt", ".css"}:
            continue
        blotted = templatize(path.read_text(), origin=name)
        calls = [ast.parse(_call_at(blotted, match)) for match in CALL.finditer(blotted)]
        yield name, ast.Module(body=[statement for call in calls for statement in call.body], type_ignores=[])


def _call_at(source: str, match: re.Match[str]) -> str:
    """From the function's name to the bracket that closes the call."""
    end = source.index(")", match.end())
    while True:
        call = source[match.start() : end + 1]
        try:
            ast.parse(call)
        except SyntaxError:
            end = source.index(")", end + 1)
        else:
            # Of a plural, what stands behind the texts is no Python.
            return call


def _messages_of(tree: ast.AST) -> Iterator[Message]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        texts = [_text_of(each) for each in node.args[:3]]
        context, text, plural = None, None, None
        if function in SINGULAR:
            text = texts[0]
        elif function in PLURAL:
            text, plural = texts[:2]
        elif function in CONTEXTUAL:
            context, text = texts[:2]
        elif function in CONTEXTUAL_PLURAL:
            context, text, plural = texts[:3]
        # What is looked up by a variable was found where it is written.
        if text is not None:
            yield Message(context, text, plural)


def _text_of(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


# --- the files --------------------------------------------------------------------------------------------------------


def path_of(language: str) -> Path:
    return ROOT / "locale" / language / "LC_MESSAGES" / "django.po"


def read(language: str) -> polib.POFile:
    path = path_of(language)
    # Without wrapping, a change of one text is a change of one line.
    return polib.pofile(str(path), wrapwidth=0) if path.exists() else polib.POFile(wrapwidth=0)


def message_of(entry: polib.POEntry) -> Message:
    return Message(entry.msgctxt or None, entry.msgid, entry.msgid_plural or None)


def is_translated(entry: polib.POEntry) -> bool:
    if entry.fuzzy:
        return False
    if entry.msgid_plural:
        return bool(entry.msgstr_plural) and all(entry.msgstr_plural.values())
    return bool(entry.msgstr)


def update(language: str) -> list[polib.POEntry]:
    """Add what is new, drop what is gone, compile. Returns what is not translated."""
    old = {message_of(entry): entry for entry in read(language)}
    new = polib.POFile(wrapwidth=0)
    new.metadata = {
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
        "Language": language,
        "MIME-Version": "1.0",
        "Plural-Forms": "nplurals=2; plural=(n != 1);",
    }
    for message, files in sorted(found().items(), key=lambda item: (min(item[1]), item[0].text)):
        entry = polib.POEntry(msgctxt=message.context, msgid=message.text, msgid_plural=message.plural or "")
        entry.occurrences = [(name, "") for name in sorted(files)]
        if message.plural:
            entry.msgstr_plural = {0: "", 1: ""}
        if (known := old.get(message)) is not None:
            entry.msgstr, entry.msgstr_plural = known.msgstr, known.msgstr_plural
        if "%(" in message.text + (message.plural or ""):
            entry.flags = ["python-format"]
        new.append(entry)
    path = path_of(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    new.save(str(path))
    path.with_suffix(".mo").write_bytes(new.to_binary())
    return [entry for entry in new if not is_translated(entry)]


def main() -> None:
    settings.configure(USE_I18N=True)
    for language in LANGUAGES:
        missing = update(language)
        for entry in missing:
            sys.stdout.write(f"{language}: {entry.msgid!r}\n")
        sys.stdout.write(f"{language}: {len(missing)} left to translate\n")


if __name__ == "__main__":
    main()

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

from tenants.packs import all_packs

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("webhooks_platform", "tenants", "deliveries")
LANGUAGES: Final = ("de",)

SINGULAR: Final = {"gettext", "gettext_lazy", "gettext_noop", "_", "said", "_Refused"}
PLURAL: Final = {"ngettext", "ngettext_lazy", "said_of"}
CONTEXTUAL: Final = {"pgettext", "pgettext_lazy"}
CONTEXTUAL_PLURAL: Final = {"npgettext", "npgettext_lazy"}
REFUSALS: Final = {
    "Failure": 1,
    "Invalid": 1,
    "InvalidContent": 0,
    "InvalidExpression": 0,
    "MalformedJson": 0,
    "MappingFailed": 0,
    "NamingFailed": 0,
    "Refused": 1,
    "TransformationFailed": 0,
    "WrongField": 2,
    "_failed": 0,
    "_not_verified": 0,
    "add": 2,
    "matching": 3,
}
"""What is raised or collected in English with a text for people, and which argument that is. The portal translates it."""
NOT_IN_THE_PORTAL: Final = (
    "tenants/api/",
    "tenants/openapi_catalogue.py",
    "tenants/services/tenants.py",
    "deliveries/api/",
    "deliveries/services/bulk",
    "deliveries/bench/",
    "webhooks_platform/",
)
"""They refuse clients of the API and operators alone."""
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
        for message in [*_messages_of(source), *_refusals_of(name, source)]:
            messages.setdefault(message, set()).add(name)
    for name, text in _packs():
        messages.setdefault(Message(None, text, None), set()).add(name)
    return messages


def _packs() -> Iterator[tuple[str, str]]:
    """What packs are called. What is in them is in English: it becomes a part of somebody's catalogue."""
    for pack in all_packs().values():
        name = f"tenants/packs/{pack.name}.yaml"
        yield name, pack.title
        yield name, pack.description


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
        function, arguments = _name_of(node.func), node.args
        if function == "partial" and arguments:
            # `partial(ngettext, "%(number)d day", "%(number)d days")`
            function, arguments = _name_of(arguments[0]), arguments[1:]
        texts = [_text_of(each) for each in arguments[:3]]
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


def _refusals_of(name: str, tree: ast.AST) -> Iterator[Message]:
    if name.startswith(NOT_IN_THE_PORTAL):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (argument := refusal_of(node)) is not None:
            for text in _texts_within(argument):
                yield Message(None, text, None)


def refusal_of(call: ast.Call) -> ast.expr | None:
    """The text for people, if this call is one that refuses with one."""
    function = _name_of(call.func)
    place = REFUSALS.get(function)
    if place is None:
        return None
    if len(call.args) > place:
        return call.args[place]
    return next((each.value for each in call.keywords if each.arg == "says"), None)


def filled_in_where_it_is_refused() -> Iterator[tuple[str, ast.JoinedStr]]:
    """Texts that no file of translations can have as they stand."""
    for name, tree in _python():
        if not name.startswith(NOT_IN_THE_PORTAL):
            for node in ast.walk(tree):
                text = refusal_of(node) if isinstance(node, ast.Call) else None
                if isinstance(text, ast.JoinedStr):
                    yield name, text


def _texts_within(argument: ast.expr) -> Iterator[str]:
    """One; a publish is refused by a list of pairs of a field and a text."""
    if isinstance(argument, ast.List):
        for entry in argument.elts:
            if isinstance(entry, ast.Tuple) and (text := _text_of(entry.elts[-1])):
                yield text
    elif isinstance(argument, ast.IfExp):
        yield from _texts_within(argument.body)
        yield from _texts_within(argument.orelse)
    elif text := _text_of(argument):
        yield text


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


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

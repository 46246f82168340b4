"""Forms: from what a browser sends to the body that the API's schema loads, and back to the errors beside the fields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from decimal import Decimal, DecimalException
from types import MappingProxyType
from typing import Any

import orjson
from flask import request
from marshmallow import Schema, ValidationError, fields
from sqlalchemy.exc import IntegrityError
from werkzeug.datastructures import MultiDict

from dwctl.db import db
from dwctl.errors import Conflict, DwctlError
from dwctl.web import errors as web_errors

SEEN = "_seen"
"""The field in which a form says what it was opened on (`seen`)."""
_MOST_DIGITS = 30
_CHANGED_MEANWHILE = "Nothing was saved: this was changed by somebody else since you opened the form. Below is what you sent; look at what it is now, or save again to put yours in its place."


@dataclass(frozen=True, slots=True)
class Form:
    """What a form's template shows. values: by field, as they were sent; errors: by field; problem: what belongs to no field."""

    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether it came back because something in it was refused."""
        return bool(self.errors or self.problem)

    def without(self, secret: str) -> Form:
        """The same to be shown again, but for what was typed into the field of a secret."""
        kept = {name: value for name, value in self.values.items() if name != secret}
        return Form(kept, self.errors, self.problem)


def seen(schema: Schema | None, shown: Mapping[str, Any]) -> str:
    """What somebody sees who opens the form of a thing, as a digest: of the members that a change may have."""
    names = schema.load_fields if schema else ()
    members = {name: shown.get(name) for name in names}
    text = orjson.dumps(members, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(text).hexdigest()[:16]


def submit(
    change: Callable[[], Any],
    *,
    taken: Mapping[str, str] = MappingProxyType({}),
    seen: str | None = None,
) -> tuple[Any, Form]:
    """Run what a form asks for: its result and an empty form, or None and the form with what was wrong, in the API's words.

    `taken`: by field, what to say where the one thing that must be unique is there already. What no change of the form would mend (not allowed,
    the database away, a failure of ours) is raised. `seen`: how the thing stands now; a form that was opened when it stood otherwise would undo what
    somebody else has changed, and is shown again. (Of two that are sent in the same moment the later one wins.) Nothing of a refused change is left in the session for the page to see.
    """
    if seen is not None and request.form.get(SEEN, seen) != seen:
        return None, Form(sent(), problem=_CHANGED_MEANWHILE)
    try:
        return change(), Form()
    except ValidationError as error:
        found = dict(_flat(messages_of(error)))
        return None, Form(sent(), found, found.get("_schema"))
    except IntegrityError as broken:
        refusal = web_errors.integrity_error(broken)
        is_taken = bool(taken) and isinstance(refusal, Conflict)
        form = Form(sent(), taken) if is_taken else _refused(refusal)
    except DwctlError as refusal:
        # 502 is another server's failure: the form may name a better one.
        if refusal.status == 403 or (refusal.status >= 500 and refusal.status != 502):
            raise
        form = _refused(refusal)
    db.session.rollback()
    return None, form


def _refused(error: DwctlError) -> Form:
    beside = {error.param: error.message} if error.param else {}
    return Form(sent(), beside, None if error.param else error.message)


def is_typed(word: str) -> bool:
    """Whether the word was typed that `ui.confirmed` asks for. (Pages show no difference between one space and several.)"""
    return request.form.get("confirm", "").split() == word.split()


def confirmed(word: str) -> Form:
    """The same, as an empty form where it was."""
    if is_typed(word):
        return Form()
    return Form(sent(), {}, f"Nothing was changed: type “{word}” to confirm.")


def messages_of(error: ValidationError) -> dict[Any, Any]:
    """What is wrong by field, as marshmallow nests it."""
    messages = error.messages
    return messages if isinstance(messages, dict) else {"_schema": messages}


def sent() -> dict[str, Any]:
    """The form's fields as they came: a text each, a list for those that came several times."""
    values = request.form.to_dict(flat=False)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def json_of(text: Any) -> Any:
    """What a field for JSON has; null where it is empty. What is no JSON goes on as the text it is, for the schema to refuse."""
    if not isinstance(text, str) or not text.strip():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def read_share(body: dict[str, Any], kept: float | None) -> None:
    """A share of calls is written as a percentage (`shown_share`); one that stands as it was shown stays as it is."""
    sent = body.get("log_sample")
    if not isinstance(sent, float):
        return
    if sent == shown_share(kept):
        del body["log_sample"]
    else:
        body["log_sample"] = sent / 100


def shown_share(kept: float | None) -> float | None:
    """The percentage that a form shows of it."""
    return None if kept is None else round(kept * 100, 4)


def fields_of(values: Mapping[str, str]) -> MultiDict[str, str]:
    """Some fields as if a form of their own had brought them, for `body`."""
    return MultiDict(dict(values))


def local_moment(text: str, zone: tzinfo) -> str:
    """What `<input type=datetime-local>` sends, a moment without a zone, as the API takes it. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).isoformat()


def price_of_one(text: str) -> str:
    """The price of one token, of that for a million; what is no number goes on as it is, for the schema to refuse."""
    if len(text) > _MOST_DIGITS:
        return text
    try:
        price = Decimal(text.strip().removeprefix("$"))
    except DecimalException:
        return text
    # (Of a number with an exponent of a million, digit by digit would be a megabyte.)
    is_usual = price.is_finite() and abs(price.adjusted()) <= _MOST_DIGITS
    return format(price / 1_000_000, "f") if is_usual else text


def body(schema: Schema | None, form: MultiDict[str, str] | None = None) -> dict[str, Any]:
    """A JSON body of a form's fields, by the schema that will load it.

    Fields of the schema alone. A field that is in the form and empty is null where it may be, else left out, and so as if not sent; a check box is
    true when it came and false when its companion `name.shown` did; numbers stay text where they are none, so that the schema can say so. Members of
    nested objects are named `outer.inner`; lists take every value of their name, or one text with a value a line.
    """
    if schema is None:
        return {}
    given = request.form if form is None else form
    return dict(_members(schema, given, ""))


def _members(schema: Schema, form: MultiDict[str, str], prefix: str) -> Any:
    for name, kind in schema.load_fields.items():
        key = prefix + (kind.data_key or name)
        if isinstance(kind, fields.Nested) and not kind.many:
            inner = dict(_members(kind.schema, form, f"{key}."))
            if inner:
                yield kind.data_key or name, inner
        elif key in form or f"{key}.shown" in form:
            value = _value(kind, key, form)
            if value is not None or kind.allow_none:
                yield kind.data_key or name, value


def _value(kind: fields.Field[Any], key: str, form: MultiDict[str, str]) -> Any:
    if isinstance(kind, fields.Boolean):
        found = form.getlist(key)
        return bool(found) and found[-1].lower() in ("true", "on", "1", "yes")
    if isinstance(kind, fields.List):
        return _list(kind, form.getlist(key))
    text = form.get(key, "")
    if not text.strip():
        return None
    if isinstance(kind, fields.Integer):
        return _whole(text)
    if isinstance(kind, fields.Float):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _list(kind: fields.List[Any], values: list[str]) -> list[Any]:
    lines = values if len(values) != 1 else values[0].splitlines()
    found = [line.strip() for line in lines if line.strip()]
    if isinstance(kind.inner, fields.Integer):
        return [_whole(one) for one in found]
    return found


def _whole(text: str) -> int | str:
    """A whole number as people write it. One with more digits than any field takes stays text: Python refuses to read thousands of them."""
    digits = text.strip().replace(",", "").replace("_", "")
    is_number = digits.removeprefix("-").isdecimal() and len(digits) <= _MOST_DIGITS
    return int(digits) if is_number else text


def _flat(messages: Mapping[Any, Any], prefix: str = "") -> Any:
    for name, found in messages.items():
        if isinstance(found, Mapping):
            yield from _flat(found, f"{prefix}{name}.")
        else:
            text = found[0] if isinstance(found, list) and found else str(found)
            yield f"{prefix}{name}", str(text)

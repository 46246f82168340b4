"""POST /files: a file of requests is taken in while it comes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from flask import current_app, request

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource
from dwctl.config import Settings
from dwctl.db import db
from dwctl.errors import DwctlError, Invalid
from dwctl.files import codings, file_object, intake, models
from dwctl.files.forms import Form
from dwctl.files.intake import Limits
from dwctl.files.lines import LineError, Rules
from dwctl.files.schemas import FileSchema
from dwctl.files.slots import Slots
from dwctl.files.storing import FileHead, StoredFile
from dwctl.identity import api_keys
from dwctl.printable import printable
from dwctl.queue.tables import File
from dwctl.web import current, described
from dwctl.web.body import Body
from dwctl.web.schemas import Blueprint

log = logging.getLogger(__name__)

blueprint = Blueprint("upload", __name__, description="Files of requests")
guard.protect(blueprint)

PURPOSE = "batch"
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_PIECE_BYTES = 64 * 1024
_LONGEST_NAME = 255
# Many clients look for an answer only when they have sent everything.
_SKIPPED_BYTES = 256 * 1024 * 1024
_SKIPPED_S = 30.0


@blueprint.route("/files", methods=["POST"])
@guard.requires_own(Resource.FILES, Operation.CREATE)
@blueprint.response(201, FileSchema)
@described.says(refusals=(400, 404, 408, 413, 415, 429))
def upload_file() -> dict[str, Any]:
    """Upload a file of requests (JSONL, one request in each line) for batches"""
    try:
        stored = _in_turn(guard.identify(), current.settings())
    except DwctlError:
        stream = request.environ["wsgi.input"]
        if isinstance(stream, Body):
            stream.skip(_SKIPPED_BYTES, _SKIPPED_S)
        raise
    log.info(
        "file uploaded",
        extra={
            "file_id": str(stored.head.id),
            "requests": stored.requests,
            "bytes": stored.size_bytes,
        },
    )
    return _shown(stored)


def _in_turn(caller: Caller, settings: Settings) -> StoredFile:
    most = settings.limits.files.max_file_size
    with _slots(settings).one(caller.owner_id):
        if most and (request.content_length or 0) > most + codings.FORM_BYTES:
            raise codings.too_large(most)
        wants = Wanted(settings)
        form = Form(request.content_type or "", _body(settings), wants.judge)
        return _take_in(caller, form, wants, settings)


class Wanted:
    """What the fields of the form say, each judged as it comes."""

    def __init__(self, settings: Settings) -> None:
        self._rule = settings.batches.files
        self.expires_after_s = self._rule.default_expiry_seconds

    def judge(self, name: str, value: str) -> None:
        """Raises Invalid for a value that cannot be followed."""
        if name == "purpose" and value != PURPOSE:
            text = f"Invalid purpose '{printable(value, 64)}'. Only 'batch' is supported."
            raise Invalid(text, code="invalid_purpose", param="purpose")
        if name == _ANCHOR and value != "created_at":
            text = f"Invalid {_ANCHOR}: only 'created_at' is supported."
            raise Invalid(text, code="invalid_expiry", param=_ANCHOR)
        if name == _SECONDS:
            self.expires_after_s = self._seconds(value)

    def _seconds(self, value: str) -> int:
        least, most = self._rule.min_expiry_seconds, self._rule.max_expiry_seconds
        short = value.strip()
        seconds = int(short) if short.isascii() and short.isdigit() and len(short) < 12 else None
        if seconds is None or not least <= seconds <= most:
            text = f"Invalid {_SECONDS}: must be a whole number from {least} to {most}."
            raise Invalid(text, code="invalid_expiry", param=_SECONDS)
        return seconds


def _take_in(caller: Caller, form: Form, wants: Wanted, settings: Settings) -> StoredFile:
    session = db.session()
    key_id = api_keys.hidden_key(session, caller.owner_id, caller.user_id, PURPOSE).id
    # Nobody holds a connection while the body comes.
    session.commit()
    connections = current.parts().connections
    with connections.transaction() as connection:
        usable = models.usable_by(connection, caller.owner_id)
    rules = Rules(
        models=usable,
        paths=settings.batches.allowed_url_paths,
        strict=settings.onwards.strict_mode,
        max_body_size=settings.limits.requests.max_body_size,
        max_requests=settings.limits.files.max_requests_per_file,
    )
    limits = Limits(
        max_bytes=settings.limits.files.max_file_size,
        most_errors=settings.batches.files.reported_errors,
        lines_at_once=settings.batches.files.batch_insert_size,
    )

    def heading(id: UUID) -> FileHead:
        name = printable(form.filename or "", _LONGEST_NAME) or f"upload-{id}"
        return FileHead(id, name, str(caller.owner_id), key_id, wants.expires_after_s)

    return intake.take_in(connections, _file(form), heading, rules, limits).file


def _file(form: Form) -> Iterator[bytes]:
    """The file's bytes; when they end the whole form has been read. Raises InvalidFile where it has no file."""
    pieces = form.file()
    first = next(pieces, None)
    if first is not None:
        yield from codings.plain_file(_with(first, pieces), form.filename)
    if not form.has_file:
        text = "No file field found in multipart upload"
        raise intake.InvalidFile([LineError(None, "file", "missing_file", text)])


def _with(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from pieces


def _body(settings: Settings) -> Iterator[bytes]:
    """The request's body without its content codings, read as it is wanted. Raises UnsupportedCoding before anything is read, TooLarge."""
    most = settings.limits.files.max_file_size
    applied = codings.applied_codings(request.headers.get("Content-Encoding", ""))
    pieces = codings.bounded(_received(settings), most)
    if not applied:
        return pieces
    return codings.unpacked(pieces, applied, most, settings.limits.requests.max_compression_ratio)


def _received(settings: Settings) -> Iterator[bytes]:
    stream = request.environ["wsgi.input"]
    if isinstance(stream, Body):
        stream.allow(settings.limits.files.body_timeout)
    while piece := stream.read(_PIECE_BYTES):
        yield piece


def _slots(settings: Settings) -> Slots:
    found: Slots = current_app.extensions.setdefault(
        "dwctl.upload_slots", Slots(settings.limits.files, settings.limits.account.uploads)
    )
    return found


def _shown(stored: StoredFile) -> dict[str, Any]:
    head = stored.head
    return file_object.bare(
        File(
            id=head.id,
            name=head.name,
            size_bytes=stored.size_bytes,
            purpose=PURPOSE,
            status="processed",
            created_at=stored.created_at,
            expires_at=stored.expires_at,
        )
    )

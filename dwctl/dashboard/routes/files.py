"""Files: what batches read and write. Uploaded with every line checked, looked into, downloaded, deleted."""

from __future__ import annotations

from typing import Any

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.batches import routes as batches
from dwctl.dashboard import operations, pages, panels
from dwctl.dashboard.routes.batches import PAGE, insist_on_batches, to_be_saved
from dwctl.downloads import routes as downloads
from dwctl.files import intake
from dwctl.files.routes import files, upload
from dwctl.web import current

blueprint = pages.screen("files")
blueprint.before_request(insist_on_batches)

PURPOSES = {"batch": "Input", "batch_output": "Output", "batch_error": "Errors"}
_PREVIEWED = 10
_LONGEST_LINE = 2000


@blueprint.get("/files")
def show() -> Response:
    """The list, newest first."""
    query = {
        "limit": PAGE,
        "purpose": request.args.get("purpose") or None,
        "search": request.args.get("q") or None,
        "after": request.args.get("after") or None,
    }
    found = operations.run(files.list_files, query=query)
    return pages.render(
        "files/page.html",
        title="Files",
        fragment="files/_rows.html",
        files=found["data"],
        further=pages.here(after=found["last_id"]) if found["has_more"] else None,
        is_filtered=bool(request.args.get("q") or request.args.get("purpose")),
        purposes=PURPOSES,
        may_upload=operations.may(upload.upload_file),
        may_delete=operations.may(files.delete_file),
        max_bytes=current.settings().limits.files.max_file_size,
        snippet=operations.snippet(files.list_files, query=query),
    )


@blueprint.get("/files/<file_id>")
def detail(file_id: str) -> Response:
    """One file: what is known of it, how it begins, and the batches that were made of it."""
    file = operations.run(files.get_file, file_id=file_id)
    query = {"input_file_id": file_id, "limit": PAGE, "include": "analytics,summary"}
    return pages.render(
        "files/detail.html",
        title=file["filename"],
        file=file,
        purposes=PURPOSES,
        begin=panels.attempt(lambda: _begin(file_id)),
        batches=panels.attempt(lambda: operations.run(batches.list_batches, query=query)),
        may_make=file["purpose"] == "batch" and operations.may(batches.create_batch),
        may_delete=operations.may(files.delete_file, file_id=file_id),
        snippet=operations.snippet(downloads.get_file_content, file_id=file_id),
    )


@blueprint.get("/files/<file_id>/content")
def content(file_id: str) -> Any:
    """The file, to be saved."""
    name = operations.run(files.get_file, file_id=file_id)["filename"]
    return to_be_saved(operations.run(downloads.get_file_content, file_id=file_id), name)


@blueprint.post("/files/upload")
def take_in() -> Response:
    """What `file-upload` sends, read as it comes. Taken: 201, and `Location` is where a batch is made of it. Refused: which lines are wrong."""
    try:
        made = operations.run(upload.upload_file)
    except intake.InvalidFile as error:
        wrong = error.members["errors"]
        most = current.settings().batches.files.reported_errors
        return pages.render(
            "files/_refused.html", title="", status=422, errors=wrong, is_cut=len(wrong) >= most
        )
    answer = pages.answer("", 201)
    answer.headers["Location"] = url_for("ui_batches.new", file=made["id"])
    return answer


@blueprint.post("/files/<file_id>/delete")
def delete(file_id: str) -> AnyResponse:
    """Delete it. Batches that run it are cancelled."""
    if request.form.get("confirm") != "delete":
        return pages.done(url_for(".detail", file_id=file_id), "Not deleted: type “delete”.")
    operations.run(files.delete_file, file_id=file_id)
    return pages.done(url_for(".show"), "File deleted.")


def _begin(file_id: str) -> list[str]:
    """The first lines, each cut: for people to recognise the file by."""
    query = {"limit": _PREVIEWED}
    lines = operations.run(downloads.get_file_content, query=query, file_id=file_id).get_data()
    return [
        text[:_LONGEST_LINE].decode("utf-8", "replace")
        + (" …" if len(text) > _LONGEST_LINE else "")
        for text in lines.splitlines()
    ]

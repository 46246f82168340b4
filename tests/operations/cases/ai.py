"""Everything under /ai/v1, by alice's key."""

from requests import Response

from tests.gateway import HELLO
from tests.operations.world import World, refused

DOCUMENT = "ai"


def create_chat_completions(w: World) -> Response:
    return w.ask(json={"model": w.alias, "messages": HELLO}, key=True)


def create_completions(w: World) -> Response:
    return w.ask(json={"model": w.alias, "prompt": "Hello"}, key=True)


def create_embeddings(w: World) -> Response:
    return w.ask(json={"model": w.alias, "input": "Hello"}, key=True)


def create_responses(w: World) -> Response:
    return w.ask(json={"model": w.alias, "input": "Hello", "no_member": 1}, key=True)


def count_input_tokens(w: World) -> Response:
    model = w.stage.model("tokenize")
    return w.ask(json={"model": model, "input": "Hello"}, key=True)


def estimate_call(w: World) -> Response:
    body = {"model": w.alias, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    return w.ask(json={"url": "/v1/chat/completions", "body": body}, key=True)


def list_models(w: World) -> Response:
    assert w.alias
    return w.ask(key=True)


def get_model(w: World) -> Response:
    return w.ask({"model": w.alias}, key=True)


def get_response(w: World) -> Response:
    return w.ask({"response_id": w.response}, key=True)


def delete_response(w: World) -> Response:
    return w.ask({"response_id": w.new_response()}, key=True)


def cancel_response(w: World) -> Response:
    return w.ask({"response_id": w.response}, key=True)


def list_input_items(w: World) -> Response:
    return w.ask({"response_id": w.response}, key=True)


def upload_file(w: World) -> Response:
    return w.upload()


def list_files(w: World) -> Response:
    assert w.batch
    return w.ask(query={"limit": 10}, key=True)


def get_file(w: World) -> Response:
    return w.ask({"file_id": w.file}, key=True)


def delete_file(w: World) -> Response:
    return w.ask({"file_id": w.new_file()}, key=True)


def estimate_cost(w: World) -> Response:
    return w.ask({"file_id": w.file}, key=True)


def get_file_content(w: World) -> Response:
    return w.ask({"file_id": w.file}, {"limit": 1}, key=True)


def create_batch(w: World) -> Response:
    return w.ask(
        json={
            "input_file_id": w.file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"a": "b"},
        },
        key=True,
    )


def list_batches(w: World) -> Response:
    assert w.batch
    assert w.failed_batch
    return w.ask(query={"include": "analytics,summary"}, key=True)


def get_batch(w: World) -> Response:
    return w.ask({"batch_id": w.batch}, key=True)


def delete_batch(w: World) -> Response:
    return w.ask({"batch_id": w.new_batch()}, key=True)


def cancel_batch(w: World) -> Response:
    return w.ask({"batch_id": w.new_batch()}, key=True)


def get_usage(w: World) -> Response:
    return w.ask({"batch_id": w.batch}, key=True)


def get_batch_progress(w: World) -> Response:
    return w.ask({"batch_id": w.batch}, key=True)


def list_batch_lines(w: World) -> Response:
    return w.ask({"batch_id": w.batch}, {"limit": 1, "status": "completed"}, key=True)


def group_batch_failures(w: World) -> Response:
    return w.ask({"batch_id": w.failed_batch}, key=True)


def get_batch_results(w: World) -> Response:
    return w.ask({"batch_id": w.batch}, key=True)


def retry_batch(w: World) -> Response:
    return w.ask({"batch_id": w.failed_batch}, key=True)


@refused(400)
def retry_requests(w: World) -> Response:
    return w.ask({"batch_id": w.batch}, json={"request_ids": ["nothing"]}, key=True)


def list_daemons(w: World) -> Response:
    w.stage.service.worker()
    return w.ask()

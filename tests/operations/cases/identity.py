"""Sign-in, people, groups, keys, settings."""

from requests import Response

from tests.gateway import EVERYONE, unique
from tests.operations.world import World


def registration_status(w: World) -> Response:
    return w.ask(by=None)


def register(w: World) -> Response:
    name = unique("new")
    return w.ask(json={"username": name, "email": f"{name}@x.example", "password": "long-enough-1"}, by=None)  # fmt: skip


def login_status(w: World) -> Response:
    return w.ask(by=None)


def login(w: World) -> Response:
    name = unique("in")
    person = {"username": name, "email": f"{name}@x.example", "password": "long-enough-1"}
    made = w.stage.session.post(f"{w.stage.url}/authentication/register", json=person, timeout=20)
    w.stage.session.cookies.clear()
    assert made.ok, made.text
    return w.ask(json={"email": person["email"], "password": person["password"]}, by=None)


def logout(w: World) -> Response:
    return w.ask(by=None)


def leave(w: World) -> Response:
    return w.ask(by=None)


def change_password(w: World) -> Response:
    name = unique("pw")
    person = {"username": name, "email": f"{name}@x.example", "password": "long-enough-1"}
    made = w.stage.session.post(f"{w.stage.url}/authentication/register", json=person, timeout=20)
    cookie = f"dwctl_session={made.cookies['dwctl_session']}"
    w.stage.session.cookies.clear()
    passwords = {"current_password": "long-enough-1", "new_password": "long-enough-2"}
    return w.ask(json=passwords, by=None, headers={"cookie": cookie})


def list_users(w: World) -> Response:
    return w.ask(query={"include": "groups,billing", "limit": 100})


def create_user(w: World) -> Response:
    name = unique("made")
    return w.ask(json={"username": name, "email": f"{name}@x.example", "roles": ["StandardUser"]})


def get_user(w: World) -> Response:
    return w.ask({"user_id": "current"}, {"include": "groups,billing"})


def update_user(w: World) -> Response:
    return w.ask({"user_id": w.user}, json={"display_name": "Ada", "low_balance_threshold": 2.5, "no_field": 1})  # fmt: skip


def delete_user(w: World) -> Response:
    return w.ask({"user_id": w.new_user()})


def list_user_groups(w: World) -> Response:
    return w.ask({"user_id": w.user})


def add_user_group(w: World) -> Response:
    return w.ask({"user_id": w.user, "group_id": w.new_group()})


def remove_user_group(w: World) -> Response:
    group = w.new_group()
    w.stage.admin("POST", f"/groups/{group}/users/{w.user}")
    return w.ask({"user_id": w.user, "group_id": group})


def list_api_keys(w: World) -> Response:
    assert w.key
    return w.ask({"user_id": w.user}, {"limit": 3})


def create_api_key(w: World) -> Response:
    return w.ask({"user_id": w.user}, json={"name": "ci", "requests_per_second": 2.5, "burst_size": 5})  # fmt: skip


def get_api_key(w: World) -> Response:
    return w.ask({"user_id": w.user, "id": w.key})


def update_api_key(w: World) -> Response:
    return w.ask({"user_id": w.user, "id": w.key}, json={"name": "renamed", "capacity": 3})


def rotate_api_key(w: World) -> Response:
    return w.ask({"user_id": w.user, "id": w.new_key()}, json={"overlap_seconds": 60})


def delete_api_key(w: World) -> Response:
    return w.ask({"user_id": w.user, "id": w.new_key()})


def end_retired_secrets(w: World) -> Response:
    key = w.new_key()
    w.stage.admin("POST", f"/users/{w.user}/api-keys/{key}/rotate", {"overlap_seconds": 60})
    return w.ask({"user_id": w.user, "id": key})


def find_api_keys(w: World) -> Response:
    assert w.key
    return w.ask(query={"user_id": w.user, "state": "active", "limit": 3})


def find_api_key(w: World) -> Response:
    return w.ask({"id": w.key})


def list_group_members(w: World) -> Response:
    return w.ask({"group_id": w.group}, {"search": "user", "limit": 3})


def list_groups(w: World) -> Response:
    assert w.group
    return w.ask(query={"include": "users,models", "limit": 100})


def create_group(w: World) -> Response:
    return w.ask(json={"name": unique("g")})


def get_group(w: World) -> Response:
    return w.ask({"group_id": EVERYONE})


def update_group(w: World) -> Response:
    return w.ask({"group_id": w.group}, json={"description": "changed"})


def delete_group(w: World) -> Response:
    return w.ask({"group_id": w.new_group()})


def list_group_users(w: World) -> Response:
    return w.ask({"group_id": w.group})


def add_group_user(w: World) -> Response:
    return w.ask({"group_id": w.new_group(), "user_id": w.user})


def remove_group_user(w: World) -> Response:
    return w.ask({"group_id": w.group, "user_id": w.user})


def get_config(w: World) -> Response:
    return w.ask()


def choose_organization(w: World) -> Response:
    return w.ask(json={"organization_id": None})


def request_support(w: World) -> Response:
    return w.ask(json={"subject": "Help", "message": "It broke."})

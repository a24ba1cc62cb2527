from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from handlers import errors as server_errors
from tests.support.paths import REPOSITORY
from video_action_client import errors

CLIENTS = Path(errors.__file__).parent


def test_the_request_errors_are_the_servers() -> None:
    ours = {name: cls.default_status for name, cls in errors.REQUEST_ERRORS.items()}
    assert ours == {name: int(cls.status) for name, cls in server_errors.REQUEST_ERRORS.items()}


@pytest.mark.parametrize("cls", server_errors.REQUEST_ERRORS.values())
def test_a_body_of_the_server_becomes_the_exception_of_its_name(cls: type[server_errors.RequestError]) -> None:
    found = errors.error_in(json.dumps(cls("what is wrong").body()).encode())
    assert found is not None
    assert type(found) is errors.REQUEST_ERRORS[cls.__name__]
    assert (found.status, found.type, found.message) == (int(cls.status), cls.__name__, "what is wrong")
    assert isinstance(found, errors.RequestError)


@pytest.mark.parametrize(
    "body",
    [
        b'{"archery": 0.5, "code": 0.2, "type": 0.2, "message": 0.1}',
        b'[{"code": 1, "type": "a", "message": "b"}]',
        b'{"code": 1, "type": "a"}',
        b"not JSON",
        b"{",
        b"",
    ],
)
def test_an_answer_is_not_taken_for_a_refusal(body: bytes) -> None:
    assert errors.error_in(body) is None


def test_what_torchserve_does_not_name_keeps_its_type_and_status() -> None:
    found = errors.error_in(b'{"code": 405, "type": "MethodNotAllowedException", "message": "no"}')
    assert type(found) is errors.ServingError
    assert (found.status, found.type) == (405, "MethodNotAllowedException")


def test_a_full_queue_is_told_by_its_words_where_there_is_no_type_for_it() -> None:
    message = 'Model "x" has no worker to serve inference request. Please use scale workers API to add workers.'
    for wire_type in ("InternalServerException", "ServiceUnavailableException"):
        found = errors.api_error(None, wire_type, message)
        assert isinstance(found, errors.ServerBusy)
        assert found.message.startswith("the model's queue is full, or none of its workers runs: try again")
        assert found.message.endswith(message)
    assert isinstance(errors.api_error(None, "InternalServerException", "Prediction failed"), errors.PredictionFailed)


def test_the_tree_at_the_top_of_the_file_is_the_tree() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1]
    drawn = {line.replace("|", "").replace("`--", "").replace("--", "").split()[0] for line in tree.splitlines()}
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert drawn == classes


def test_the_package_imports_only_itself_and_its_requirements() -> None:
    allowed = {"urllib3", "grpc", "google", "tqdm", "typing_extensions"} | set(sys.stdlib_module_names)
    for path in CLIENTS.rglob("*.py"):
        extra = {"av"} if path.name == "connection.py" and path.parent.name == "live" else set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [] if node.level else [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= allowed | extra, f"{path.name}: {names}"


def test_importing_it_imports_neither_torch_nor_torchserve_nor_the_handlers() -> None:
    code = "import sys, video_action_client, scripts.predict, scripts.models; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"video_action_client", "grpc", "urllib3"} <= loaded
    assert not loaded & {"torch", "ts", "handlers", "numpy", "av", "psutil", "requests"}

"""The server of this repository, as its commands find it without flags."""

from __future__ import annotations

from pathlib import Path

from serving.environment import CONFIG, REPOSITORY, Ports
from video_action_client.commands.connection import Defaults
from video_action_client.keys import KEY_FILE

START_HINT = "./scripts/quickstart starts one"


def repository_defaults() -> Defaults:
    """The addresses of this repository's config.properties; its key file, unless the current folder has one."""
    ports = Ports.of_config() if CONFIG.is_file() else Ports()
    here, beside_config = Path(KEY_FILE), REPOSITORY / KEY_FILE
    return Defaults(
        url=f"http://127.0.0.1:{ports.inference}",
        management_url=f"http://127.0.0.1:{ports.management}",
        grpc_url=f"127.0.0.1:{ports.grpc_inference}",
        grpc_management_url=f"127.0.0.1:{ports.grpc_management}",
        key_file=here if here.is_file() or not beside_config.is_file() else beside_config,
        key_file_text="the one in this folder, else the one beside config.properties",
        start_hint=START_HINT,
    )

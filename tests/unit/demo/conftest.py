"""The scripted server, key files and answers of the clients' tests."""

from tests.unit.clients.conftest import fake, full_answer, write_keys

__all__ = ["fake", "full_answer", "write_keys"]

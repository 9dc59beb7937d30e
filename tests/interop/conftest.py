"""The peer: our library behind a pipe."""

import json
import os
import pathlib
import subprocess
import tempfile

import pytest


class Peer:
    def __init__(self):
        self._process = subprocess.Popen(
            [os.environ["CKPTRING_INTEROP_PEER"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def try_(self, do, **command):
        """The answer, whatever it is."""
        line = json.dumps({"do": do, **{k: _plain(v) for k, v in command.items()}})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the peer died"
        return json.loads(answer)

    def ask(self, do, **command):
        answer = self.try_(do, **command)
        assert answer["ok"], answer
        return answer

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0


def _plain(value):
    return str(value) if isinstance(value, pathlib.Path) else value


@pytest.fixture(scope="session")
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="ckptring-interop-") as path:
        yield pathlib.Path(path)

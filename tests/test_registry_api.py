"""The registry as a process, through its HTTP API."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import write_key

from dspm.netram.wire import operator_token


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    write_key(tmp_path / "key", "secret\n")
    (tmp_path / "c.toml").write_text('cluster = "c"\nkey_file = "key"\n')
    command = [sys.executable, "-m", "dspm.cli.main", "registry", "--dir", str(tmp_path / "r")]
    command += ["--config", str(tmp_path / "c.toml"), "--listen", "127.0.0.1:0"]
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.stdout is not None
    said = json.loads(p.stdout.readline())
    assert said["pid"] == p.pid
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1 and "another registry uses" in second.stderr
    yield said["url"]
    p.send_signal(signal.SIGTERM)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 0 and "Traceback" not in err


def test_http(url: str) -> None:
    headers = {"Authorization": f"Bearer {operator_token(b'secret')}"}
    with httpx.Client(base_url=url, trust_env=False) as http:
        assert http.get("/v1/health").json()["status"] == "ok"
        assert http.get("/v1/view").status_code == 401
        assert http.get("/v1/view", headers={"Authorization": "Bearer no"}).status_code == 401
        assert http.get("/v1/view", headers=headers).json()["cluster"] == "c"
        assert http.get("/v1/datasets", headers=headers).json() == {"datasets": [], "next": None}
        for bad in ("0", "1001", "-1", "x", "9" * 30, "²"):
            answer = http.get("/v1/datasets", params={"limit": bad}, headers=headers)
            assert answer.status_code == 400 and "1 to 1000" in answer.json()["hint"], bad
        assert http.delete("/v1/datasets/a/b.db", headers=headers).status_code == 404
        assert http.post("/v1/nodes", content=b"{", headers=headers).status_code == 400
        assert http.post("/v1/nodes", content=b"x" * 100_000, headers=headers).status_code == 400
        bad = {"name": "n", "address": "nowhere", "machine": "m"}
        answer = http.post("/v1/nodes", json=bad, headers=headers)
        assert answer.status_code == 400 and answer.json()["hint"]

"""As much of a Kubernetes API server as the launcher uses: checks every request, and runs Jobs as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import kubernetes_validate

SERVICE = Path(__file__).with_name("service.py")
VERSION = "1.37"


class KubernetesApi:
    """Serves on a free port of 127.0.0.1 while it is open; `complaints` tells what was wrong with requests."""

    def __init__(self, folder: Path, token: str, secrets: dict[tuple[str, str], str]) -> None:
        self.folder = folder
        self.token = token
        self.secrets = secrets
        self.jobs: dict[str, dict[str, Any]] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.complaints: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 1.0  # of idle connections, s

            def _handle(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                status, answer = api.answer(self.command, self.path, self.headers.get("authorization") or "", body)
                raw = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _handle  # noqa: N815 - the library's names

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        for name in list(self.pods):
            self._end_pod(name, 0)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, target: str, authorization: str, body: dict[str, Any]) -> tuple[int, Any]:
        parsed = urlparse(target)
        parts, query = parsed.path.strip("/").split("/"), {k: v[-1] for k, v in parse_qs(parsed.query).items()}
        if authorization != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        match (method, *parts):
            case ("POST", "apis", "batch", "v1", "namespaces", namespace, "jobs"):
                return self._create(self.jobs, namespace, body)
            case ("POST", "api", "v1", "namespaces", namespace, "services"):
                return self._create(self.services, namespace, body)
            case ("GET", "apis", "batch", "v1", "namespaces", _, "jobs", name):
                return (200, self._job(name)) if name in self.jobs else _status(404, f'jobs "{name}" not found')
            case ("DELETE", "apis", "batch", "v1", "namespaces", _, "jobs", name):
                if self.jobs.pop(name, None) is None:
                    return _status(404, f'jobs "{name}" not found')
                self.services.pop(name, None)  # owned by the Job
                return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            case ("GET", "api", "v1", "namespaces", _, "pods"):
                name = query["labelSelector"].removeprefix("job-name=")
                pods = [self._pod(name)] if name in self.pods else []
                return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}
            case ("GET", "api", "v1", "namespaces", _, "pods", pod, "log"):
                lines = self._log(pod.removesuffix("-pod")).read_text().splitlines()
                return 200, "\n".join(lines[-int(query["tailLines"]) :])
            case ("DELETE", "api", "v1", "namespaces", _, "pods", pod):
                self._end_pod(pod.removesuffix("-pod"), float(query["gracePeriodSeconds"]))
                return 200, {"kind": "Pod", "apiVersion": "v1", "metadata": {}}
        self.complaints.append(f"{method} {target}")
        return _status(405, "the launcher has no business here")

    def _create(self, there: dict[str, dict[str, Any]], namespace: str, body: dict[str, Any]) -> tuple[int, Any]:
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except Exception as error:
            self.complaints.append(str(error))
            return _status(422, str(error))
        name = body["metadata"]["name"]
        if namespace == "forbidden":
            return _status(403, 'jobs.batch is forbidden: User "lobby" cannot create resource "jobs"')
        if body["metadata"]["namespace"] != namespace:
            self.complaints.append(f"{name} names another namespace than its path")
            return _status(400, "the namespace of the object does not match")
        if name in there:
            return _status(409, f'"{name}" already exists')
        body["metadata"]["uid"] = str(uuid.uuid4())
        there[name] = body
        if body["kind"] == "Job":
            self._run(name, namespace, body["spec"]["template"]["spec"]["containers"][0])
        elif body["metadata"]["ownerReferences"][0]["uid"] != self.jobs[name]["metadata"]["uid"]:
            self.complaints.append(f"the service {name} is not its job's")
        return 201, body

    def _run(self, name: str, namespace: str, container: dict[str, Any]) -> None:
        environment = {"PATH": os.environ["PATH"]}
        for each in container["env"]:
            ref = each.get("valueFrom", {}).get("secretKeyRef")
            environment[each["name"]] = self.secrets[ref["name"], ref["key"]] if ref else each["value"]
        with self._log(name).open("wb") as log:
            self.pods[name] = subprocess.Popen(
                [sys.executable, str(SERVICE), *container["args"]],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _job(self, name: str) -> dict[str, Any]:
        code = self.pods[name].poll()
        kind = "" if code is None else "Complete" if code == 0 else "Failed"
        conditions = [{"type": kind, "status": "True", "message": "Job has reached the specified backoff limit"}]
        return {**self.jobs[name], "status": {"conditions": conditions if kind else []}}

    def _pod(self, name: str) -> dict[str, Any]:
        code = self.pods[name].poll()
        phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code, "reason": "Error"}}
        box = {
            "name": "trajectory",
            "image": "i",
            "imageID": "i",
            "ready": code is None,
            "restartCount": 0,
            "state": state,
        }
        return {
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": f"{name}-pod", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "trajectory"}]},
            "status": {"phase": phase, "containerStatuses": [box]},
        }  # fmt: skip

    def _end_pod(self, name: str, grace_s: float) -> None:
        pod = self.pods.pop(name, None)
        if pod is None:
            return
        pod.terminate()
        try:
            pod.wait(max(grace_s, 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(pod.pid, signal.SIGKILL)
            pod.wait()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.txt"


def _status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}

"""Does with the official Python client what the cases do with kubectl.

    everything.py KUBECONFIG NAMESPACE POD_DIRECTORY PORT USER [GROUP...]

The Pod is `web`; its commands run in POD_DIRECTORY of this machine, its log is POD_DIRECTORY.log, and a web server
listens on PORT of it. USER `-` says that nobody is impersonated. The first thing that is not as it should be ends it.
"""

import hashlib
import json
import os
import pathlib
import sys
import threading
import time

import kubernetes
from kubernetes.stream import portforward, stream

kubeconfig, namespace, directory, port, user, *groups = sys.argv[1:]
directory = pathlib.Path(directory)
kubernetes.config.load_kube_config(kubeconfig)
core = kubernetes.client.CoreV1Api()


def same(what, got, want):
    if got != want:
        sys.exit(f"{what} is {got!r:.300}, want {want!r:.300}")


def whoami():
    review = kubernetes.client.AuthenticationV1Api().create_self_subject_review({})
    if user != "-":
        same("user", review.status.user_info.username, user)
        same("groups", review.status.user_info.groups, [*groups, "system:authenticated"])


def objects():
    body = {"metadata": {"name": "python"}, "data": {"value": "first"}}
    core.create_namespaced_config_map(namespace, body)
    core.patch_namespaced_config_map("python", namespace, {"data": {"value": "second"}})
    same("value", core.read_namespaced_config_map("python", namespace).data, {"value": "second"})
    same("listed", [i.metadata.name for i in core.list_namespaced_config_map(namespace).items], ["python"])
    core.delete_namespaced_config_map("python", namespace)


def watch():
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    writer = threading.Timer(0.5, core.create_namespaced_config_map, (namespace, {"metadata": {"name": "seen"}}))
    writer.start()
    watching = kubernetes.watch.Watch()
    seen = []
    events = watching.stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=10)
    for event in events:
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "ADDED":
            core.delete_namespaced_config_map("seen", namespace)
        else:
            watching.stop()
    same("events", seen, [("ADDED", "seen"), ("DELETED", "seen")])


def logs():
    log = pathlib.Path(f"{directory}.log")
    log.write_text("first\n")
    same("log", core.read_namespaced_pod_log("web", namespace, container="main"), "first\n")
    lines = kubernetes.watch.Watch().stream(core.read_namespaced_pod_log, "web", namespace, container="main")
    same("line", next(lines), "first")
    with log.open("a") as more:
        more.write("second\n")
    same("followed line", next(lines), "second")
    lines.close()


def session(verb, container, **options):
    method = {"exec": core.connect_get_namespaced_pod_exec, "attach": core.connect_get_namespaced_pod_attach}[verb]
    options = {"stdin": True, "stdout": True, "stderr": True, "tty": False} | options
    return stream(method, "web", namespace, container=container, _preload_content=False, **options)


def until(client, text):
    got, end = "", time.monotonic() + 10
    while text not in got:
        if time.monotonic() > end or not client.is_open():
            sys.exit(f"waited in vain for {text!r}, got {got!r}")
        client.update(timeout=1)
        got += client.read_stdout(timeout=0) if client.peek_stdout() else ""


def commands():
    client = session("exec", "main", command=["sh", "-c", "read line; echo out $line; echo err >&2; exit 3"])
    client.write_stdin("in\n")
    client.run_forever(timeout=10)
    same("stdout", client.read_stdout(), "out in\n")
    same("stderr", client.read_stderr(), "err\n")
    same("exit code", client.returncode, 3)


def terminal():
    client = session("exec", "terminal", command=["env", "PS1=# ", "sh"], stderr=False, tty=True)
    client.write_channel(4, json.dumps({"Height": 40, "Width": 132}))
    until(client, "#")
    client.write_stdin("sleep 0.3; stty size\r")
    until(client, "40 132")
    client.write_channel(4, json.dumps({"Height": 24, "Width": 80}))
    client.write_stdin("sleep 0.3; stty size\r")
    until(client, "24 80")
    client.write_stdin("exit 7\r")
    client.run_forever(timeout=10)
    same("exit code of the shell", client.returncode, 7)


def attach():
    client = session("attach", "main")
    until(client, "attached")
    client.write_stdin("python\n")
    until(client, "heard python")
    client.close()


def copy():
    size = 100_000_000
    content = os.urandom(1_000_000)
    client = session("exec", "main", command=["sh", "-c", f"head -c {size} >there; echo done"], binary=True)
    want = hashlib.md5()
    for _ in range(size // len(content)):
        client.write_stdin(content)
        want.update(content)
    client.run_forever(timeout=60)
    same("the end of the copy", client.read_stdout(), b"done\n")
    with (directory / "there").open("rb") as file:
        same("what arrived there", hashlib.file_digest(file, "md5").hexdigest(), want.hexdigest())
    # In pieces: the client's own buffer becomes slow as it grows.
    got, piece = hashlib.md5(), 5_000_000
    for start in range(0, size, piece):
        command = ["sh", "-c", f"tail -c +{start + 1} there | head -c {piece}"]
        client = session("exec", "main", command=command, stdin=False, binary=True)
        client.run_forever(timeout=60)
        got.update(client.read_stdout())
    same("what came back", got.hexdigest(), want.hexdigest())


def forward():
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, "web", namespace, ports=port)
    socket = forwarded.socket(int(port))
    socket.setblocking(True)
    socket.sendall(b"GET /file HTTP/1.0\r\n\r\n")
    answer = b""
    while more := socket.recv(65536):
        answer += more
    same("error of the forwarding", forwarded.error(int(port)), None)
    body = answer.partition(b"\r\n\r\n")[2]
    same("file", hashlib.md5(body).hexdigest(), hashlib.md5((directory / "file").read_bytes()).hexdigest())


for step in (whoami, objects, watch, logs, commands, terminal, attach, copy, forward):
    start = time.monotonic()
    step()
    print(f"{step.__name__}: {time.monotonic() - start:.1f} s", flush=True)

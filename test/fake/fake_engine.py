#!/usr/bin/env python3
"""A Docker engine that is only a memory: for tests in which a real one cannot
be made to do what is needed (torn answers, thousands of jobs a second, the order
of requests, other API versions).

    fake_engine.py --socket PATH

serves the Engine API on the unix socket PATH and its controls on PATH.control,
both HTTP.  It imitates Docker 20.10, its traps included: a started-again exited
container runs again, a wait on a container that was never started answers 0 at
once, the event buffer is 256 long.

What a container does
    is said by its environment:
        FAKE_RUN_MS=50        how long it runs (default 0: ends at once)
        FAKE_EXIT=3           its exit code
        FAKE_STDOUT=text      what it prints, as it stands; FAKE_STDERR likewise
        FAKE_LINES=1000       prints "line 1" .. "line 1000" instead
        FAKE_OOM=1            killed for memory (137 and OOMKilled)
        FAKE_START_ERROR=400 some text      start fails so, and stays "created"
        FAKE_IGNORE_TERM=1    SIGTERM does nothing
        FAKE_MADE=JSON        what inspect tells otherwise than it was asked for,
                              as {"HostConfig": {"Privileged": true}}
    or, without these, by its command, of which the words sleep N, echo TEXT
    (with >&2) and exit N are understood, separated by ";".

Controls (JSON in, JSON out)
    GET    /state         counters and orders, see State.report
    POST   /set           {"api_version", "min_api_version", "images": [..] or
                          null for any, "pull_ms", "engine_version", "cpus",
                          "memory", "info": members that /info gives instead,
                          "users": {image: its USER}, "files": {path: text} of
                          all images}
    POST   /fault         {"method": regex, "path": regex, "times": n, "skip": n,
                          "effect": true to carry the request out first, and one
                          of the faults below}; gives {"id"}
    DELETE /fault[/ID]
    POST   /drop_events   ends all event streams
    POST   /forget_events forgets the events that were, as a restart does
    POST   /emit          sends the given object to the event streams
    POST   /end           {"container", "exit_code"}: a container ends now
    POST   /listen        {"on": false}: connections are refused; state stays
    POST   /reset         forgets containers, counters and faults

Faults
    "status" and "message" or "body"    an answer instead
    "delay_ms"              the answer comes late (alone or with another fault)
    "hold"                  the same, when the fault is deleted; state tells how
                            many are "held"
    "hang"                  none ever
    "close_after_request"   reads the whole request, then closes
    "half_body"             head and half of the body, then closes
    "garbage"               bytes that are no HTTP
    "endless_headers"       a head that does not end
    "slow_drip_ms"          one byte each so many milliseconds
    "huge_body"             a body of that many bytes, chunked
    "redirect"              302 to that address
    "pieces"                a body of [hex, text, times] each (times 0: for ever),
                            chunked; then it ends, or stays open with "then": "hang"
    "raw"                   likewise, but with no HTTP around it; it is closed then
    "strays"                a list of that many containers of unknown jobs that run,
                            with the epoch that was asked for; "first_job": their jobs
"""

import argparse
import asyncio
import collections
import hashlib
import io
import json
import os
import re
import struct
import tarfile
import time
import urllib.parse

ZERO_TIME = "0001-01-01T00:00:00Z"


def stamp(ns):
    """Nanoseconds since 1970 as the engine writes them: always nine digits."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%09dZ" % rest


class HttpError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
        self.message = message


# ------------------------------------------------------------- containers


class Script:
    """What a container does, from its environment or command."""

    def __init__(self, config):
        env = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
        self.run_ms = float(env.get("FAKE_RUN_MS", 0))
        self.exit_code = int(env.get("FAKE_EXIT", 0))
        self.output = []  # (stream, line of bytes)
        self.oom = env.get("FAKE_OOM") == "1"
        self.ignore_term = env.get("FAKE_IGNORE_TERM") == "1"
        self.start_error = env.get("FAKE_START_ERROR")
        self.made = json.loads(env.get("FAKE_MADE", "{}"))
        if self.oom:
            self.exit_code = 137
        if any(name.startswith("FAKE_") for name in env):
            if "FAKE_LINES" in env:
                count = int(env["FAKE_LINES"])
                self.output = [(1, b"line %d\n" % n) for n in range(1, count + 1)]
            for stream, name in ((1, "FAKE_STDOUT"), (2, "FAKE_STDERR")):
                text = env.get(name, "").encode()
                self.output += [(stream, line) for line in text.splitlines(keepends=True)]
        else:
            self.read_command((config.get("Entrypoint") or []) + (config.get("Cmd") or []))

    def read_command(self, words):
        if len(words) >= 3 and words[-2] in ("-c", "-ec", "-lc"):
            parts = words[-1].split(";")
        else:
            parts = [" ".join(words)]
        for part in parts:
            found = re.match(r"\s*(?:exec )?(sleep|echo|exit)\b\s*(.*?)\s*$", part, re.S)
            if not found:
                continue
            verb, rest = found.groups()
            if verb == "sleep":
                try:
                    self.run_ms += float(rest) * 1000
                except ValueError:
                    self.run_ms += 1e12
            elif verb == "exit":
                self.exit_code = int(rest or 0)
                break
            else:
                stream = 2 if ">&2" in rest else 1
                text = rest.replace(">&2", "").strip().strip("\"'")
                self.output.append((stream, text.encode() + b"\n"))


class Container:
    def __init__(self, state, name, config):
        state.serial += 1
        self.id = hashlib.sha256(b"%d %d" % (os.getpid(), state.serial)).hexdigest()
        self.name = name
        self.config = config
        self.labels = config.get("Labels") or {}
        self.script = Script(config)
        self.created_ns = time.time_ns()
        self.status = "created"
        self.starts = 0
        self.pid = 0
        self.exit_code = 0
        self.error = ""
        self.oom_killed = False
        self.started_at = ZERO_TIME
        self.finished_at = ZERO_TIME
        self.log = []  # (ns, stream, bytes)
        self.changed = asyncio.Event()  # set, and replaced, at every change
        self.timer = None

    def wake(self):
        self.changed.set()
        self.changed = asyncio.Event()

    def print(self, stream, line):
        now = time.time_ns()
        for at in range(0, len(line), 16384):
            self.log.append((now, stream, line[at : at + 16384]))

    def inspect(self):
        config = dict(self.config)
        host_config = config.pop("HostConfig", None) or {}
        networking = config.pop("NetworkingConfig", None) or {}
        told = {
            "Id": self.id,
            "Created": stamp(self.created_ns),
            "Path": "fake",
            "Args": [],
            "State": {
                "Status": self.status,
                "Running": self.status == "running",
                "Paused": False,
                "Restarting": False,
                "OOMKilled": self.oom_killed,
                "Dead": False,
                "Pid": self.pid,
                "ExitCode": self.exit_code,
                "Error": self.error,
                "StartedAt": self.started_at,
                "FinishedAt": self.finished_at,
            },
            "Image": "sha256:" + image_id(config.get("Image", "")),
            "Name": "/" + self.name,
            "RestartCount": 0,
            "Driver": "fake",
            "Platform": "linux",
            "HostConfig": host_config,
            "Mounts": [],
            "Config": config,
            "NetworkSettings": {"Networks": networking.get("EndpointsConfig") or {}},
        }
        for name, value in self.script.made.items():
            told[name] = {**told[name], **value} if isinstance(value, dict) else value
        return told

    def summary(self):
        text = {
            "created": "Created",
            "running": "Up 1 second",
            "exited": "Exited (%d) 1 second ago" % self.exit_code,
        }
        return {
            "Id": self.id,
            "Names": ["/" + self.name],
            "Image": self.config.get("Image", ""),
            "ImageID": "sha256:" + image_id(self.config.get("Image", "")),
            "Command": "fake",
            "Created": self.created_ns // 1_000_000_000,
            "Ports": [],
            "Labels": self.labels,
            "State": self.status,
            "Status": text.get(self.status, self.status),
            "HostConfig": {"NetworkMode": "bridge"},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        }


def image_id(reference):
    return hashlib.sha256(reference.encode()).hexdigest()


def full_reference(reference):
    last = reference.rsplit("/", 1)[-1]
    return reference if ":" in last or "@" in reference else reference + ":latest"


class State:
    def __init__(self):
        self.settings = {
            "api_version": "1.41",
            "min_api_version": "1.12",
            "engine_version": "20.10.24",
            "images": None,
            "pull_ms": 0,
            "cpus": 2,
            "memory": 4 << 30,
            "info": {},
            "users": {},
            "files": {},
        }
        self.serial = 0
        self.faults = {}
        self.fault_serial = 0
        self.releases = {}  # by fault: set when what it holds may go on
        self.held = 0
        self.event_streams = set()
        self.reset()

    def reset(self):
        for container in list(getattr(self, "containers", {}).values()):
            if container.timer:
                container.timer.cancel()
        self.containers = {}
        self.volumes = {}
        self.names = {}
        self.events = collections.deque(maxlen=256)
        self.clear_faults()
        self.requests = collections.Counter()
        self.create_order = []
        self.start_order = []
        self.removed = []
        self.running = 0
        self.max_running = 0
        self.exits = 0
        self.pulls = collections.Counter()
        # By name, for a removed container keeps its number of runs.
        self.starts_by_name = collections.Counter()

    def add_fault(self, fault):
        self.fault_serial += 1
        self.faults[self.fault_serial] = fault
        if fault.get("hold"):
            self.releases[self.fault_serial] = fault["release"] = asyncio.Event()
        return self.fault_serial

    def clear_faults(self, number=None):
        for key in [number] if number is not None else {*self.faults, *self.releases}:
            self.faults.pop(key, None)
            release = self.releases.pop(key, None)
            if release:
                release.set()

    def report(self):
        """What /state answers.  Orders carry name, labels, arrival time (ns), and
        the number of the request on its connection: 1 is a fresh connection."""
        return {
            "creates": len(self.create_order),
            "starts": len(self.start_order),
            "exits": self.exits,
            "removes": len(self.removed),
            "running": self.running,
            "max_running": self.max_running,
            "create_order": self.create_order,
            "start_order": self.start_order,
            "removed": self.removed,
            "started_twice": sorted(n for n, c in self.starts_by_name.items() if c > 1),
            "starts_by_name": self.starts_by_name,
            "containers": {
                c.name: {
                    "id": c.id,
                    "status": c.status,
                    "starts": c.starts,
                    "exit_code": c.exit_code,
                    "labels": c.labels,
                }
                for c in self.containers.values()
            },
            "volumes": self.volumes,
            "requests": self.requests,
            "pulls": self.pulls,
            "event_streams": len(self.event_streams),
            "held": self.held,
            "faults": {
                i: {key: value for key, value in fault.items() if key != "release"}
                for i, fault in self.faults.items()
            },
        }

    # --------------------------------------------------------- lookups

    def find(self, reference):
        reference = urllib.parse.unquote(reference)
        container = self.containers.get(reference) or self.names.get(reference.lstrip("/"))
        if container is None and len(reference) >= 4:
            hits = [c for i, c in self.containers.items() if i.startswith(reference)]
            container = hits[0] if len(hits) == 1 else None
        if container is None:
            raise HttpError(404, "No such container: " + reference)
        return container

    def has_image(self, reference):
        images = self.settings["images"]
        return images is None or full_reference(reference) in map(full_reference, images)

    # --------------------------------------------------------- life

    def event(self, container, action, **attributes):
        now = time.time_ns()
        self.publish(
            {
                "status": action,
                "id": container.id,
                "from": container.config.get("Image", ""),
                "Type": "container",
                "Action": action,
                "Actor": {
                    "ID": container.id,
                    "Attributes": {
                        "image": container.config.get("Image", ""),
                        "name": container.name,
                        **container.labels,
                        **attributes,
                    },
                },
                "scope": "local",
                "time": now // 1_000_000_000,
                "timeNano": now,
            }
        )

    def publish(self, event):
        self.events.append(event)
        for stream in list(self.event_streams):
            stream.send(event)

    def create(self, name, config, order):
        image = config.get("Image") or ""
        if not image:
            raise HttpError(400, "No command specified")
        if not self.has_image(image):
            raise HttpError(404, "No such image: " + full_reference(image))
        if name and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name):
            raise HttpError(
                400,
                "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" % name,
            )
        if name in self.names:
            raise HttpError(
                409,
                'Conflict. The container name "/%s" is already in use by container "%s". '
                "You have to remove (or rename) that container to be able to reuse that name."
                % (name, self.names[name].id),
            )
        container = Container(self, name or "fake_%d" % self.serial, config)
        self.containers[container.id] = container
        self.names[container.name] = container
        self.create_order.append({"name": container.name, "labels": container.labels, **order})
        self.event(container, "create")
        return container

    def start(self, container, order):
        if container.status == "running":
            return False
        script = container.script
        if script.start_error:
            status, _, message = script.start_error.partition(" ")
            container.exit_code = 127
            container.error = message
            container.wake()
            raise HttpError(int(status), message)
        container.starts += 1
        self.starts_by_name[container.name] += 1
        self.start_order.append({"name": container.name, "labels": container.labels, **order})
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        container.status = "running"
        container.pid = 1000 + self.serial
        container.exit_code = 0
        container.oom_killed = False
        container.error = ""
        container.started_at = stamp(time.time_ns())
        container.finished_at = ZERO_TIME
        self.event(container, "start")
        for stream, line in script.output:
            container.print(stream, line)
        container.wake()
        loop = asyncio.get_running_loop()
        if script.run_ms < 1e11:
            container.timer = loop.call_later(
                script.run_ms / 1000, self.end, container, script.exit_code, script.oom
            )
        return True

    def end(self, container, exit_code, oom=False):
        if container.status != "running":
            return
        if container.timer:
            container.timer.cancel()
            container.timer = None
        self.running -= 1
        self.exits += 1
        container.status = "exited"
        container.pid = 0
        container.exit_code = exit_code
        container.oom_killed = oom
        container.finished_at = stamp(time.time_ns())
        if oom:
            self.event(container, "oom")
        self.event(container, "die", exitCode=str(exit_code))
        container.wake()

    def kill(self, container, signal):
        if container.status != "running":
            raise HttpError(
                409,
                "Cannot kill container: %s: Container %s is not running"
                % (container.id, container.id),
            )
        name = signal.upper()
        name = name[3:] if name.startswith("SIG") else name
        number = {"KILL": 9, "TERM": 15, "INT": 2, "HUP": 1, "QUIT": 3, "USR1": 10}.get(name)
        number = int(name) if name.isdigit() else number
        if number is None:
            raise HttpError(400, "Invalid signal: " + signal)
        self.event(container, "kill", signal=str(number))
        if number == 9 or not container.script.ignore_term:
            self.end(container, 128 + number)

    def remove(self, container, force):
        if container.status == "running":
            if not force:
                raise HttpError(
                    409,
                    "You cannot remove a running container %s. Stop the container before "
                    "attempting removal or force remove" % container.id,
                )
            self.end(container, 137)
        del self.containers[container.id]
        del self.names[container.name]
        self.removed.append(container.name)
        container.status = "removed"
        self.event(container, "destroy")
        container.wake()


def matches_labels(wanted, labels):
    for entry in wanted:
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def read_filters(query):
    """Both spellings of the API: {"label": ["a=b"]} and {"label": {"a=b": true}}."""
    text = query.get("filters")
    if not text:
        return {}
    try:
        return {key: list(values) for key, values in json.loads(text).items()}
    except (ValueError, AttributeError):
        raise HttpError(500, "invalid character in filters") from None


class EventStream:
    """One subscriber of /events."""

    def __init__(self, connection, filters):
        self.connection = connection
        self.filters = filters

    def wants(self, event):
        attributes = event.get("Actor", {}).get("Attributes", {})
        action = event.get("Action", "")
        return (
            ("type" not in self.filters or event.get("Type") in self.filters["type"])
            and ("event" not in self.filters or action.split(":")[0] in self.filters["event"])
            and matches_labels(self.filters.get("label", ()), attributes)
            and ("container" not in self.filters
                 or event.get("Actor", {}).get("ID") in self.filters["container"])
        )

    def send(self, event):
        if self.wants(event):
            self.connection.chunk(json.dumps(event).encode() + b"\n")


# ------------------------------------------------------------- HTTP

REASONS = {
    101: "UPGRADED", 200: "OK", 201: "Created", 204: "No Content", 302: "Found",
    304: "Not Modified", 400: "Bad Request", 404: "Not Found", 409: "Conflict",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
}  # fmt: skip


class Request:
    __slots__ = ("method", "path", "query", "body", "nth", "connection", "arrived_ns", "version", "number")


class Connection(asyncio.Protocol):
    """One client.  Requests are answered one after the other; a handler either
    answers at once (the fast path, no task) or is a coroutine."""

    serial = 0

    def __init__(self, state, handler, connections):
        self.state = state
        self.handler = handler
        self.connections = connections
        self.buffer = b""
        self.nth = 0
        self.busy = None
        self.close_after = False
        self.chunked = False
        self.stream = None

    def connection_made(self, transport):
        self.transport = transport
        self.connections.add(self)
        Connection.serial += 1
        self.number = Connection.serial

    def connection_lost(self, _error):
        self.connections.discard(self)
        self.state.event_streams.discard(self.stream)
        if self.busy:
            self.busy.cancel()

    def data_received(self, data):
        self.buffer += data
        self.pump()

    def pump(self):
        while not self.busy and not self.transport.is_closing():
            request = self.next_request()
            if request is None:
                return
            try:
                later = self.handler(self, request)
            except HttpError as error:
                self.answer(error.status, {"message": error.message})
                continue
            except Exception as error:  # a bug of ours must show in the test
                self.answer(500, {"message": "fake engine: %r" % error})
                raise
            if later is not None:
                self.busy = asyncio.ensure_future(later)
                self.busy.add_done_callback(self.finished)

    def finished(self, task):
        self.busy = None
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, HttpError):
            self.answer(error.status, {"message": error.message})
        elif error is not None:
            self.answer(500, {"message": "fake engine: %r" % error})
        self.pump()

    def next_request(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:]:
            key, _, value = line.partition(":")
            headers[key.strip().lower()] = value.strip()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body, rest = self.read_chunks(end + 4)
            if body is None:
                return None
        else:
            length = int(headers.get("content-length", 0))
            if len(self.buffer) < end + 4 + length:
                return None
            body = self.buffer[end + 4 : end + 4 + length]
            rest = self.buffer[end + 4 + length :]
        self.buffer = rest
        request = Request()
        request.method, target, protocol = head[0].split(" ", 2)
        path, _, query = target.partition("?")
        request.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True)) if query else {}
        request.path = path
        request.body = body
        request.connection = self
        request.arrived_ns = time.time_ns()
        request.version = None
        self.nth += 1
        request.nth = self.nth
        request.number = self.number
        self.http10 = protocol == "HTTP/1.0"
        self.close_after = self.http10 or headers.get("connection", "").lower() == "close"
        return request

    def read_chunks(self, at):
        body = b""
        while True:
            end = self.buffer.find(b"\r\n", at)
            if end < 0:
                return None, None
            size = int(self.buffer[at:end].split(b";")[0], 16)
            if len(self.buffer) < end + 2 + size + 2:
                return None, None
            body += self.buffer[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
            if size == 0:
                return body, self.buffer[at:]

    # ------------------------------------------------------- answers

    def head(self, status, headers):
        settings = self.state.settings
        lines = [
            "HTTP/1.1 %d %s" % (status, REASONS.get(status, "Unknown")),
            "Api-Version: " + settings["api_version"],
            "Docker-Experimental: false",
            "Ostype: linux",
            "Server: Docker/%s (linux)" % settings["engine_version"],
        ]
        lines += ["%s: %s" % pair for pair in headers.items()]
        if self.close_after:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def render(self, status, body=None, content_type=None):
        """Head and body of an ordinary answer."""
        if body is None:
            raw, headers = b"", {}
            if status not in (204, 304):
                headers["Content-Length"] = 0
        else:
            if isinstance(body, bytes):
                raw = body
                headers = {"Content-Type": content_type} if content_type else {}
            else:
                raw = json.dumps(body).encode() + b"\n"
                headers = {"Content-Type": "application/json"}
            headers["Content-Length"] = len(raw)
        return self.head(status, headers), raw

    def answer(self, status, body=None, content_type=None):
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(self.render(status, body, content_type)))
        if self.close_after:
            self.transport.close()

    def begin_stream(self, status=200, content_type=None):
        headers = {"Content-Type": content_type} if content_type else {}
        self.chunked = not self.http10
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        self.transport.write(self.head(status, headers))

    def chunk(self, data):
        if data and not self.transport.is_closing():
            self.transport.write(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    def end_stream(self):
        if self.chunked:
            self.transport.write(b"0\r\n\r\n")
        if self.close_after or not self.chunked:
            self.transport.close()


# ------------------------------------------------------------- the API


def version_tuple(text):
    return tuple(int(part) for part in text.split("."))


class Api:
    """Routes.  Each handler is (connection, request, match) and answers, or
    gives back a coroutine that will."""

    def __init__(self, state):
        self.state = state
        self.routes = [
            (method, re.compile(pattern + r"\Z"), handler)
            for method, pattern, handler in (
                ("GET|HEAD", r"/_ping", self.ping),
                ("POST", r"/containers/create", self.create),
                ("GET", r"/containers/json", self.list),
                ("GET", r"/containers/([^/]+)/json", self.inspect),
                ("POST", r"/containers/([^/]+)/start", self.start),
                ("GET", r"/containers/([^/]+)/logs", self.logs),
                ("GET", r"/containers/([^/]+)/archive", self.archive),
                ("DELETE", r"/containers/([^/]+)", self.remove),
                ("POST", r"/containers/([^/]+)/kill", self.kill),
                ("POST", r"/containers/([^/]+)/stop", self.stop),
                ("POST", r"/containers/([^/]+)/wait", self.wait),
                ("GET", r"/containers/([^/]+)/stats", self.stats),
                ("GET", r"/events", self.events),
                ("GET", r"/info", self.info),
                ("GET", r"/version", self.version),
                ("POST", r"/images/create", self.pull),
                ("GET", r"/images/json", self.images),
                ("GET", r"/images/(.+)/json", self.image),
                ("GET", r"/networks", self.networks),
                ("GET", r"/networks/([^/]+)", self.network),
                ("GET", r"/volumes", self.volumes),
                ("POST", r"/volumes/create", self.create_volume),
                ("DELETE", r"/volumes/([^/]+)", self.remove_volume),
            )
        ]
        self.routes = [(m.split("|"), p, h) for m, p, h in self.routes]

    def __call__(self, connection, request):
        found = re.match(r"/v(\d+\.\d+)(/.*)", request.path)
        if found:
            request.version, request.path = found.groups()
        shown = re.sub(r"/(containers|images)/(?!create|json)[^/]+", r"/\1/ID", request.path)
        self.state.requests["%s %s" % (request.method, shown)] += 1
        fault = self.pick_fault(request)
        if fault:
            return Faulty(self, connection, request, fault).run()
        return self.route(connection, request)

    def pick_fault(self, request):
        for number, fault in list(self.state.faults.items()):
            if not re.search(fault.get("method", ""), request.method):
                continue
            if not re.search(fault.get("path", ""), request.path):
                continue
            if fault.get("skip", 0) > 0:
                fault["skip"] -= 1
                continue
            if "times" in fault:
                fault["times"] -= 1
                if fault["times"] <= 0:
                    del self.state.faults[number]
            return fault
        return None

    def route(self, connection, request):
        if request.version:
            self.check_version(request.version)
        for methods, pattern, handler in self.routes:
            if request.method in methods:
                found = pattern.match(request.path)
                if found:
                    return handler(connection, request, found)
        raise HttpError(404, "page not found")

    def check_version(self, version):
        newest, oldest = self.state.settings["api_version"], self.state.settings["min_api_version"]
        if version_tuple(version) > version_tuple(newest):
            raise HttpError(
                400,
                "client version %s is too new. Maximum supported API version is %s"
                % (version, newest),
            )
        if version_tuple(version) < version_tuple(oldest):
            raise HttpError(
                400,
                "client version %s is too old. Minimum supported API version is %s, "
                "please upgrade your client to a newer version" % (version, oldest),
            )

    @staticmethod
    def order(request):
        return {"at_ns": request.arrived_ns, "nth": request.nth, "connection": request.number}

    # ------------------------------------------------------- engine

    def ping(self, connection, request, _match):
        connection.answer(200, b"OK" if request.method == "GET" else None, "text/plain; charset=utf-8")

    def version(self, connection, _request, _match):
        settings = self.state.settings
        connection.answer(
            200,
            {
                "Platform": {"Name": ""},
                "Components": [{"Name": "Engine", "Version": settings["engine_version"]}],
                "Version": settings["engine_version"],
                "ApiVersion": settings["api_version"],
                "MinAPIVersion": settings["min_api_version"],
                "Os": "linux",
                "Arch": "amd64",
                "KernelVersion": "0.0",
            },
        )

    def info(self, connection, _request, _match):
        settings = self.state.settings
        connection.answer(
            200,
            {
                "ID": "FAKE",
                "Name": "fake",
                "Containers": len(self.state.containers),
                "ContainersRunning": self.state.running,
                "NCPU": settings["cpus"],
                "MemTotal": settings["memory"],
                "ServerVersion": settings["engine_version"],
                "OperatingSystem": "none",
                "OSType": "linux",
                "Architecture": "x86_64",
                "KernelVersion": "0.0",
                "LoggingDriver": "json-file",
                "CgroupDriver": "cgroupfs",
                "CgroupVersion": "1",
                "Driver": "overlay2",
                "LiveRestoreEnabled": False,
                "SecurityOptions": ["name=seccomp,profile=default"],
                "Warnings": None,
                **settings["info"],
            },
        )

    def events(self, connection, request, _match):
        stream = EventStream(connection, read_filters(request.query))
        connection.begin_stream(200, "application/json")
        connection.stream = stream
        if "since" in request.query:
            since = int(float(request.query["since"]) * 1e9)
            for event in list(self.state.events):
                if event.get("timeNano", 0) >= since:
                    stream.send(event)
        if "until" in request.query and float(request.query["until"]) <= time.time():
            connection.end_stream()
            return None
        self.state.event_streams.add(stream)
        return self.forever(stream)

    async def forever(self, stream):
        try:
            await asyncio.Event().wait()
        finally:
            self.state.event_streams.discard(stream)

    # ------------------------------------------------------- containers

    def create(self, connection, request, _match):
        try:
            config = json.loads(request.body)
        except ValueError:
            raise HttpError(500, "invalid character looking for beginning of value") from None
        container = self.state.create(request.query.get("name", ""), config, self.order(request))
        connection.answer(201, {"Id": container.id, "Warnings": []})

    def list(self, connection, request, _match):
        filters = read_filters(request.query)
        every = request.query.get("all", "").lower() in ("1", "true") or "status" in filters
        found = []
        for container in self.state.containers.values():
            if not every and container.status != "running":
                continue
            if "status" in filters and container.status not in filters["status"]:
                continue
            if not matches_labels(filters.get("label", ()), container.labels):
                continue
            if "id" in filters and not any(container.id.startswith(i) for i in filters["id"]):
                continue
            if "name" in filters and not any(re.search(n, container.name) for n in filters["name"]):
                continue
            found.append(container.summary())
        found.reverse()
        connection.answer(200, found)

    def inspect(self, connection, _request, match):
        connection.answer(200, self.state.find(match[1]).inspect())

    def start(self, connection, request, match):
        if request.body.strip():
            raise HttpError(400, "starting container with non-empty request body was removed")
        started = self.state.start(self.state.find(match[1]), self.order(request))
        connection.answer(204 if started else 304)

    def kill(self, connection, request, match):
        self.state.kill(self.state.find(match[1]), request.query.get("signal") or "KILL")
        connection.answer(204)

    def stop(self, connection, request, match):
        container = self.state.find(match[1])
        if container.status != "running":
            connection.answer(304)
            return None
        return self.stop_slowly(connection, container, float(request.query.get("t", 10)))

    async def stop_slowly(self, connection, container, seconds):
        self.state.kill(container, "TERM")
        if container.status == "running":
            try:
                await asyncio.wait_for(container.changed.wait(), seconds)
            except asyncio.TimeoutError:
                pass
        if container.status == "running":
            self.state.kill(container, "KILL")
        self.state.event(container, "stop")
        connection.answer(204)

    def wait(self, connection, request, match):
        container = self.state.find(match[1])
        return self.wait_for(connection, container, request.query.get("condition") or "not-running")

    async def wait_for(self, connection, container, condition):
        connection.begin_stream(200, "application/json")
        starts, first = container.starts, True
        while container.status != "removed":
            if condition == "not-running" and container.status != "running":
                break
            if condition == "next-exit" and not first:
                if container.status == "exited" and (container.starts > starts or starts):
                    break
            first = False
            await container.changed.wait()
        answer = {"Error": None, "StatusCode": container.exit_code}
        connection.chunk(json.dumps(answer).encode() + b"\n")
        connection.end_stream()

    def remove(self, connection, request, match):
        force = request.query.get("force", "") in ("1", "true")
        self.state.remove(self.state.find(match[1]), force)
        connection.answer(204)

    def archive(self, connection, request, match):
        """A plain file, as the only member of a tar file."""
        container, path = self.state.find(match[1]), request.query["path"]
        text = self.state.settings["files"].get(path)
        if text is None:
            raise HttpError(404, "Could not find the file %s in container %s" % (path, container.name))
        member = tarfile.TarInfo(path.rsplit("/", 1)[-1])
        member.size = len(text.encode())
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            tar.addfile(member, io.BytesIO(text.encode()))
        connection.answer(200, out.getvalue(), "application/x-tar")

    def logs(self, connection, request, match):
        container, query = self.state.find(match[1]), request.query

        def is_on(name):
            return query.get(name, "").lower() in ("1", "true")

        streams = [number for number, name in ((1, "stdout"), (2, "stderr")) if is_on(name)]
        if not streams:
            raise HttpError(400, "Bad parameters: you must choose at least one stream")
        try:
            since = int(float(query.get("since", 0)) * 1e9)
        except ValueError:
            raise HttpError(500, "strconv.ParseInt: parsing %r" % query["since"]) from None
        frames = FrameWriter(streams, since, is_on("timestamps"), container.config.get("Tty"))
        first = 0
        if query.get("tail", "all").isdigit():
            first = max(0, len(container.log) - int(query["tail"]))
        if is_on("follow") and container.status == "running":
            return self.follow(connection, container, frames, first)
        connection.begin_stream()
        connection.chunk(frames.render(container.log[first:]))
        connection.end_stream()
        return None

    async def follow(self, connection, container, frames, position):
        connection.begin_stream()
        while True:
            changed = container.changed
            connection.chunk(frames.render(container.log[position:]))
            position = len(container.log)
            if container.status != "running":
                break
            await changed.wait()
        connection.end_stream()

    def stats(self, connection, _request, match):
        container = self.state.find(match[1])
        if container.status != "running":
            connection.answer(200, {"read": ZERO_TIME, "memory_stats": {}, "cpu_stats": {}})
            return
        connection.answer(
            200,
            {
                "read": stamp(time.time_ns()),
                "cpu_stats": {"cpu_usage": {"total_usage": 12345678}, "online_cpus": 2},
                "memory_stats": {"usage": 4 << 20, "max_usage": 5 << 20, "limit": 64 << 20},
                "pids_stats": {"current": 1},
            },
        )

    # ------------------------------------------------------- the rest

    def pull(self, connection, request, _match):
        reference = request.query.get("fromImage", "")
        tag = request.query.get("tag", "")
        if tag:
            reference += ("@" if tag.startswith("sha256:") else ":") + tag
        self.state.pulls[reference] += 1
        return self.pull_slowly(connection, reference, tag)

    async def pull_slowly(self, connection, reference, tag):
        connection.begin_stream(200, "application/json")
        steps = [{"status": "Pulling from fake", "id": tag}]
        for done in range(0, 101, 25):
            steps.append(
                {
                    "status": "Downloading",
                    "progressDetail": {"current": done, "total": 100},
                    "id": "0123456789ab",
                }
            )
        for step in steps:
            connection.chunk(json.dumps(step).encode() + b"\r\n")
            if self.state.settings["pull_ms"]:
                await asyncio.sleep(self.state.settings["pull_ms"] / 1000 / len(steps))
        if self.state.settings["images"] is not None:
            self.state.settings["images"].append(reference)
        done = {"status": "Status: Downloaded newer image for " + reference}
        connection.chunk(json.dumps(done).encode() + b"\r\n")
        connection.end_stream()

    def image(self, connection, _request, match):
        reference = urllib.parse.unquote(match[1])
        if not self.state.has_image(reference):
            raise HttpError(404, "No such image: " + full_reference(reference))
        digest = "sha256:" + image_id(full_reference(reference))
        connection.answer(
            200,
            {
                "Id": digest,
                "RepoTags": [full_reference(reference)],
                "RepoDigests": [re.split(r"[:@](?!.*/)", reference)[0] + "@" + digest],
                "Os": "linux",
                "Architecture": "amd64",
                "Size": 1000000,
                "Config": {"User": self.state.settings["users"].get(reference, ""), "Env": [], "Cmd": ["fake"], "Entrypoint": None, "Volumes": None},
            },
        )

    def images(self, connection, _request, _match):
        connection.answer(
            200,
            [
                {"Id": "sha256:" + image_id(full_reference(r)), "RepoTags": [full_reference(r)]}
                for r in self.state.settings["images"] or []
            ],
        )

    @staticmethod
    def network_named(name):
        driver = {"none": "null"}.get(name, name)
        return {"Name": name, "Id": image_id(name), "Driver": driver, "Scope": "local", "Labels": {}}

    def networks(self, connection, _request, _match):
        connection.answer(200, [self.network_named(name) for name in ("bridge", "host", "none")])

    def network(self, connection, _request, match):
        if match[1] not in ("bridge", "host", "none"):
            raise HttpError(404, "network %s not found" % match[1])
        connection.answer(200, self.network_named(match[1]))

    def volumes(self, connection, request, _match):
        wanted = read_filters(request.query).get("label", ())
        found = [v for v in self.state.volumes.values() if matches_labels(wanted, v["Labels"])]
        connection.answer(200, {"Volumes": found, "Warnings": None})

    def create_volume(self, connection, request, _match):
        """Of one name there is one volume, with the labels that it was first given."""
        config = json.loads(request.body)
        volume = {"Name": config["Name"], "Driver": "local", "Labels": config.get("Labels") or {}}
        connection.answer(201, self.state.volumes.setdefault(config["Name"], volume))

    def remove_volume(self, connection, _request, match):
        if self.state.volumes.pop(urllib.parse.unquote(match[1]), None) is None:
            raise HttpError(404, "get %s: no such volume" % match[1])
        connection.answer(204)


class FrameWriter:
    """Log records as the bytes of an answer."""

    def __init__(self, streams, since, timestamps, tty):
        self.streams = streams
        self.since = since
        self.timestamps = timestamps
        self.tty = tty

    def render(self, records):
        out = []
        for ns, stream, data in records:
            if stream not in self.streams or ns < self.since:
                continue
            if self.timestamps:
                data = stamp(ns).encode() + b" " + data
            if not self.tty:
                out.append(struct.pack(">BxxxI", stream, len(data)))
            out.append(data)
        return b"".join(out)


# ------------------------------------------------------------- faults


class Captured:
    """Stands in for the connection while a request with a fault is carried out;
    keeps the ordinary answer."""

    def __init__(self, connection):
        self.connection = connection
        self.result = (200, None, None)
        self.http10 = connection.http10
        self.stream = None

    def answer(self, status, body=None, content_type=None):
        self.result = (status, body, content_type)

    def begin_stream(self, status=200, content_type=None):
        self.result = (status, b"", content_type)

    def chunk(self, data):
        status, body, content_type = self.result
        self.result = (status, (body or b"") + data, content_type)

    def end_stream(self):
        pass


class Faulty:
    def __init__(self, api, connection, request, fault):
        self.api = api
        self.connection = connection
        self.request = request
        self.fault = fault

    # Faults that replace the answer need not carry the request out first.
    REPLACING = ("status", "hang", "close_after_request", "garbage", "endless_headers", "huge_body", "redirect", "pieces",
                 "raw", "strays")

    async def run(self):
        fault, connection = self.fault, self.connection
        transport = connection.transport
        replaces = any(fault.get(name) for name in self.REPLACING)
        alters = "half_body" in fault or "slow_drip_ms" in fault
        if not replaces and not alters and not fault.get("effect"):
            # Only late: an ordinary answer, streams included.
            await self.wait()
            later = self.api.route(connection, self.request)
            if later is not None:
                await later
            return
        result = (200, None, None)
        if fault.get("effect") or not replaces:
            result = await self.carry_out()
        await self.wait()

        if fault.get("hang"):
            await asyncio.Event().wait()
        elif fault.get("close_after_request"):
            transport.close()
        elif fault.get("garbage"):
            transport.write(b"\x00\xff\xfe this is not HTTP \x80\r\n\r\n" * 8)
            transport.close()
        elif fault.get("endless_headers"):
            await self.endless_headers()
        elif fault.get("huge_body"):
            await self.huge_body(int(fault["huge_body"]))
        elif "pieces" in fault:
            connection.begin_stream(200)
            await self.pieces(fault["pieces"], fault.get("then"), connection.chunk, connection.end_stream)
        elif "raw" in fault:
            await self.pieces(fault["raw"], fault.get("then"), transport.write, transport.close)
        elif "strays" in fault:
            connection.answer(200, self.strays(fault["strays"], fault.get("first_job", 10**9)))
        elif fault.get("redirect"):
            head = connection.head(302, {"Location": fault["redirect"], "Content-Length": 0})
            transport.write(head)
            self.end_answer()
        elif "status" in fault:
            body = fault.get("body", {"message": fault.get("message", "fault")})
            body = body.encode() if isinstance(body, str) else body
            connection.answer(fault["status"], body)
        elif not alters:
            connection.answer(*result)
        else:
            head, body = connection.render(*result)
            if fault.get("half_body"):
                transport.write(head + body[: len(body) // 2])
                transport.close()
            else:
                await self.drip(head + body, fault["slow_drip_ms"] / 1000)
                self.end_answer()

    async def wait(self):
        await asyncio.sleep(self.fault.get("delay_ms", 0) / 1000)
        if "release" in self.fault:
            self.api.state.held += 1
            try:
                await self.fault["release"].wait()
            finally:
                self.api.state.held -= 1

    def end_answer(self):
        if self.connection.close_after:
            self.connection.transport.close()

    async def carry_out(self):
        captured = Captured(self.connection)
        try:
            later = self.api.route(captured, self.request)
            if later is not None:
                await later
        except HttpError as error:
            return (error.status, {"message": error.message}, None)
        return captured.result

    async def drip(self, data, pause):
        for at in range(len(data)):
            if self.connection.transport.is_closing():
                return
            self.connection.transport.write(data[at : at + 1])
            await asyncio.sleep(pause)

    async def endless_headers(self):
        transport = self.connection.transport
        transport.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(1 << 30):
            if transport.is_closing():
                return
            transport.write(b"X-Header-%d: %s\r\n" % (number, b"x" * 1000))
            await asyncio.sleep(0.0001)

    def strays(self, count, first_job):
        wanted = [entry.partition("=")[::2] for entry in read_filters(self.request.query)["label"]]
        labels = {"container-manager.version": "1", "container-manager.attempt": "1", **dict(wanted)}
        return [
            {"Id": "%064x" % n, "State": "running", "Labels": {**labels, "container-manager.job": str(first_job + n)}}
            for n in range(count)
        ]

    async def pieces(self, pieces, then, write, end):
        transport = self.connection.transport
        for start, text, times in pieces:
            piece = bytes.fromhex(start) + text.encode()
            left = times or 1 << 62
            while left > 0 and not transport.is_closing():
                at_once = min(left, max(1, 65536 // len(piece)))
                left -= at_once
                write(piece * at_once)
                # No more in memory than the client takes.
                while transport.get_write_buffer_size() > 1 << 20 and not transport.is_closing():
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0)
        if then == "hang":
            await asyncio.Event().wait()
        if not transport.is_closing():
            end()

    async def huge_body(self, size):
        transport = self.connection.transport
        self.connection.begin_stream(200, "application/json")
        while size > 0 and not transport.is_closing():
            self.connection.chunk(b" " * min(size, 65536))
            size -= 65536
            # No more in memory than the client takes.
            while transport.get_write_buffer_size() > 1 << 20 and not transport.is_closing():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        if not transport.is_closing():
            self.connection.end_stream()


# ------------------------------------------------------------- controls


class Control:
    def __init__(self, state, server):
        self.state = state
        self.server = server

    def __call__(self, connection, request):
        data = json.loads(request.body) if request.body else {}
        state = self.state
        parts = request.path.strip("/").split("/")
        verb = (request.method, parts[0])
        result = {}
        if verb == ("GET", "state"):
            result = state.report()
        elif verb == ("POST", "set"):
            unknown = set(data) - set(state.settings)
            if unknown:
                raise HttpError(400, "unknown settings: %s" % ", ".join(sorted(unknown)))
            state.settings.update(data)
        elif verb == ("POST", "fault"):
            result = {"id": state.add_fault(data)}
        elif verb == ("DELETE", "fault"):
            state.clear_faults(int(parts[1]) if len(parts) > 1 else None)
        elif verb == ("POST", "drop_events"):
            for stream in list(state.event_streams):
                stream.connection.transport.close()
        elif verb == ("POST", "forget_events"):
            state.events.clear()
        elif verb == ("POST", "emit"):
            state.publish(data)
        elif verb == ("POST", "end"):
            state.end(state.find(data["container"]), int(data.get("exit_code", 0)))
        elif verb == ("POST", "listen"):
            return self.listen(connection, data["on"])
        elif verb == ("POST", "reset"):
            state.reset()
        else:
            raise HttpError(404, "no such control")
        connection.answer(200, result)
        return None

    async def listen(self, connection, is_on):
        if is_on:
            await self.server.open()
        else:
            self.server.close()
        connection.answer(200, {})


class Server:
    """The engine's door, which controls can close and open."""

    def __init__(self, state, path):
        self.state = state
        self.path = path
        self.api = Api(state)
        self.door = None
        self.connections = set()

    def connect(self):
        return Connection(self.state, self.api, self.connections)

    async def open(self):
        if self.door is None:
            loop = asyncio.get_running_loop()
            self.door = await loop.create_unix_server(self.connect, self.path + ".new", backlog=1024)
            # Whoever sees the socket may connect.
            os.chmod(self.path + ".new", 0o666)
            os.rename(self.path + ".new", self.path)

    def close(self):
        if self.door is not None:
            self.door.close()
            self.door = None
            os.unlink(self.path)
            for connection in list(self.connections):
                connection.transport.abort()


async def main():
    parser = argparse.ArgumentParser(description="a Docker engine for tests; see the head of this file")
    parser.add_argument("--socket", required=True)
    path = parser.parse_args().socket
    state = State()
    server = Server(state, path)
    await server.open()
    control = Control(state, server)
    loop = asyncio.get_running_loop()
    controls = await loop.create_unix_server(lambda: Connection(state, control, set()), path + ".control")
    await controls.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass

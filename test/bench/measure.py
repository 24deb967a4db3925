#!/usr/bin/env python3
"""Measures the extension on a real engine, for test/bench/engine.pl.

    measure.py DSN DOCKER_SOCKET FOLDER

DSN is of a server with databases "latency" and "rate", both with the extension.
Latency is measured through a proxy of ours between executor and engine, which
notes when a create request arrives; it costs what one more process on the way
costs, and it counts against the extension.  The engine's die events are read by
a listener of our own.  All clocks are the machine's real-time clock.

The rate is that of jobs that do nothing, next to a client that makes the same
API calls with the same bodies and no database, each at the setting that was
found to be its best, in turn.
"""

import http.client
import json
import os
import platform
import re
import select
import socket
import subprocess
import sys
import threading
import time

import psycopg2

N_SAMPLES = int(os.environ.get("CM_BENCH_SAMPLES", 200))
N_JOBS = int(os.environ.get("CM_BENCH_CONTAINERS", 100))
N_ROUNDS = int(os.environ.get("CM_BENCH_ROUNDS", 5))
IMAGE = "busybox:bench"
API = "/v1.41"
TERMINAL = ("completed", "failed", "timeout", "cancelled")

dsn, docker_socket, folder = sys.argv[1:]


# ------------------------------------------------- the proxy


class Proxy:
    """Passes bytes on as they come; notes the creates among them."""

    def __init__(self, path):
        self.creates = {}  # job id -> ns
        self.body = None  # of the last create
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(100)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client = self.listener.accept()[0]
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(docker_socket)
            threading.Thread(target=self.carry, args=(client, engine, True), daemon=True).start()
            threading.Thread(target=self.carry, args=(engine, client, False), daemon=True).start()

    def carry(self, source, target, look):
        # create goes on a connection of its own, so its head begins one.
        data, first_ns = b"", 0
        try:
            while True:
                chunk = source.recv(65536)
                now_ns = time.time_ns()
                if not chunk:
                    break
                target.sendall(chunk)
                if look:
                    first_ns = first_ns or now_ns
                    data += chunk
                    look = self.note(data, first_ns)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def note(self, data, first_ns):
        """True while more of the request is wanted."""
        head, found, body = data.partition(b"\r\n\r\n")
        if not found:
            return True
        if b"/containers/create" not in head.split(b"\r\n")[0]:
            return False
        length = int(re.search(rb"(?i)content-length: *(\d+)", head).group(1))
        if len(body) < length:
            return True
        self.body = json.loads(body[:length])
        self.creates[int(self.body["Labels"]["container-manager.job"])] = first_ns
        return False


# ------------------------------------------------- the engine


class Connection(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("engine", timeout=120)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(docker_socket)

    def call(self, method, path, data=None):
        body = None if data is None else json.dumps(data)
        self.request(method, API + path, body, {"Content-Type": "application/json"} if body else {})
        response = self.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise RuntimeError("%s %s: %d %s" % (method, path, response.status, answer))
        return answer


class Deaths(threading.Thread):
    """When containers died, by the engine's own stamps."""

    def __init__(self):
        super().__init__(daemon=True)
        self.died_ns = {}  # job id -> ns
        self.start()

    def run(self):
        connection = Connection()
        connection.timeout = None
        connection.request("GET", API + "/events?filters=%7B%22event%22%3A%5B%22die%22%5D%7D")
        for line in connection.getresponse():
            event = json.loads(line)
            job = event["Actor"]["Attributes"].get("container-manager.job")
            if job:
                self.died_ns[int(job)] = event["timeNano"]


def wait_until(look, what, patience=60):
    deadline = time.monotonic() + patience
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError("not in time: " + what)
        time.sleep(0.002)


def is_empty():
    return json.loads(Connection().call("GET", "/containers/json?all=1")) == []


# ------------------------------------------------- latency


def connect(database):
    connection = psycopg2.connect(dsn + " dbname=" + database)
    connection.autocommit = True
    return connection


def run(connection, sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else None


def await_ends(listener, jobs):
    """When the notification of each end arrived: {job: ns}."""
    ended = {}
    while len(ended) < len(jobs):
        if not select.select([listener], [], [], 120)[0]:
            raise RuntimeError("no notification")
        listener.poll()
        now_ns = time.time_ns()
        for notify in listener.notifies:
            payload = json.loads(notify.payload)
            if payload["status"] in TERMINAL and payload["job_id"] in jobs:
                ended[payload["job_id"]] = now_ns
                if payload["status"] != "completed":
                    raise RuntimeError(notify.payload)
        listener.notifies.clear()
    return ended


def sample_latency(app, listener, proxy, deaths):
    app.autocommit = False
    job = run(app, "SELECT cm_submit_job(%s, 'true', networks => '[\"none\"]')", IMAGE)[0][0]
    commit_ns = time.time_ns()
    app.commit()
    committed_ns = time.time_ns()
    app.autocommit = True
    told_ns = await_ends(listener, {job})[job]
    wait_until(lambda: job in deaths.died_ns, "the die event")
    completed_at = run(app, "SELECT (extract(epoch FROM completed_at) * 1000000)::bigint"
                       " FROM cm_jobs WHERE id = %s", job)[0][0]
    wait_until(is_empty, "the container's removal")
    return {
        "COMMIT sent -> create arrives": proxy.creates[job] - commit_ns,
        "COMMIT returned -> create arrives": proxy.creates[job] - committed_ns,
        "die event -> LISTEN tells the end": told_ns - deaths.died_ns[job],
        "die event -> completed_at": completed_at * 1000 - deaths.died_ns[job],
    }


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(p / 100 * (len(ordered) - 1)))]


def measure_latency():
    proxy = Proxy(folder + "/proxy.sock")
    deaths = Deaths()
    app, listener = connect("latency"), connect("latency")
    run(listener, "LISTEN cm_job_status")
    run(app, "SELECT cm_add_host('proxied', %s)", "unix://" + folder + "/proxy.sock")
    for _ in range(3):
        sample_latency(app, listener, proxy, deaths)
    samples = [sample_latency(app, listener, proxy, deaths) for _ in range(N_SAMPLES)]
    print("\n%d jobs, one after another, milliseconds      p50     p99     max" % N_SAMPLES)
    for what in samples[0]:
        values = [sample[what] / 1e6 for sample in samples]
        print("  %-42s %7.2f %7.2f %7.2f" % (what, percentile(values, 50), percentile(values, 99), max(values)))
    run(app, "SELECT cm_remove_host('proxied')")
    return proxy.body


# ------------------------------------------------- rate


def plain_rate(body, concurrency):
    """Containers per second of a client without a database."""
    numbers = iter(range(N_JOBS))
    lock = threading.Lock()
    errors = []

    def work():
        connection = Connection()
        try:
            while True:
                with lock:
                    if next(numbers, None) is None:
                        return
                container = json.loads(connection.call("POST", "/containers/create", body))["Id"]
                connection.call("POST", "/containers/%s/start" % container)
                assert json.loads(connection.call("POST", "/containers/%s/wait" % container))["StatusCode"] == 0
                connection.call("GET", "/containers/%s/logs?stdout=1&stderr=1&timestamps=1" % container)
                connection.call("DELETE", "/containers/%s?v=1" % container)
        except Exception as error:  # of a thread: to be raised by the caller
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    wait_until(is_empty, "empty engine")
    return N_JOBS / (time.monotonic() - began)


def our_rate(app, listener, slots):
    """Jobs per second from the submit until every end is told and every container gone."""
    run(app, "UPDATE cm_hosts SET max_concurrent_jobs = %s", slots)
    began = time.monotonic()
    rows = run(app, "SELECT cm_submit_job(%s, 'true', networks => '[\"none\"]') FROM generate_series(1, %s)",
               IMAGE, N_JOBS)
    await_ends(listener, {job for (job,) in rows})
    wait_until(is_empty, "empty engine")
    return N_JOBS / (time.monotonic() - began)


def find_best(measure, settings, what):
    rates = {setting: measure(setting) for setting in settings}
    print("  %-42s %s" % (what, "  ".join("%d: %.2f" % item for item in rates.items())))
    return max(rates, key=rates.get)


def of(values):
    return "%.2f / %.2f / %.2f" % (min(values), percentile(values, 50), max(values))


def count_work(app):
    names = ("turns", "transactions", "http_requests")
    row = run(app, "SELECT turns, transactions, http_requests FROM cm_internal.executor_status()")[0]
    return dict(zip(names, row))


def measure_rate(body):
    app, listener = connect("rate"), connect("rate")
    run(listener, "LISTEN cm_job_status")
    run(app, "SELECT cm_add_host('direct', %s)", "unix://" + docker_socket)
    body["Labels"] = {"bench": "plain"}
    ours = lambda slots: our_rate(app, listener, slots)
    plain = lambda concurrency: plain_rate(body, concurrency)
    ours(4)
    print("\n%d x true with network none, jobs per second, by the number at a time" % N_JOBS)
    slots = find_best(ours, (4, 8, 16, 32), "extension, max_concurrent_jobs")
    concurrency = find_best(plain, (1, 2, 4, 8, 16), "plain client, threads")
    before = count_work(app)
    pairs = [(ours(slots), plain(concurrency)) for _ in range(N_ROUNDS)]
    after = count_work(app)
    print("\n%d rounds in turn, jobs per second                 min / median / max" % N_ROUNDS)
    print("  extension, max_concurrent_jobs = %-9d %s" % (slots, of([a for a, _ in pairs])))
    print("  plain client, %-28s %s" % ("%d threads" % concurrency, of([b for _, b in pairs])))
    print("  extension / plain client                   %s" % of([a / b for a, b in pairs]))
    for what in before:
        print("  %-42s %.2f" % (what + " per job", (after[what] - before[what]) / (N_ROUNDS * N_JOBS)))


def show_machine():
    version = json.loads(Connection().call("GET", "/version"))
    info = json.loads(Connection().call("GET", "/info"))
    app = connect("rate")
    model = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    print("%d x %s, %d MB; Linux %s; load %s" % (
        os.cpu_count(), model.group(1) if model else platform.machine(), info["MemTotal"] >> 20,
        platform.release(), open("/proc/loadavg").read().split()[0]))
    print("PostgreSQL %s, fsync %s; Docker %s, %s, cgroup v%s, on %s" % (
        run(app, "SHOW server_version")[0][0], run(app, "SHOW fsync")[0][0], version["Version"],
        info["Driver"], info.get("CgroupVersion", "1"),
        subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()))


show_machine()
measure_rate(measure_latency())
show_machine()

#!/usr/bin/env python3
"""An application on psycopg2, for test/t/070_clients.pl.

    psycopg2_app.py direct|pooled DSN NAME

"direct" has sessions of its own; "pooled" is behind a pooler in transaction
mode, where a session lasts one transaction and nobody can listen.  Prints one
line per check, "ok" or "not ok", a tab and what was checked, and what was seen
in the latter case; "rolled back", a tab and an id that must never have run; and
"done" at the end.  NAME keeps what two applications do at the same time apart.
"""

import decimal
import datetime
import json
import select
import sys
import threading
import time

import psycopg2
import psycopg2.errors
from psycopg2.extras import Json, RealDictCursor, execute_values

PATIENCE = 300
TERMINAL = ("completed", "failed", "timeout", "cancelled")
# The engine's log replaces what is not UTF-8; all else must come back as it was.
CHARACTERS = bytes(range(128)) + "é€𝄞\u0085\ufeff".encode() * 50
PRINT_CHARACTERS = "printf '%s'" % "".join("\\%03o" % byte for byte in CHARACTERS)

dsn = name = None


def say(*words):
    print("\t".join(str(word).replace("\n", " ").replace("\t", " ") for word in words), flush=True)


def check(good, what, seen=""):
    say("ok" if good else "not ok", "%s: %s" % (name, what), "" if good else seen)


def check_is(seen, expected, what):
    check(seen == expected, what, "saw %r, expected %r" % (seen, expected))


def connect(autocommit=False):
    connection = psycopg2.connect(dsn)
    connection.autocommit = autocommit
    return connection


def run(connection, sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else None


def wait_until(look, what):
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            check(False, what, "not within %d s" % PATIENCE)
            return seen
        time.sleep(0.02)


# ------------------------------------------------- what both kinds do


def submit_with_own_data(order):
    """The job and the application's row are in one transaction."""
    app, other = connect(), connect(autocommit=True)
    job = run(app, "SELECT cm_submit_job('busybox:test', args => %s, name => %s, labels => %s)",
              ["echo", "it's\n100%"], order, Json({"app": name, "quote": "ü'"}))[0][0]
    run(app, "INSERT INTO orders VALUES (%s, %s)", order, job)
    check_is(run(other, "SELECT count(*) FROM cm_jobs WHERE id = %s", job), [(0,)],
             "a job that is not committed is not seen")
    app.commit()
    check_is(run(other, "SELECT j.id FROM orders o JOIN cm_jobs j ON j.id = o.job WHERE o.id = %s",
                 order), [(job,)], "job and own row came with one commit")
    app.close()
    other.close()
    return job


def roll_back(order):
    app = connect()
    job = run(app, "SELECT cm_submit_job('busybox:test', 'echo never')")[0][0]
    run(app, "INSERT INTO orders VALUES (%s, %s)", order, job)
    app.rollback()
    say("rolled back", job)
    check_is(run(app, "SELECT count(*) FROM orders WHERE id = %s", order), [(0,)], "own row rolled back")
    check_is(run(app, "SELECT count(*) FROM cm_jobs WHERE id = %s", job), [(0,)], "job rolled back")
    app.rollback()

    # An application's error between submit and commit, by the context manager.
    try:
        with app:
            job = run(app, "SELECT cm_submit_job('busybox:test', 'echo never')")[0][0]
            run(app, "SELECT 1 / 0")
    except psycopg2.errors.DivisionByZero:
        say("rolled back", job)

    # A savepoint takes back one job of two.
    run(app, "SAVEPOINT one")
    say("rolled back", run(app, "SELECT cm_submit_job('busybox:test', 'echo never')")[0][0])
    run(app, "ROLLBACK TO one")
    kept = run(app, "SELECT cm_submit_job('busybox:test', 'echo kept')")[0][0]
    app.commit()
    app.close()
    return kept


def outcome(job):
    app = connect(autocommit=True)
    rows = run(app, "SELECT status, exit_code, cm_job_output(id), error FROM cm_jobs WHERE id = %s", job)
    app.close()
    return rows[0]


def call_in_autocommit():
    app = connect(autocommit=True)
    with app.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute("CALL cm_run_job(%s, %s, environment => %s)",
                       ("busybox:test", 'echo "$WORD"; echo no >&2; exit 3', Json({"WORD": "it's ü $1"})))
        row = cursor.fetchone()
    check_is((row["status"], row["exit_code"], row["output"]), ("failed", 3, "it's ü $1\n"),
             "CALL cm_run_job gives back status, exit code and output")
    check_is(run(app, "SELECT cm_job_stderr(%s)", row["job_id"]), [("no\n",)], "and the id of its job")

    try:
        run(app, "CALL cm_run_job('busybox:test', 'echo why >&2; exit 4', fail_on_error => true)")
        check(False, "fail_on_error raises", "no error")
    except psycopg2.Error as error:
        check_is(error.pgcode, "38000", "fail_on_error raises with an SQLSTATE")
        check("why" in (error.diag.message_detail or ""), "and the last lines of stderr", error.diag.message_detail)
    check_is(run(app, "SELECT 1"), [(1,)], "the session is usable afterwards")
    app.close()


def call_in_a_transaction():
    """psycopg2 begins a transaction by itself unless told not to."""
    app = connect()
    try:
        run(app, "CALL cm_run_job('busybox:test', 'echo never', name => %s)", name + " never")
        check(False, "CALL in a transaction block fails", "no error")
    except psycopg2.errors.ActiveSqlTransaction as error:
        check("cm_submit_job" in (error.diag.message_hint or ""), "CALL in a transaction block fails with a hint",
              error.diag.message_hint)
    app.rollback()
    check_is(run(app, "SELECT count(*) FROM cm_jobs WHERE name = %s", name + " never"), [(0,)],
             "before it has submitted anything")
    app.close()


def output_is_equal():
    app = connect(autocommit=True)
    job = run(app, "CALL cm_run_job('busybox:test', %s)", PRINT_CHARACTERS)[0][0]
    check_is(bytes(run(app, "SELECT cm_job_output_bytes(%s)", job)[0][0]), CHARACTERS,
             "bytes come back as they were written")
    job = run(app, "CALL cm_run_job('busybox:test', %s)",
              "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")[0][0]
    expected = "".join("line %d\n" % i for i in range(20000))
    check(bytes(run(app, "SELECT cm_job_output_bytes(%s)", job)[0][0]) == expected.encode(), "20,000 lines, too")
    check(run(app, "SELECT cm_job_output(%s)", job)[0][0] == expected, "and as text")
    document = {"a": [1, None, "é"], "b": {"c": True}}
    job = run(app, "CALL cm_run_job('busybox:test', args => %s)", ["echo", json.dumps(document)])[0][0]
    check_is(run(app, "SELECT cm_job_result(%s)", job), [(document,)], "JSON becomes Python's own")
    app.close()


def errors_tell():
    """What a program can act on: SQLSTATE and column, not words."""
    app = connect()
    cases = (
        ("22023", "image", "SELECT cm_submit_job('')", ()),
        ("22023", "memory_limit", "SELECT cm_submit_job('busybox:test', memory_limit => %s)", (-1,)),
        ("22023", "environment", "SELECT cm_submit_job('busybox:test', environment => %s)", (Json({"a b": "x"}),)),
        ("53400", "timeout_seconds", "SELECT cm_submit_job('busybox:test', timeout_seconds => %s)", (2000000000,)),
        ("42704", "host", "SELECT cm_submit_job('busybox:test', host => %s)", ("nowhere",)),
        ("53400", "memory_limit", "INSERT INTO cm_jobs (image, memory_limit) VALUES ('busybox:test', %s)", (2000000000,)),
    )
    for sqlstate, column, sql, values in cases:
        try:
            run(app, sql, *values)
            check(False, "refused: " + column, "no error")
        except psycopg2.Error as error:
            check_is((error.pgcode, error.diag.column_name), (sqlstate, column), "SQLSTATE and column: " + sql)
            check(bool(error.diag.message_primary), "and words", error)
        app.rollback()
    app.close()


def insert_many():
    """Rows in one statement, with Python's own types."""
    app = connect()
    now = datetime.datetime.now(datetime.timezone.utc)
    rows = [("busybox:test", ["echo", str(n)], decimal.Decimal("0.25"), now, datetime.timedelta(hours=1),
             Json({"n": n})) for n in range(10)]
    with app.cursor() as cursor:
        ids = execute_values(cursor, "INSERT INTO cm_jobs (image, args, cpu_limit, run_at, max_wait, labels)"
                             " VALUES %s RETURNING id", rows, fetch=True)
    app.commit()
    app.close()
    return {job: "%d\n" % n for n, (job,) in enumerate(ids)}


def follow_events(jobs, after):
    """Reads cm_job_events WHERE seq > last, a transaction each time, until all jobs are over."""
    app = connect()
    seen = {job: [] for job in jobs}
    last, orders = after, []

    def look():
        nonlocal last
        for seq, job, status in run(app, "SELECT seq, job_id, status FROM cm_job_events WHERE seq > %s ORDER BY seq",
                                    last):
            orders.append(seq)
            last = seq
            if job in seen:
                seen[job].append(status)
        app.commit()
        return all(states and states[-1] in TERMINAL for states in seen.values())

    wait_until(look, "all jobs are over by their events")
    app.close()
    check(orders == sorted(set(orders)), "events come in order, once", orders)
    return seen


def last_event():
    app = connect(autocommit=True)
    last = run(app, "SELECT coalesce(max(seq), 0) FROM cm_job_events")[0][0]
    app.close()
    return last


# ------------------------------------------------- with a session of its own


def notifications(listener, jobs):
    """Reads until all jobs are over: {job: [status]}, and all seqs in order."""
    seen, seqs = {job: [] for job in jobs}, []

    def look():
        select.select([listener], [], [], 0.2)
        listener.poll()
        while listener.notifies:
            payload = json.loads(listener.notifies.pop(0).payload)
            seqs.append(payload["seq"])
            if payload["job_id"] in seen:
                seen[payload["job_id"]].append((payload["status"], payload["exit_code"]))
        return all(states and states[-1][0] in TERMINAL for states in seen.values())

    wait_until(look, "all jobs are over by their notifications")
    check(seqs == sorted(set(seqs)), "notifications come in order, once", seqs)
    return seen


def listen():
    listener = connect(autocommit=True)
    run(listener, "LISTEN cm_job_status")
    job = submit_with_own_data("listened")
    kept = roll_back("taken back")
    failing = connect(autocommit=True)
    bad = run(failing, "SELECT cm_submit_job('busybox:test', 'exit 7')")[0][0]
    failing.close()
    seen = notifications(listener, [job, kept, bad])
    check_is(seen[job], [("launching", None), ("running", None), ("completed", 0)], "LISTEN tells every transition")
    check_is(seen[bad], [("launching", None), ("running", None), ("failed", 7)], "and the exit code")
    check_is(outcome(job)[:3], ("completed", 0, "it's\n100%\n"), "the row says the same as the notification")
    check_is(outcome(kept)[:3], ("completed", 0, "kept\n"), "the job beside a savepoint that was rolled back ran")
    listener.close()


def submit_in_two_phases():
    """PREPARE TRANSACTION: the job runs when the transaction is committed, by whomever."""
    app = connect()
    xid = app.xid(1, "cm", name)
    app.tpc_begin(xid)
    job = run(app, "SELECT cm_submit_job('busybox:test', 'echo prepared')")[0][0]
    app.tpc_prepare()
    app.close()
    other = connect(autocommit=True)
    check_is(run(other, "SELECT count(*) FROM cm_jobs WHERE id = %s", job), [(0,)], "a prepared job is not seen")
    other.close()
    other = connect()
    other.tpc_commit(xid)
    other.close()
    app = connect(autocommit=True)
    check_is(run(app, "SELECT cm_wait_job(%s, '1 h')", job), [("completed",)], "it runs after COMMIT PREPARED")
    app.close()


def cancel_a_wait():
    app = connect(autocommit=True)
    job = run(app, "SELECT cm_submit_job('busybox:test', 'sleep 1000')")[0][0]
    run(app, "SET statement_timeout = '300ms'")
    try:
        run(app, "CALL cm_await_job(%s)", job)
        check(False, "statement_timeout ends a wait", "no error")
    except psycopg2.errors.QueryCanceled:
        check(True, "statement_timeout ends a wait")
    run(app, "RESET statement_timeout")
    # What a driver does at Ctrl-C, from another thread, once the wait is seen.
    watcher = connect(autocommit=True)
    pid = app.get_backend_pid()

    def cancel():
        wait_until(lambda: run(watcher, "SELECT state = 'active' AND query LIKE 'SELECT cm_wait%%'"
                               " FROM pg_stat_activity WHERE pid = %s", pid)[0][0], "the wait is seen")
        app.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        run(app, "SELECT cm_wait_job(%s)", job)
        check(False, "cancel() ends a wait", "no error")
    except psycopg2.errors.QueryCanceled:
        check(True, "cancel() ends a wait")
    thread.join()
    check_is(run(app, "SELECT cm_cancel_job(%s)", job), [(True,)], "the job went on, until it is cancelled")
    check_is(run(app, "SELECT cm_wait_job(%s, '1 h')", job), [("cancelled",)], "and then is over")
    watcher.close()
    app.close()


def direct():
    listen()
    call_in_autocommit()
    call_in_a_transaction()
    output_is_equal()
    errors_tell()
    submit_in_two_phases()
    cancel_a_wait()
    before = last_event()
    jobs = insert_many()
    seen = follow_events(jobs, before)
    check(all(states == ["launching", "running", "completed"] for states in seen.values()),
          "inserted rows ran", seen)
    check_is({job: outcome(job)[2] for job in jobs}, jobs, "each with its own arguments")


# ------------------------------------------------- behind a pooler


def pooled():
    before = last_event()
    job = submit_with_own_data(name + " 1")
    kept = roll_back(name + " 2")
    jobs = insert_many()
    seen = follow_events([job, kept, *jobs], before)
    check(all(states == ["launching", "running", "completed"] for states in seen.values()),
          "cm_job_events has every transition of every job, in order", seen)
    check_is(outcome(job)[:3], ("completed", 0, "it's\n100%\n"), "its output")
    check_is(outcome(kept)[:3], ("completed", 0, "kept\n"), "the job beside a savepoint that was rolled back ran")
    check_is({job: outcome(job)[2] for job in jobs}, jobs, "each inserted job has its own output")
    call_in_autocommit()
    call_in_a_transaction()
    output_is_equal()
    errors_tell()


def main():
    global dsn, name
    kind, dsn, name = sys.argv[1:]
    {"direct": direct, "pooled": pooled}[kind]()
    say("done")


main()

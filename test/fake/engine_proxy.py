#!/usr/bin/env python3
"""A bad line between an executor and a real engine.

engine_proxy.py LISTEN ENGINE LOG SEED

Listens on a unix socket and passes everything on to the engine's.  Commands
come as lines on standard input, each answered by "ok"; its end is the
program's:

  pass            as if it were not there
  flaky P         each request meets, with probability P, one of:
                    unsent    the connection is closed, nothing was passed on
                    hangup    it is passed on, both connections are closed
                    torn      the answer ends after some bytes
                  and if it is a POST or DELETE also
                    swallow   it is passed on, the answer is thrown away
                    late      the connection is closed, and the request is passed
                              on some seconds later
  refuse P        with probability P: status 500, nothing was passed on
  lose N TEXT     the next N requests with TEXT in their path are not passed on
                  and their connections closed
  deny N TEXT     the same, with status 500
  stall           nothing moves in either direction, until the next command
  cut             closes all connections; new ones are taken
  down, up        the socket is gone, and there again

A request that met a fault is a line of LOG, and so is each that starts something.
"""

import asyncio
import os
import random
import sys
import time

listen_path, engine_path, log_path, seed = sys.argv[1:5]
draw = random.Random(int(seed))
log_file = open(log_path, "a", buffering=1, encoding="utf-8")


def log(text):
    log_file.write(f"{time.time():.3f} {text}\n")


class Line:
    """What all connections share."""

    def __init__(self):
        self.mode = "pass"
        self.probability = 0.0
        self.n_chosen = 0
        self.chosen_text = ""
        self.chosen_fault = None
        self.moving = asyncio.Event()
        self.moving.set()
        self.connections = set()
        self.late = set()
        self.server = None

    def choose_fault(self, method, path):
        if self.n_chosen > 0 and self.chosen_text in path:
            self.n_chosen -= 1
            return self.chosen_fault
        if self.mode not in ("flaky", "refuse") or draw.random() >= self.probability:
            return None
        if self.mode == "refuse":
            return "refuse"
        faults = ["unsent", "hangup", "torn"]
        if method in ("POST", "DELETE"):
            faults += ["swallow", "late"]
        return draw.choice(faults)

    async def listen(self):
        if self.server is None:
            if os.path.exists(listen_path):
                os.unlink(listen_path)
            self.server = await asyncio.start_unix_server(self.serve, listen_path)

    def unlisten(self):
        if self.server is not None:
            self.server.close()
            self.server = None
            os.unlink(listen_path)
        self.cut()

    def cut(self):
        for connection in list(self.connections):
            connection.close()

    async def serve(self, reader, writer):
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            await connection.run()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            connection.close()
            self.connections.discard(connection)


class Connection:
    def __init__(self, line, reader, writer):
        self.line = line
        self.reader = reader
        self.writer = writer
        self.engine_writer = None
        self.engine_reader = None
        self.left = None  # bytes of answers that are passed on yet; None: all
        self.swallows = False
        self.pump_task = None

    def close(self):
        for writer in (self.writer, self.engine_writer):
            if writer is not None and not (writer is self.engine_writer and self.swallows):
                writer.close()

    async def run(self):
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            method, path = head.split(b" ", 2)[:2]
            method, path = method.decode(), path.decode()
            length = 0
            for field in head.split(b"\r\n")[1:]:
                name, _, value = field.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = await self.reader.readexactly(length)
            await self.line.moving.wait()
            fault = self.line.choose_fault(method, path)
            if fault or method in ("POST", "DELETE"):
                log(f"{method} {path} {fault or ''}")
            if not await self.meet(fault, head + body):
                return

    async def meet(self, fault, request):
        """Passes the request on, or not; false: the connection is over."""
        if fault == "unsent":
            return False
        if fault == "refuse":
            text = b'{"message":"the proxy refuses"}'
            self.writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
                              b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            await self.writer.drain()
            return False
        if fault == "late":
            task = asyncio.ensure_future(send_late(request, draw.uniform(0.2, 9.0)))
            self.line.late.add(task)
            task.add_done_callback(self.line.late.discard)
            return False
        if self.engine_writer is None:
            self.engine_reader, self.engine_writer = await asyncio.open_unix_connection(engine_path)
            if fault == "torn":
                self.left = draw.randrange(0, 300)
            self.pump_task = asyncio.ensure_future(self.pump())
        if fault == "torn":
            self.left = draw.randrange(0, 300)
        self.swallows = fault == "swallow"
        self.engine_writer.write(request)
        await self.engine_writer.drain()
        return fault not in ("swallow", "hangup")

    async def pump(self):
        """Answers, whole or in part."""
        try:
            while True:
                data = await self.engine_reader.read(65536)
                if not data:
                    break
                await self.line.moving.wait()
                if self.swallows:
                    continue
                if self.left is not None:
                    data = data[:self.left]
                    self.left -= len(data)
                self.writer.write(data)
                await self.writer.drain()
                if self.left == 0:
                    break
        except OSError:
            pass
        finally:
            self.writer.close()
            self.engine_writer.close()


async def send_late(request, seconds):
    await asyncio.sleep(seconds)
    try:
        reader, writer = await asyncio.open_unix_connection(engine_path)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(200), 30)
        log(f"late after {seconds:.1f} s: {request.split()[0].decode()} {request.split()[1].decode()}: "
            f"{answer.split(chr(13).encode())[0].decode()}")
        writer.close()
    except (OSError, asyncio.TimeoutError) as error:
        log(f"late: {error}")


async def main():
    line = Line()
    await line.listen()
    loop = asyncio.get_event_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while True:
        words = (await commands.readline()).decode().split()
        if not words:
            break
        log("- " + " ".join(words))
        if words[0] == "cut":
            line.cut()
        elif words[0] == "down":
            line.unlisten()
        elif words[0] == "up":
            await line.listen()
        elif words[0] in ("lose", "deny"):
            line.n_chosen, line.chosen_text = int(words[1]), words[2]
            line.chosen_fault = "unsent" if words[0] == "lose" else "refuse"
        else:
            line.mode = words[0]
            line.probability = float(words[1]) if len(words) > 1 else 0.0
            if line.mode == "stall":
                line.moving.clear()
            else:
                line.moving.set()
        print("ok", flush=True)
    os._exit(0)


asyncio.run(main())

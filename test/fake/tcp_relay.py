#!/usr/bin/env python3
"""A TCP port in front of something else, for engines that are reached by TCP.

tcp_relay.py ADDRESS TARGET

Listens on a free port of ADDRESS, which it prints, and passes bytes to TARGET: a
socket's path or HOST:PORT.  Commands come as lines on standard input, each
answered by "ok"; its end is the program's:

  pass            as if it were not there
  stall           connections are taken, nothing moves
  cut             closes all connections; new ones are taken
"""

import asyncio
import sys

address, target = sys.argv[1:3]
connections = set()
moving = asyncio.Event()


async def connect():
    if target.startswith("/"):
        return await asyncio.open_unix_connection(target)
    host, port = target.rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


async def pass_on(reader, writer):
    try:
        while data := await reader.read(65536):
            await moving.wait()
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (OSError, NotImplementedError):
        pass


async def serve(reader, writer):
    connections.add(writer)
    await moving.wait()
    try:
        there_reader, there_writer = await connect()
    except OSError:
        writer.close()
        return
    connections.add(there_writer)
    await asyncio.gather(pass_on(reader, there_writer), pass_on(there_reader, writer))
    for one in (writer, there_writer):
        connections.discard(one)
        one.close()


def obey(command):
    if command == "stall":
        moving.clear()
    else:
        moving.set()
    if command == "cut":
        for writer in list(connections):
            writer.transport.abort()
        connections.clear()


async def main():
    moving.set()
    server = await asyncio.start_server(serve, address, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        obey(line.decode().strip())
        print("ok", flush=True)


asyncio.run(main())

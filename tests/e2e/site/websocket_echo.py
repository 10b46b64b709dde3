"""A WebSocket server on the Unix socket named first: it sends back what it gets, text or binary."""

import asyncio
import os
import sys

import websockets


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main(path):
    os.umask(0)
    async with websockets.unix_serve(echo, path, max_size=1 << 26, compression=None):
        print("ready", flush=True)
        await asyncio.Future()


asyncio.run(main(sys.argv[1]))

"""The application server that the end-to-end tests put behind the gateway: FastAPI on Uvicorn."""

import asyncio
import json
import time

from fastapi import FastAPI, Request, Response, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

app = FastAPI()


@app.get("/json")
async def get_json():
    return {"hello": "world", "text": "grüße", "list": [1, 2, 3]}


@app.post("/json")
async def post_json(request: Request):
    return {"received": await request.json()}


@app.put("/upload")
async def upload(request: Request):
    """Counts a body as it streams in, and keeps none of it."""
    count = 0
    async for piece in request.stream():
        count += len(piece)
    return {"bytes": count}


@app.post("/form")
async def form(file: UploadFile):
    """A multipart form with one file, as a browser sends it."""
    count = 0
    while piece := await file.read(1 << 20):
        count += len(piece)
    return {"name": file.filename, "bytes": count}


@app.get("/download/{count}")
async def download(count: int):
    """`count` bytes, streamed without a length."""

    async def pieces():
        left = count
        while left:
            piece = b"d" * min(left, 1 << 16)
            left -= len(piece)
            yield piece

    return StreamingResponse(pieces(), media_type="application/octet-stream")


@app.get("/sse")
async def events(count: int = 5, every: float = 0.2):
    """Server-sent events with the time at which each was sent."""

    async def stream():
        for number in range(count):
            yield f"id: {number}\ndata: {json.dumps({'sent': time.time()})}\n\n"
            await asyncio.sleep(every)

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "close":
                await socket.close(code=4001, reason="asked to")
                return
            if message.get("text") == "who":
                await socket.send_text(json.dumps(seen(socket)))
            elif message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return


def seen(connection) -> dict:
    """How the request looks to an application."""
    return {
        "scheme": connection.url.scheme,
        "url": str(connection.url),
        "host": connection.headers.get("host"),
        "client": connection.client.host if connection.client else None,
        "headers": [[name, value] for name, value in connection.headers.items()],
    }


@app.api_route("/seen", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def show(request: Request):
    return {"method": request.method, **seen(request)}


@app.get("/slow")
async def slow(seconds: float = 1.0):
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.get("/status/{code}")
async def status(code: int):
    return Response(status_code=code, headers={"x-from": "app"}) if code in (204, 304) else (
        PlainTextResponse(f"status {code}", status_code=code, headers={"x-from": "app"})
    )


@app.get("/cookies")
async def cookies():
    response = JSONResponse({"set": 2})
    response.headers.append("set-cookie", "a=1; Path=/")
    response.headers.append("set-cookie", "b=2; Path=/")
    return response


@app.get("/redirect")
async def redirect(request: Request):
    """What an application makes of its own URL: right only when it knows how it was reached."""
    return Response(status_code=307, headers={"location": str(request.url_for("get_json"))})

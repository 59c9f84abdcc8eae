"""
Serving over HTTP
=================

This FastAPI application serves a folder that ``to_onnx`` has written, computing waiting requests
together. Start it with ``python examples/serve.py FOLDER --port 8000``, or other uvicorn options.
"""

import os
import sys
from asyncio import create_task, wait, wrap_future
from concurrent.futures import CancelledError
from queue import Full

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from skfocal import OnnxBatcher, OnnxClassifier

LIMITS = {"BYTES": 2**20, "TEXTS": 64, "BATCH": 32, "WAITING": 128, "THREADS": 1}
BYTES, TEXTS, BATCH, WAITING, THREADS = (int(os.getenv(f"SERVE_{k}", v)) for k, v in LIMITS.items())


def make_app():
    """Return the application; each uvicorn worker makes its own."""
    clf = OnnxClassifier(os.environ["SERVE_FOLDER"], n_threads=THREADS)
    batcher = OnnxBatcher(clf, max_texts=BATCH, max_waiting=WAITING)
    app = FastAPI(title="skfocal")
    for hung_up in (ClientDisconnect, CancelledError):
        app.add_exception_handler(hung_up, lambda *_: Response(status_code=400))

    class Query(BaseModel):
        texts: list[tuple[str, str] if clf.pairs_ else str] = Field(min_length=1, max_length=TEXTS)

    @app.post("/predict")
    async def predict(request: Request):
        body = bytearray()
        async for part in request.stream():  # counted here: a header may be wrong or missing
            body += part
            if len(body) > BYTES:
                raise HTTPException(413, f"A body may have {BYTES} bytes.")
        try:
            future = batcher.submit(Query.model_validate_json(body).texts)
        except ValidationError as bad:
            raise HTTPException(422, bad.errors(include_url=False, include_input=False)) from bad
        except ValueError as bad:  # a text without tokens
            raise HTTPException(422, str(bad)) from bad
        except Full as full:
            raise HTTPException(503, str(full), {"Retry-After": "1"}) from full
        next_message = create_task(request.receive())  # comes only if the client hangs up
        next_message.add_done_callback(lambda _: future.cancel())  # if it is still waiting
        try:
            await wait([wrap_future(future)])
        finally:
            next_message.cancel()
        return future.result()

    @app.get("/health")
    def health():
        batcher.check()
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    os.environ["SERVE_FOLDER"], *options = sys.argv[1:]
    uvicorn.main(["serve:make_app", "--factory", "--app-dir", sys.path[0], *options])

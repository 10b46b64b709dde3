"""What a Flask application does all day, deterministic: the same request has the same answer under every server."""

import hashlib
import io
import os

from flask import Flask, Response, jsonify, make_response, redirect, request, send_file, session, stream_with_context

app = Flask(__name__)
app.secret_key = "of the tests only"
PAGE = b"0123456789abcdef" * 4096


@app.route("/echo", methods=["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def echo():
    body = request.get_data()
    return jsonify(method=request.method, args=request.args.to_dict(flat=False), type=request.content_type, length=request.content_length or 0, cookies=dict(request.cookies),
                   custom=request.headers.get("X-Custom"), accept=request.headers.get("Accept"), body=hashlib.sha256(body).hexdigest(), path=request.path, root=request.script_root)


@app.route("/form", methods=["GET", "POST"])
def form():
    if request.method == "POST":
        return jsonify(fields=request.form.to_dict(flat=False), files={k: hashlib.sha256(f.read()).hexdigest() for k, f in request.files.items()})
    return "<form>"


@app.route("/unicode/<path:rest>")
def unicode(rest):
    return jsonify(rest=rest, codes=[ord(c) for c in rest])


@app.route("/bytes/<int:n>")
def some_bytes(n):
    return Response((PAGE * (n // len(PAGE) + 1))[:n], mimetype="application/octet-stream")


@app.route("/parts/<int:n>")
def parts(n):
    return Response(stream_with_context(f"part {i} of {n}\n" for i in range(n)), mimetype="text/plain")


@app.route("/memory")
def memory():
    return send_file(io.BytesIO(PAGE), mimetype="application/octet-stream", download_name="page", etag="fixed", max_age=60)


@app.route("/disk")
def disk():
    return send_file(os.environ.get("FLASK_FILE") or __file__, mimetype="text/plain", conditional=True)


@app.route("/cookie")
def cookie():
    session["seen"] = "yes"
    r = make_response("cookies")
    r.set_cookie("one", "1", max_age=60)
    r.set_cookie("two", "2", httponly=True)
    r.headers.add("X-Twice", "a")
    r.headers.add("X-Twice", "b")
    return r


@app.route("/redirect")
def to_echo():
    return redirect("/echo?from=redirect")


@app.route("/status/<int:code>")
def status(code):
    return Response("" if code in (204, 304) else f"status {code}", status=code)


@app.route("/fails")
def fails():
    raise RuntimeError("the view failed on purpose")


@app.route("/unread", methods=["POST"])
def unread():
    return "the body was not read"

"""Pages that a proxy can get wrong."""

import hashlib
import os

from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.views.decorators.csrf import csrf_exempt

from tools import pass_gate, pattern, record

FORM = """<!doctype html><title>form</title><form method="post">{% csrf_token %}
<input name="name"><button>send</button></form>"""


class Recorded(HttpResponse):
    """Records its end when the server has written all of it."""

    def close(self):
        super().close()
        record("end", self.ident)


class RecordedStream(StreamingHttpResponse):
    def close(self):
        super().close()
        record("end", self.ident)


def hello(request):
    return HttpResponse("hello\n", content_type="text/plain")


@csrf_exempt
def echo(request):
    meta = {k: v for k, v in request.META.items() if isinstance(v, str) and k == k.upper()}
    body = request.read()
    answer = {"method": request.method, "path": request.get_full_path(), "meta": meta, "length": len(body),
              "sha256": hashlib.sha256(body).hexdigest(), "pid": os.getpid()}
    return JsonResponse(answer)


def form(request):
    if request.method == "POST":
        request.session["name"] = request.POST["name"]
        return HttpResponseRedirect("/whoami")
    return HttpResponse(engines["django"].from_string(FORM).render({}, request))


def whoami(request):
    return HttpResponse(request.session.get("name", "nobody"), content_type="text/plain; charset=utf-8")


@csrf_exempt
def upload(request):
    digest, size = hashlib.sha256(), 0
    while piece := request.read(1 << 16):
        digest.update(piece)
        size += len(piece)
    return HttpResponse(f"{size} {digest.hexdigest()}", content_type="text/plain")


@csrf_exempt
def file(request):
    """A multipart upload, as a browser sends it."""
    digest = hashlib.sha256()
    sent = request.FILES["file"]
    for piece in sent.chunks():
        digest.update(piece)
    return HttpResponse(f"{sent.name} {sent.size} {digest.hexdigest()}", content_type="text/plain")


def download(request):
    size, seed = int(request.GET["bytes"]), int(request.GET.get("seed", 0))
    return HttpResponse(pattern(size, seed), content_type="application/octet-stream")


def stream(request):
    """No length: the server sends it in chunks."""
    size, seed = int(request.GET["bytes"]), int(request.GET.get("seed", 0))
    whole = pattern(size, seed)
    return StreamingHttpResponse((whole[i:i + 10000] for i in range(0, size, 10000)),
                                 content_type="application/octet-stream")


def sse(request):
    def events():
        yield "data: one\n\n"
        pass_gate(request.GET["gate"])
        yield "data: two\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


@csrf_exempt
def work(request):
    """Records its begin and end; may wait at a gate; answers its id, then as many bytes as asked for."""
    ident = request.GET["id"]
    record("begin", ident)
    body = request.read()
    pass_gate(request.GET.get("gate", "none"))
    size = int(request.GET.get("bytes", 0))
    content = pattern(size, int(ident) if ident.isdigit() else 0) if size else f"{ident} {len(body)}".encode()
    if "chunked" in request.GET:
        response = RecordedStream((content[i:i + 65536] for i in range(0, len(content), 65536)))
    else:
        response = Recorded(content)
        response["Content-Length"] = str(len(content))
    response.ident = ident
    response["X-Id"] = ident
    response["X-Body-Sha256"] = hashlib.sha256(body).hexdigest()
    return response


def crash(request):
    record("begin", request.GET.get("id", "crash"))
    os._exit(7)

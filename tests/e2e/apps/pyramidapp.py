import hashlib
import os

from pyramid.config import Configurator
from pyramid.response import FileResponse, Response


def hello(request):
    return {"hello": request.matchdict["name"], "query": dict(request.GET)}


def upload(request):
    h = hashlib.sha256()
    for block in iter(lambda: request.body_file.read(65536), b""):
        h.update(block)
    return {"sha256": h.hexdigest()}


def form(request):
    return {"fields": dict((k, v) for k, v in request.POST.items())}


def file(request):
    return FileResponse(os.path.join(os.environ["FOREBAY_TEST_FOLDER"], "file"), request=request, content_type="application/octet-stream")


def stream(request):
    return Response(app_iter=(b"line %d\n" % i for i in range(1000)), content_type="text/plain")


def fails(request):
    raise RuntimeError("the view failed on purpose")


def main():
    with Configurator() as config:
        for name, path, view, renderer in (("hello", "/hello/{name}", hello, "json"), ("upload", "/upload", upload, "json"), ("form", "/form", form, "json"),
                                           ("file", "/file", file, None), ("stream", "/stream", stream, None), ("fails", "/fails", fails, None)):
            config.add_route(name, path)
            config.add_view(view, route_name=name, renderer=renderer)
        return config.make_wsgi_app()


application = main()

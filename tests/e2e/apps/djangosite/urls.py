import hashlib
import os

from django.conf import settings
from django.contrib import admin
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def form(request):
    if request.method == "POST":
        return JsonResponse({"name": request.POST["name"], "files": {k: f.size for k, f in request.FILES.items()}})
    return HttpResponse(f'<form method="post"><input name="csrfmiddlewaretoken" value="{get_token(request)}"></form>')


def digest(blocks):
    h, n = hashlib.sha256(), 0
    for block in blocks:
        h.update(block)
        n += len(block)
    return JsonResponse({"bytes": n, "sha256": h.hexdigest()})


@csrf_exempt
def upload(request):
    """As a form's file, which Django puts into a file of its own, or raw, in pieces."""
    if request.FILES:
        return digest(request.FILES["file"].chunks())
    return digest(iter(lambda: request.read(65536), b""))


def stream(request):
    return StreamingHttpResponse((f"line {i}\n" for i in range(int(request.GET["lines"]))), content_type="text/plain")


def file(request):
    return FileResponse(open(os.path.join(settings.FOLDER, "file"), "rb"), as_attachment=True, filename="caf\xe9.bin")


def scheme(request):
    return JsonResponse({"url": request.build_absolute_uri(), "path": request.path})


def fails(request):
    raise RuntimeError("the view failed on purpose")


urlpatterns = [path("admin/", admin.site.urls), path("form", form), path("upload", upload), path("stream", stream), path("file", file), path("scheme/<path:rest>",
               lambda request, rest: scheme(request)), path("fails", fails)]

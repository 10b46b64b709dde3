from django.urls import path

import views

urlpatterns = [
    path("", views.hello),
    path("echo", views.echo),
    path("form", views.form),
    path("whoami", views.whoami),
    path("upload", views.upload),
    path("file", views.file),
    path("download", views.download),
    path("stream", views.stream),
    path("sse", views.sse),
    path("work", views.work),
    path("crash", views.crash),
]

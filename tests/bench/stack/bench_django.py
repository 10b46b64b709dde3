"""The Django application of the stack rows: one page, made as Django's own tutorial makes pages."""

import datetime
import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.shortcuts import render
from django.urls import path, reverse

HERE = os.path.dirname(os.path.abspath(__file__))
PEOPLE = 30
ROWS = 5

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of no use to anybody: the benchmark has no secrets",
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE],
                "OPTIONS": {"context_processors": ["django.template.context_processors.request",
                                                   "django.contrib.messages.context_processors.messages"]}}],
)


def page(request):
    visits = request.session.get("visits", 0)
    orders = [{"number": 4711 + i, "who": f"Customer & Sons {i % PEOPLE}", "sum": 17.5 * i,
               "due": datetime.date(2026, 1, 1) + datetime.timedelta(days=i), "url": reverse("page")} for i in range(ROWS)]
    return render(request, "page.html", {"orders": orders, "visits": visits, "title": "Orders < 1,000"})


urlpatterns = [path("page", page, name="page")]
django.setup()
application = get_wsgi_application()

#!/bin/sh
# Makes ./configure. With --deps it first installs, on Debian and its kin, the packages that forebay is built, run and
# tested with; with --deps-bench also those of `make bench`; with --deps-all also those of `make lint`, `make fuzz` and the
# clang builds.
set -e
cd "$(dirname "$0")"

build="gcc make libc6-dev autoconf automake pkgconf xz-utils libevent-dev libinih-dev libssl-dev libnghttp2-dev libcmocka-dev python3-dev"
tests="clang libclang-rt-dev python3 python3-pytest python3-pytest-xdist python3-django python3-flask python3-pyramid python3-venv python3-websockets gunicorn python3-gunicorn curl wrk
	openssl nghttp2-client python3-h2 python3-hyperframe python3-hpack sslscan testssl.sh chromium procps systemd mandoc"
bench="nginx-light haproxy gnuplot-nox strace uwsgi uwsgi-plugin-python3 apache2 libapache2-mod-wsgi-py3 passenger"
more="valgrind clang-format clang-tidy cppcheck gcovr"

as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

install_packages()
{
	if ! command -v apt-get >/dev/null; then
		echo "$0: no apt-get here: install by hand what these Debian packages hold:" $* >&2
		exit 1
	fi
	as_root apt-get update
	# A service that a package brings along has no business starting on a build machine; nothing here asks anything.
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $* </dev/null
}

case "$1" in
"") ;;
--deps) install_packages $build $tests ;;
--deps-bench) install_packages $build $tests $bench ;;
--deps-all) install_packages $build $tests $bench $more ;;
*)
	echo "usage: $0 [--deps | --deps-bench | --deps-all]" >&2
	exit 1
	;;
esac

mkdir -p build-aux/m4
autoreconf --install
# configure takes anything named core for a crash's and would tidy it away; here it is a folder.
sed 's/rm -f core /rm -f /' configure >configure.new
cat configure.new >configure
rm configure.new

#!/bin/sh
# The manual pages have no errors that mandoc knows of, and the list of options is in one.
command -v mandoc >/dev/null || exit 77
page=man/forebay.ini.5

# Pages of other packages, and our own, need not be installed here.
found=$(mandoc -T lint "${srcdir:-.}/man/forebay.8" "${srcdir:-.}/man/forebay-worker.3" "$page" 2>&1 |
	grep -v -e 'referenced manual not found' -e 'outdated mandoc.db')
if [ -n "$found" ]; then
	echo "$found"
	exit 1
fi
for option in drain_timeout head_limit slots body_memory; do
	grep -q "^\.It Cm $option " "$page" || { echo "$page: no $option"; exit 1; }
done

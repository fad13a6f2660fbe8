#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that weft needs and that are missing: as root, or through sudo.
# Says what it installs. DEPS=0 skips it (other distributions: install the same libraries by hand).
# Arguments add what only some targets need: fuzz (clang and its run time), style (clang-format), deb
# and rpm (the tools that make packages).
set -eu

[ "${DEPS:-1}" != 0 ] || exit 0
packages="gcc libc6-dev pkg-config liburcu-dev libxxhash-dev libmsgpack-dev libnuma-dev libjansson-dev
libinih-dev libpcre2-dev libutf8proc-dev libedit-dev libseccomp-dev perl strace"
for extra; do
	case $extra in
	fuzz) packages="$packages clang libclang-rt-14-dev" ;;
	style) packages="$packages clang-format python3" ;;
	deb) packages="$packages dpkg-dev" ;;
	rpm) packages="$packages rpm" ;;
	*) echo "deps: unknown group '$extra' (fuzz, style, deb, rpm)" >&2; exit 2 ;;
	esac
done

if ! command -v dpkg-query >/dev/null 2>&1; then
	echo "deps: not a Debian system; needed: $packages. Install these libraries by hand," \
		"then run make with DEPS=0." >&2
	exit 1
fi

missing=
for p in $packages; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' ||
		missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
	sudo=
elif command -v sudo >/dev/null 2>&1; then
	sudo=sudo
else
	echo "deps: missing:$missing. Install them as root, or run make with DEPS=0." >&2
	exit 1
fi
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null

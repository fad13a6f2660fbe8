#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make a folder that `make install` has filled what packages hold: the configuration of a machine that
# has no model yet, programs without their symbols for debuggers, compressed pages, the same modes
# whatever the umask, and one time for all.
#   packaging/stage.sh FOLDER    (SOURCE_DATE_EPOCH is the time)
set -eu
here=$(dirname "$0") stage=$1 strip=${STRIP:-strip}
version=$(cat "$here/../VERSION")

case $version in
[!0-9]* | *[!0-9a-z.~]*)
	echo "stage: VERSION is \"$version\": packages take digits, dots and, for what comes before, ~rc1" >&2
	exit 1
	;;
esac

install -D -m 644 "$here/weftd-first.conf" "$stage/etc/weft/weftd.conf"
find "$stage/usr" -type f \( -name '*.so' -o -name '*.so.*' -o -path '*/bin/*' -o -name weft-engine \) \
	-exec "$strip" --strip-unneeded -R .comment -R .note {} +
find "$stage/usr" -name '*.a' -exec "$strip" --strip-debug -R .comment --enable-deterministic-archives {} +
find "$stage/usr/share/man" -type f ! -name '*.gz' -exec gzip -9n {} +
find "$stage" -type f \( -name '*.so' -o -name '*.so.*' \) -exec chmod 644 {} +
chmod -R u=rwX,go=rX "$stage"
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

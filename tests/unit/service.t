#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What weftd's unit lets weftd do, as systemd-analyze judges it: no more than it does now (DESIGN,
# section 8). Other versions weigh other things, so it is that of Debian 12 or none.
unit=${WEFT_SRC:-.}/packaging/weftd.service
skip_all() { echo "1..0 # SKIP $*"; exit 0; }
command -v systemd-analyze > /dev/null || skip_all "no systemd-analyze"
systemd-analyze --version | grep -q '^systemd 252 ' || skip_all "systemd-analyze is not that of Debian 12 (252)"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cp "$unit" "$dir"
systemd-analyze security --offline=true --no-pager --threshold=15 "$dir/weftd.service" > "$dir/rows" 2> "$dir/errors"
status=$?
score=$(sed -n 's/.*exposure level for weftd.service: \([0-9.]*\).*/\1/p' "$dir/rows")
[ -n "$score" ] || skip_all "systemd-analyze cannot judge here: $(head -n 1 "$dir/errors")"
echo "1..1"
if [ $status = 0 ]; then
	echo "ok 1 - exposure $score of at most 1.5"
else
	echo "not ok 1 - exposure $score of at most 1.5"
	grep -v '✓' "$dir/rows" | sed 's/^/# /'
	exit 1
fi

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is installed with weftd agrees with weftd: the example configuration passes its own check,
# and the manual page has every key of the tables and no other.
src=${WEFT_SRC:-$(dirname "$0")/../..}
weftd=${WEFT_BUILD:-$src/build}/weftd
tmp=$(mktemp -d) || exit 255
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0

check()
{
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=1
	fi
}

"$weftd" --check --config "$src/packaging/weftd.conf" > "$tmp/out" 2>&1
[ $? = 1 ] && [ "$(grep -v '^<4>.*no user weft' "$tmp/out")" = \
	"[model granite-3.1-8b]: /srv/models/granite-3.1-8b-instruct: No such file or directory" ]
check $? "packaging/weftd.conf lacks nothing but the model that it is an example of"
sed 's/^/# /' "$tmp/out"
mkdir "$tmp/model"
touch "$tmp/model/config.json" "$tmp/model/model.safetensors"
sed "s|^path = .*|path = $tmp/model|; s|^\[daemon\]|&\nengine_user = root|" \
	"$src/packaging/weftd.conf" > "$tmp/there.conf"
out=$("$weftd" --check --config "$tmp/there.conf" 2>&1)
[ "$?: $out" = "0: OK: 1 models, 0 adapters, 2 tenants" ]
check $? "with a model there it passes weftd --check ($out)"

# {"key",   VALUE_... in the tables; .TP then .B key in the manual, from the sections on.
sed -n 's/^[[:space:]]*{"\([a-z_]*\)",[[:space:]]*VALUE_.*/\1/p' \
	"$src/daemon/supervisor/config.c" | sort -u > "$tmp/code"
sed -n '/^\.SH \[daemon\]/,/^\.SH EXAMPLE/p' "$src/man/weftd.conf.5" |
	sed -n '/^\.TP/{n;s/^\.B //p}' | sort -u > "$tmp/man"
[ "$(wc -l < "$tmp/code")" -ge 20 ]
check $? "the tables have their keys"
diff "$tmp/code" "$tmp/man" > "$tmp/diff"
check $? "weftd.conf(5) documents every key and no other"
sed 's/^/# /' "$tmp/diff"

"$weftd" --help | grep -o -e '--[a-z-]*' | sort -u > "$tmp/options"
for o in $(cat "$tmp/options"); do
	sed 's/\\-/-/g' "$src/man/weftd.8" | grep -q -e "$o"
	check $? "weftd(8) documents $o"
done
"$weftd" --no-such-option > /dev/null 2>&1
[ $? -eq 2 ]
check $? "a wrong option: exit 2"
"$weftd" --check --config /nonexistent > /dev/null 2>&1
[ $? -eq 1 ]
check $? "a configuration that is not there: exit 1"

echo "1..$n"
exit $failed

# SPDX-License-Identifier: Apache-2.0
# What the shell tests of weft's programs share, to be sourced: a scratch folder ($dir), the build's
# programs in PATH ($build, $src), TAP, and a weftd of the test's own that ends with it.
build=$(cd "${WEFT_BUILD:-build}" && pwd) src=$(cd "${WEFT_SRC:-.}" && pwd)
PATH=$build:$PATH
dir=$(mktemp -d) || exit 1
daemon=
finish() { [ -z "$daemon" ] || { kill "$daemon"; wait "$daemon"; }; rm -rf "$dir"; }
trap finish EXIT
n=0 failed=0
check() { # STATUS NAME
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; fi
}
is() { # GOT WANT NAME
	[ "$1" = "$2" ]
	check $? "$3"
	[ "$1" = "$2" ] || { echo "# got:  $1"; echo "# want: $2"; }
}
# A command ends with this status and says this, on either stream.
expect() { # STATUS TEXT COMMAND...
	want_status=$1 text=$2
	shift 2
	"$@" > "$dir/out" 2> "$dir/err" < /dev/null
	got=$?
	[ $got = "$want_status" ] && cat "$dir/out" "$dir/err" | grep -q -- "$text"
	check $? "exit $want_status: $* ($(cat "$dir/out" "$dir/err" | head -n 1))"
}
# Or complains so.
expect_error() { # STATUS TEXT COMMAND...
	want_status=$1 text=$2
	shift 2
	"$@" > "$dir/out" 2> "$dir/err" < /dev/null
	got=$?
	[ $got = "$want_status" ] && grep -q -- "$text" "$dir/err"
	check $? "exit $want_status: $* ($(head -n 1 "$dir/err"))"
}
# weftd with $dir/weftd.conf, from $dir/run of this mode. Its socket is there before it listens.
serve() { # MODE
	mkdir -m "$1" "$dir/run"
	weftd --foreground --runtime-dir "$dir/run" --config "$dir/weftd.conf" > "$dir/log" 2>&1 &
	daemon=$!
	export WEFT_SOCKET="$dir/run/weftd.sock"
	i=0
	while ! grep -qs event=serving "$dir/log" && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
}

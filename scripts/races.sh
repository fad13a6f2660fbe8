#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# races.sh BUILD COMMAND...: run tests that were built with SAN=thread, and fail if the thread sanitizer has
# reported anything in any of their processes: an engine's reports would otherwise be lost with its log, and
# its exit status says nothing, because it ends by _exit().
#
# What the sanitizer cannot know: liburcu orders by fences and assembly (annotated in
# daemon/engine/adapters.c); what other processes write to shared memory (fetched word by word, and checked
# by barrier labels: make check-style). The emulated CUDA device is not built: its fibers are no threads.
set -eu

build=$1
shift
source=$(cd "$(dirname "$0")/.." && pwd) # tests change their directory
reports=$build/races
plain=$build/races-probe

# Without spreading of addresses, where that may be asked for: some kernels spread them wider than the sanitizer's
# runtime expects, now and then.
mkdir -p "$build"
echo 'int main(void) { return 0; }' | ${CC:-gcc} -fsanitize=thread -x c -o "$plain" -
if setarch -R "$plain" 2>/dev/null; then
	fixed="setarch -R"
elif "$plain" 2>/dev/null; then
	fixed=
else
	echo "races: skipped: the thread sanitizer's runtime does not start on this kernel" >&2
	exit 0
fi

# Tests send SIGSEGV to engines to see what weftd makes of it: that is not the sanitizer's business. And an end is an
# end: by itself it waits a second for races there.
TSAN_OPTIONS="log_path=$reports/report:halt_on_error=0:exitcode=0:handle_segv=0:handle_abort=0:atexit_sleep_ms=0"
TSAN_OPTIONS="$TSAN_OPTIONS:suppressions=$source/tests/races.supp:print_suppressions=0"
export TSAN_OPTIONS
rm -rf "$reports"
mkdir "$reports"
chmod 1777 "$reports" # some processes become another user

status=0
$fixed "$@" || status=$?
for f in "$reports"/*; do
	[ -s "$f" ] || continue
	cat "$f" >&2
	status=1
done
if [ "$status" = 0 ]; then
	echo "races: none reported"
fi
exit "$status"

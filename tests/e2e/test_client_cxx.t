#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weft.h is C++ and strict C11, and the shared library exports weft_* and nothing else.
src=${WEFT_SRC:-.} build=${WEFT_BUILD:-build}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() {
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; fi
}
cat > "$dir/use.cc" <<'CODE'
#include "libclient/weft.h"
#include <cstring>
int main()
{
	weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	weft_submit_options s;
	weft_error e;
	weft *w = nullptr;

	weft_submit_options_init(&s);
	o.socket = "/nonexistent/weftd.sock";
	if (weft_open(&w, &o, &e) >= 0 || !std::strstr(e.message, "/nonexistent"))
		return 1;
	weft_close(w);
	return s.size == sizeof(s) && std::strcmp(weft_status_name(WEFT_OK), "ok") == 0 ? 0 : 1;
}
CODE
if command -v "${CXX:-g++}" >/dev/null 2>&1; then
	"${CXX:-g++}" -std=c++11 -pedantic -Wall -Wextra -Werror -I"$src" -o "$dir/use" "$dir/use.cc" \
		-L"$build" -lweft -Wl,-rpath,"$build" && [ -e "$build/libweft.so.0" ]
	check $? "a C++ program compiles without a warning and links"
	"$dir/use"
	check $? "and runs against the shared library"
else
	n=$((n + 1)); echo "ok $n # SKIP no C++ compiler"
fi
sed 's/nullptr/NULL/; s/std:://g; s/<cstring>/<string.h>/; s/int main()/int main(void)/' \
	"$dir/use.cc" | sed 's/^\tweft_\(open_options\|submit_options\|error\) /\tstruct weft_\1 /; s/^\tweft \*/\tstruct weft */' > "$dir/use.c"
"${CC:-gcc}" -std=c11 -pedantic -Wall -Wextra -Werror -I"$src" -fsyntax-only "$dir/use.c"
check $? "the same as strict C11"
others=$(nm -D --defined-only "$build/libweft.so.0" | awk '$2 != "A" && $3 !~ /^weft_/ {print $3}')
[ -z "$others" ]
check $? "the shared library exports nothing but weft_*${others:+: $others}"
n_declared=$(grep -c '^WEFT_API' "$src/libclient/weft.h")
n_exported=$(nm -D --defined-only "$build/libweft.so.0" | grep -c ' T weft_')
[ "$n_declared" = "$n_exported" ]
check $? "and everything that weft.h declares ($n_declared, $n_exported)"
echo "1..$n"
exit $failed

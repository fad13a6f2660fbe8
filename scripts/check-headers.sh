#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone, but for NAME_impl.h: those are templates, whose includer defines what
# they are written in. Arguments: the compiler's flags; CC in the environment.
set -eu

failed=0
for h in $(git ls-files '*.h' | grep -v '_impl\.h$'); do
	if ! printf '#include "%s"\n' "$h" |
		${CC:-gcc} "$@" -MF /dev/null -fsyntax-only -x c - 2>/tmp/weft-headers.$$; then
		echo "check-headers: $h does not compile alone:" >&2
		cat /tmp/weft-headers.$$ >&2
		failed=1
	fi
done
rm -f /tmp/weft-headers.$$
printf '#include "libclient/weft.h"\n#include "libclient/text/weft_text.h"\n' |
	${CXX:-g++} -std=c++17 -I. -Ilibclient -pedantic -Wall -Wextra \
	-fsyntax-only -x c++ - || failed=1
exit $failed

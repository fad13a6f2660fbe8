#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What every source file must keep to; called by `make check-style`. Prints each fault, fails on any.
# Formatting is checked where clang-format is installed, the rest everywhere.
set -eu
cd "$(dirname "$0")/.."

failed=0
fault() {
	echo "check-style: $*" >&2
	failed=1
}

sources=$(git ls-files '*.c' '*.h' '*.cu' '*.cuh')
scripts=$(git ls-files '*.sh' '*.py' '*.mk' '*.t' GNUmakefile .ci/run)

for f in $sources; do
	[ "$(head -n 1 "$f")" = '/* SPDX-License-Identifier: Apache-2.0 */' ] ||
		fault "$f: the first line is not the SPDX line"
done
for f in $(git ls-files '*.sh' '*.py' '*.t'); do
	head -n 2 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
		fault "$f: no SPDX line at the top"
done

# A comment that starts with two slashes: not in a string, not part of a URL.
for f in $sources; do
	hits=$(sed 's/"\([^"\\]\|\\.\)*"//g; s@/\*.*\*/@@' "$f" | grep -nE '(^|[^:/*])//' |
		grep -vE '^[0-9]+: \*' || true)
	[ -z "$hits" ] || fault "$f: // comment: $hits"
done

# Spelt apart so that this file does not find itself.
markers='TO''DO|FIX''ME|X''XX|HA''CK'
hits=$(echo "$sources $scripts" | tr ' ' '\n' | xargs grep -nwE "$markers" || true)
[ -z "$hits" ] || fault "left to do: $hits"

hits=$(echo "$sources" | xargs grep -nE '[[:blank:]]+$' || true)
[ -z "$hits" ] || fault "blanks at the end of a line: $hits"

if command -v clang-format >/dev/null 2>&1; then
	for f in $sources; do
		clang-format --dry-run -Werror "$f" >/dev/null 2>&1 ||
			fault "$f: not as clang-format would have it (clang-format -i $f)"
	done
else
	echo "check-style: formatting not checked, no clang-format"
fi

if command -v python3 >/dev/null 2>&1; then
	scripts/check-labels.py || failed=1
else
	echo "check-style: labels not checked, no python3"
fi

exit $failed

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Which staged file is in which package: writes OUT/PACKAGE, one path a line, by the patterns of
# packaging/files/PACKAGE. Fails on a file in no package or in two, and on a pattern without a file.
# weft-cuda alone may have none: then nvcc was not there, and there is no OUT/weft-cuda.
#   packaging/split.sh STAGE LIBDIR OUT
set -eu
export LC_ALL=C
files=$(cd "$(dirname "$0")/files" && pwd) stage=$1 libdir=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
cd "$stage"
for list in "$files"/*; do
	package=${list##*/}
	: > "$out/$package"
	for file in $(sed "s|@libdir@|$libdir|; s|^|.|" "$list"); do
		if [ -e "$file" ] || [ -L "$file" ]; then
			echo "${file#.}" >> "$out/$package"
		elif [ "$package" != weft-cuda ]; then
			echo "split: $package: nothing is installed as ${file#.}" >&2
			exit 1
		fi
	done
done
[ -s "$out/weft-cuda" ] || rm "$out/weft-cuda"

packaged=$(cat "$out"/* | sort)
twice=$(echo "$packaged" | uniq -d)
[ -z "$twice" ] || { echo "split: in more than one package:" $twice >&2; exit 1; }
nowhere=$({ echo "$packaged"; find . ! -type d | sed 's|^\.||'; } | sort | uniq -u)
[ -z "$nowhere" ] || { echo "split: in no package (packaging/files):" $nowhere >&2; exit 1; }

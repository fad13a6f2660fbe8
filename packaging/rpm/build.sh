#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The staged tree as RPM packages, by weft.spec. The libraries that they ask for are those of this
# machine: build them on the distribution that they are for.
#   packaging/rpm/build.sh STAGE LIBDIR OUT    (SOURCE_DATE_EPOCH, PACKAGER: GNUmakefile)
set -eu
umask 022
export LC_ALL=C SOURCE_DATE_EPOCH
here=$(cd "$(dirname "$0")" && pwd)
stage=$(cd "$1" && pwd) out=$(cd "$3" && pwd)
work=$out/rpm-work

rm -rf "$work"
mkdir -p "$work/out"
"$here/../split.sh" "$stage" "$2" "$work/lists"
for list in "$work"/lists/*; do
	licenses=/usr/share/licenses/${list##*/}
	printf '%s\n' "%dir $licenses" "%license $licenses/LICENSE" >> "$list"
done
sed -i 's|^/etc/|%config(noreplace) /etc/|' "$work/lists/weftd"
# A folder of its own for rpm's macros and database: nothing of the user's is read.
HOME=$work rpmbuild --quiet -bb "$here/weft.spec" --define "_topdir $work" --define "_rpmdir $work/out" \
	--define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
	--define "stage $stage" --define "license_file $here/../../LICENSE" --define "lists $work/lists" --define "weft_packager $PACKAGER" \
	--define "weft_version $(cat "$here/../../VERSION")" \
	--define "with_cuda $([ -e "$work/lists/weft-cuda" ] && echo 1 || echo 0)" > "$work/log" 2>&1 || {
	cat "$work/log" >&2
	exit 1
}
mv "$work"/out/*.rpm "$out"
cd "$work/out/.." && for list in lists/*; do ls "$out/${list##*/}"-[0-9]*.rpm; done

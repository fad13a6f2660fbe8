#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `make install` lays down serves who has nothing else: README's program, and one that calls all of
# both headers' functions, compile by pkg-config alone, against the shared libraries and the static ones;
# the programs and the pages are where they belong.
src=$(cd "${WEFT_SRC:-.}" && pwd) build=$(cd "${WEFT_BUILD:-build}" && pwd)
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() {
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$dir/log"; failed=1; fi
}
if nm -D "$build/libweft.so.0" | grep -q ' __[at]san_init'; then
	echo "1..0 # SKIP built with a sanitizer, which programs would need, too"
	exit 0
fi
command -v pkg-config > /dev/null || { echo "1..0 # SKIP no pkg-config"; exit 0; }
# Nothing is built again: `all` is there when tests run, and a build with other flags is not this test's.
[ -e "$build/weft-cuda.so" ] && cuda=auto || cuda=0
env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -C "$src" O="$build" DEPS=0 CUDA=$cuda -o all \
	DESTDIR="$dir/root" prefix=/usr install > "$dir/log" 2>&1
check $? "make install"
root=$dir/root/usr
export PKG_CONFIG_LIBDIR="$root/lib/pkgconfig:$(pkg-config --variable pc_path pkg-config)"
export PKG_CONFIG_SYSROOT_DIR= LD_LIBRARY_PATH="$root/lib"
# The folder stands for a root: what its .pc files say lies below it.
pc() { pkg-config --define-variable=prefix="$root" --define-variable=libdir="$root/lib" \
	--define-variable=includedir="$root/include" "$@"; }
cd "$dir" || exit 1
cc=${CC:-gcc}

awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$src/README.md" > readme.c
grep -q 'int main' readme.c && $cc -Wall -Wextra -Werror -o readme readme.c $(pc --cflags --libs weft) > log 2>&1
check $? "README's program compiles by pkg-config"
WEFT_SOCKET=$dir/weftd.sock ./readme > log 2>&1
[ $? = 1 ] && grep -q weftd.sock log
check $? "runs, and says that no daemon serves"

# Those of the pages, without roff's escapes.
for page in weft_open weft_submit; do
	sed -n '/^\.SH EXAMPLE/,/^\.fi/p' "$root/share/man/man3/$page.3" | sed '/^\./d; s/\\-/-/g; s/\\e/\\/g' > page.c
	grep -q 'int main' page.c && $cc -Wall -Wextra -Werror -o page page.c $(pc --cflags --libs weft) > log 2>&1
	check $? "the example of $page(3) compiles"
	WEFT_SOCKET=$dir/weftd.sock ./page > log 2>&1
	[ $? = 1 ] && grep -q weftd.sock log
	check $? "runs, and says that no daemon serves"
done

# Every function that a header declares, by its address: none may be missing in a library.
for lib in weft weft-text; do
	header=$(echo $lib | tr - _).h
	{
		echo "#include <$header>"
		echo "#include <stdio.h>"
		echo "int main(void) { int n = 0;"
		sed -n 's/^WEFT_API.*[ *]\(weft_[a-z0-9_]*\)(.*/\tn += (void *)\1 != NULL;/p' "$root/include/$header"
		echo 'return printf("%d", n) < 0; }'
	} > all.c
	declared=$(grep -c '^WEFT_API' "$root/include/$header")
	$cc -w -o all all.c $(pc --cflags --libs $lib) > log 2>&1 && [ "$(./all)" = "$declared" ]
	check $? "$lib: all $declared functions, shared"
	$cc -w -o all all.c $(pc --cflags $lib) "$root/lib/lib$lib.a" \
		$(pc --static --libs $lib | sed "s/-l$lib\\>//") > log 2>&1 && [ "$(./all)" = "$declared" ]
	check $? "and static"
done

"$root/bin/weft" --help > log 2>&1 && "$root/bin/weftd" --help > log 2>&1 && [ -x "$root/lib/weft/weft-engine" ]
check $? "the programs are there"
mkdir m && : > m/config.json && : > m/model.safetensors
printf '[daemon]\nengine_user = root\n[model m]\npath = %s/m\n' "$dir" > weftd.conf
"$root/bin/weftd" --check --config weftd.conf > log 2>&1
check $? "weftd finds what it needs beside itself"
[ -e "$root/share/bash-completion/completions/weft" ] && [ -e "$root/share/zsh/site-functions/_weft" ] &&
	[ -e "$root/share/fish/vendor_completions.d/weft.fish" ] && [ -e "$root/lib/systemd/system/weftd.service" ] &&
	grep -q "ExecStart=/usr/bin/weftd" "$root/lib/systemd/system/weftd.service" &&
	grep -q "ExecStart=/usr/bin/weft metrics" "$root/lib/systemd/system/weft-metrics@.service" &&
	[ -e "$root/lib/systemd/system/weft-metrics.socket" ]
check $? "completion and the units"

names() { sed -n '/^\.SH NAME/,/^\.SH SYN/p' "$1" 2> /dev/null; }
missing=
for f in $(sed -n 's/^WEFT_API.*[ *]\(weft_[a-z0-9_]*\)(.*/\1/p' "$root"/include/*.h); do
	# Installed it may be a page that names another one; beside the sources a link, which man -l follows.
	shared=$(sed -n 's/^\.so //p' "$root/share/man/man3/$f.3" 2> /dev/null)
	names "$root/share/man/${shared:-man3/$f.3}" | grep -qw "$f" && names "$src/man/$f.3" | grep -qw "$f" ||
		missing="$missing $f"
done
echo "$missing" > log
[ -z "$missing" ]
check $? "a page for each function"
# Without the backslashes of roff.
tr -d '\\' < "$root/share/man/man1/weft.1" > page
missing=
options() { "$root/bin/weft" "$@" --complete | sed -n 's/^\(--[a-z-]*\)=*$/\1/p'; }
for c in run chat probe tokenize status eval $(for g in model adapter cache bench; do
	for s in $("$root/bin/weft" $g --complete); do echo $g:$s; done; done); do
	for o in $(options $(echo $c | tr : ' ')); do
		grep -qE -- "$o([^a-z-]|$)" page || missing="$missing $c$o"
	done
done
echo "$missing" > log
[ -z "$missing" ]
check $? "weft(1) names each option"
if command -v groff > /dev/null; then
	for p in "$root"/share/man/man*/*; do
		(cd "$root/share/man" && groff -man -Tascii -ww -z "$p")
	done > log 2>&1
	[ ! -s log ]
	check $? "the pages are without a warning"
else
	n=$((n + 1)); echo "ok $n # SKIP no groff"
fi
echo "1..$n"
exit $failed

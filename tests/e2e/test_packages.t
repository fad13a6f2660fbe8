#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make deb, and make rpm where rpm's tools are, from what is built: all that `make install` lays down is
# in exactly one package and nothing else is, where it belongs, with the dependencies that its programs
# have; versions agree; a second build, elsewhere and with another umask, is the same bytes; maintainer
# scripts make what the daemon needs, and a purge leaves nothing of it.
src=$(cd "${WEFT_SRC:-.}" && pwd) build=$(cd "${WEFT_BUILD:-build}" && pwd)
skip_all() { echo "1..0 # SKIP $*"; exit 0; }
for tool in dpkg-deb dpkg-shlibdeps dpkg-gencontrol dpkg-architecture objdump; do
	command -v $tool > /dev/null || skip_all "no $tool"
done
! nm -D "$build/libweft.so.0" | grep -q ' __[at]san_init' || skip_all "built with a sanitizer"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export LC_ALL=C PATH="$PATH:/sbin:/usr/sbin"
n=0 failed=0
check() { # STATUS NAME; what $dir/log says is shown with a failure
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$dir/log"; failed=1; fi
}
same() { # WANTED GOT NAME: two files
	diff "$1" "$2" > "$dir/log"
	check $? "$3"
}
empty() { # TEXT NAME
	echo "$1" > "$dir/log"
	[ -z "$1" ]
	check $? "$2"
}
skip() { n=$((n + 1)); echo "ok $n # SKIP $1"; }
[ -e "$build/weft-cuda.so" ] && cuda=auto || cuda=0
# Nothing is built again: `all` is there when tests run.
weft_make() {
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u VERSION make -s -C "$src" O="$build" DEPS=0 CUDA=$cuda -o all "$@"
}
version=$(cat "$src/VERSION")
packages="libweft-dev libweft0 weft-tools weftd"
[ $cuda = 0 ] || packages="libweft-dev libweft0 weft-cuda weft-tools weftd"
libdir=/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
export DEB_COMPRESSION=none

weft_make packages="$dir/a" deb-run > "$dir/log" 2>&1
check $? "make deb"
[ -e "$dir/a/weftd_${version}_$(dpkg --print-architecture).deb" ] || { echo "Bail out! no package"; exit 1; }
(umask 077 && mkdir "$dir/b" && weft_make packages="$dir/b" deb-run > "$dir/log" 2>&1)
check $? "and again"
empty "$(for f in "$dir"/a/*.deb; do cmp "$f" "$dir/b/${f##*/}" 2>&1; done)" "the same bytes"
(cd "$dir/a" && ls *.deb | sed 's/_.*//') > "$dir/got"
printf '%s\n' $packages > "$dir/want"
same "$dir/want" "$dir/got" "packages: $packages"

# What is in them.
for p in $packages; do
	mkdir -p "$dir/root/$p"
	dpkg-deb -x "$dir"/a/${p}_*.deb "$dir/root/$p"
	dpkg-deb -e "$dir"/a/${p}_*.deb "$dir/root/$p.control"
	dpkg-deb -c "$dir"/a/${p}_*.deb | sed "s|^|$p |"
done > "$dir/contents"
listed() { (cd "$dir/root/$1" && find . ! -type d | sed 's|^\.||'); }
for p in $packages; do listed $p; done | sort > "$dir/packaged"
empty "$(uniq -d "$dir/packaged")" "no file in two of them"
weft_make DESTDIR="$dir/plain" prefix=/usr libdir="$libdir" docdir=/usr/share/doc/weftd/examples \
	zshdir=/usr/share/zsh/vendor-completions install > "$dir/log" 2>&1
check $? "make install"
{
	(cd "$dir/plain" && find . ! -type d) | sed 's|^\.||; s|^/usr/share/man/.*|&.gz|'
	echo /etc/weft/weftd.conf
	for p in $packages; do printf '/usr/share/doc/%s/%s\n' $p changelog.gz $p copyright; done
} | sort > "$dir/want"
same "$dir/want" "$dir/packaged" "all that is installed is in one, and nothing else but what packages have"
places="/etc/weft/|/usr/bin/|/usr/include/|/usr/lib/(weft|systemd/system|sysusers\.d|tmpfiles\.d)/|$libdir/|"
places="$places/usr/share/(man/man[13578]|doc/[a-z0-9-]+|(bash-completion|fish|zsh)/[a-z_.]+|zsh/vendor-completions)/"
empty "$(grep -vE "^($places)" "$dir/packaged")" "in the usual places"
for p in weftd:/usr/bin/weftd weftd:/usr/lib/weft/weft-engine weftd:/usr/lib/systemd/system/weftd.service \
	weft-tools:/usr/bin/weft libweft0:$libdir/libweft.so.0 libweft0:$libdir/libweft-text.so.0 \
	libweft-dev:/usr/include/weft.h libweft-dev:$libdir/libweft.so; do
	[ -e "$dir/root/${p%%:*}${p#*:}" ] || [ -L "$dir/root/${p%%:*}${p#*:}" ] || echo "$p"
done > "$dir/missing"
empty "$(cat "$dir/missing")" "each where it is looked for"
empty "$(awk '$3 != "root/root" || $2 !~ /^(drwxr-xr-x|-rw-r--r--|-rwxr-xr-x|lrwxrwxrwx)$/' "$dir/contents")" \
	"root's, and nobody else's to write"
same - "$dir/root/weftd.control/conffiles" "the configuration is the administrator's" << END
/etc/weft/weftd.conf
END

# Versions, dependencies, sums.
field() { sed -n "s/^$2: //p" "$dir/root/$1.control/control"; }
for p in $packages; do
	[ "$(field $p Version)" = "$version" ] || echo "$p: $(field $p Version)"
	zcat "$dir/root/$p/usr/share/doc/$p/changelog.gz" | head -n 1 | grep -qF "weft ($version)" || echo "$p: changelog"
	grep -q 'Apache-2.0' "$dir/root/$p/usr/share/doc/$p/copyright" || echo "$p: copyright"
	(cd "$dir/root/$p" && md5sum -c --quiet "../$p.control/md5sums") || echo "$p: sums"
done > "$dir/wrong" 2>&1
empty "$(cat "$dir/wrong")" "version $version, copyright and sums in each"
[ "$("$dir/root/weftd/usr/bin/weftd" --version)" = "weftd $version" ]
check $? "which is the program's own"
# Who owns what a program loads, by what dpkg knows of this machine.
for p in $packages; do
	for f in $(listed $p | grep -E '/bin/|\.so(\.|$)|weft-engine$'); do
		[ -L "$dir/root/$p$f" ] || objdump -p "$dir/root/$p$f" | sed -n "s/^ *NEEDED */$p /p"
	done
done | sort -u > "$dir/needed"
dpkg -S $(sed 's|.* |*/|' "$dir/needed" | sort -u) 2> /dev/null > "$dir/owners"
while read -r p so; do
	owner=$(sed -n "s|^\([a-z0-9.+-]*\)[:,].*/$so\$|\1|p" "$dir/owners" | sort -u)
	[ -z "$owner" ] || field $p Depends | tr -d ' ' | tr ',' '\n' | sed 's/(.*//' | grep -qxF "$owner" ||
		echo "$p needs $so of $owner"
done < "$dir/needed" > "$dir/wrong"
empty "$(cat "$dir/wrong")" "each library that a program loads is a dependency"
field weftd Depends | grep -q libjansson4 && field libweft-dev Depends | grep -qF "libweft0 (= $version)"
check $? "libraries among them, and libweft-dev's own"
[ $cuda = 0 ] || { field weft-cuda Depends | grep -qF "weftd (= $version)" && ! field weft-cuda Depends | grep -qi nvidia; }
check $? "weft-cuda wants this weftd, and no driver by name"
printf '%s\n' "libweft 0 libweft0 (>= $version)" "libweft-text 0 libweft0 (>= $version)" > "$dir/want"
sort "$dir/root/libweft0.control/shlibs" > "$dir/got"
same "$dir/want" "$dir/got" "programs that are linked with libweft will ask for it"

# Maintainer scripts, in a folder that stands for the machine.
for s in postinst prerm postrm; do
	for p in weftd weft-tools; do
		sh -n "$dir/root/$p.control/$s" && [ -x "$dir/root/$p.control/$s" ] || echo "$p.$s"
	done
done > "$dir/log" 2>&1
[ ! -s "$dir/log" ]
check $? "maintainer scripts"
machine=$dir/root/weftd
if [ "$(id -u)" = 0 ] && command -v systemd-sysusers > /dev/null && command -v systemd-tmpfiles > /dev/null; then
	printf 'root:x:0:\n' > "$machine/etc/group"
	printf 'root:x:0:0:root:/root:/bin/sh\n' > "$machine/etc/passwd"
	script() { DPKG_ROOT=$machine "$dir/root/weftd.control/$@" > "$dir/log" 2>&1; }
	script postinst configure ""
	check $? "weftd is configured"
	grep -q '^weft:.*nologin$' "$machine/etc/passwd" && grep -q '^weft-admin:' "$machine/etc/group"
	check $? "the engines' user and the administrators' group are there"
	[ "$(stat -c %a "$machine/var/lib/weft")" = 700 ] && [ "$(stat -c %a "$machine/run/weft")" = 755 ]
	check $? "so are the folders"
	: > "$machine/var/lib/weft/public.secret"
	script postinst configure "$version" && script prerm upgrade "$version" && script postrm upgrade "$version"
	check $? "an upgrade"
	[ -e "$machine/var/lib/weft/public.secret" ]
	check $? "keeps secrets"
	# What dpkg itself does in between.
	script prerm remove && listed weftd | grep -Fxf "$dir/packaged" | sed "s|^|$machine|" | xargs rm &&
		find "$machine/usr" -depth -type d -empty -delete && script postrm remove && script postrm purge
	check $? "removed and purged"
	empty "$(find "$machine" -mindepth 1 -name '*weft*')" "nothing of it is left"
else
	skip "maintainer scripts take root and systemd's tools"
fi

if command -v rpmbuild > /dev/null; then
	weft_make packages="$dir/r" rpm-run > "$dir/log" 2>&1
	check $? "make rpm"
	query() { HOME=$dir rpm -qp "$@"; }
	query --qf '%{NAME} %{VERSION}\n' "$dir"/r/*.rpm | sort > "$dir/got"
	printf "%s $version\n" $packages > "$dir/want"
	same "$dir/want" "$dir/got" "the same packages"
	# Files, in this system's places.
	rpm_libdir=$(rpm --eval '%{_libdir}')
	for p in $packages; do
		query --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$dir"/r/$p-[0-9]*.rpm | sed -n 's/^[^d][^ ]* //p' |
			grep -vF "/usr/share/licenses/$p/LICENSE" | sed "s|^$rpm_libdir/|$libdir/|;
			s|/zsh/site-functions/|/zsh/vendor-completions/|; s|^|$p |"
	done | sort > "$dir/got"
	for p in $packages; do
		awk -v p=$p '$1 == p && $2 !~ /^d/ { print p, substr($7, 2) }' "$dir/contents"
	done | grep -vE '/(copyright|changelog\.gz)$' | sort > "$dir/want"
	same "$dir/want" "$dir/got" "with the same files"
	query --configfiles "$dir"/r/weftd-[0-9]*.rpm > "$dir/got"
	same "$dir/root/weftd.control/conffiles" "$dir/got" "and the same configuration"
else
	skip "no rpmbuild"
fi
echo "1..$n"
exit $failed

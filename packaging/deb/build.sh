#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The staged tree as Debian packages. control has what a person decides; dpkg-shlibdeps finds the
# libraries, dpkg-gencontrol fills in the rest. What lies here as PACKAGE.postinst and so on is a
# maintainer script of that package.
#   packaging/deb/build.sh STAGE LIBDIR OUT    (SOURCE_DATE_EPOCH, PACKAGER: GNUmakefile)
set -eu
umask 022
export LC_ALL=C SOURCE_DATE_EPOCH
here=$(cd "$(dirname "$0")" && pwd)
stage=$(cd "$1" && pwd) out=$(cd "$3" && pwd)
version=$(cat "$here/../../VERSION")
work=$out/deb-work

# What dpkg's tools read lies in a folder debian/.
rm -rf "$work"
mkdir -p "$work/debian"
cd "$work"
"$here/../split.sh" "$stage" "$2" lists
sed "s|@packager@|$PACKAGER|" "$here/control" > debian/control
cat > debian/changelog <<END
weft ($version) unstable; urgency=medium

  * Release $version.

 -- $PACKAGER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END

# Files and maintainer scripts.
fill() { # PACKAGE ROOT
	mkdir -p "$2/DEBIAN" "$2/usr/share/doc/$1"
	(cd "$stage" && sed 's|^|.|' "$work/lists/$1" | xargs cp -a --parents -t "$work/$2")
	cp "$here/copyright" "$2/usr/share/doc/$1"
	gzip -9n < debian/changelog > "$2/usr/share/doc/$1/changelog.gz"
	sed -n '\|^/etc/|p' "lists/$1" > "$2/DEBIAN/conffiles"
	[ -s "$2/DEBIAN/conffiles" ] || rm "$2/DEBIAN/conffiles"
	for script in postinst prerm postrm; do
		[ ! -e "$here/$1.$script" ] || install -m 755 "$here/$1.$script" "$2/DEBIAN/$script"
	done
}

# Who links with the shared libraries needs this version of them, or a later one.
libraries() { # ROOT
	for so in "$1$2"/*.so.*; do
		so=${so##*/}
		echo "${so%.so.*} ${so##*.so.} libweft0 (>= $version)"
	done > "$1/DEBIAN/shlibs"
	echo "activate-noawait ldconfig" > "$1/DEBIAN/triggers"
}

for list in lists/*; do
	package=${list##*/} root=debian/${list##*/}
	fill "$package" "$root"
	[ "$package" != libweft0 ] || libraries "$root" "$2"
	elf=$(find "$root/usr" -type f \( -path '*/bin/*' -o -name '*.so' -o -name '*.so.*' -o -name weft-engine \))
	: > "debian/$package.substvars"
	[ -z "$elf" ] || dpkg-shlibdeps -T"debian/$package.substvars" $elf
	dpkg-gencontrol -p"$package" -P"$root" -T"debian/$package.substvars" -fdebian/files
	(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | sort |
		xargs md5sum > DEBIAN/md5sums)
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Z"${DEB_COMPRESSION:-xz}" --build "$root" "$out" > /dev/null
done
sed "s|^\([^ ]*\).*|$3/\1|" debian/files

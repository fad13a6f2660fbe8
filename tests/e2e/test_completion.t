#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the shells offer is what the help names: each command, and each option of each command. A shell
# that is not installed is skipped.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
scripts=$src/scripts/completion

# The first column of the help, whose text is not made where --complete is.
commands() { weft "$@" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p' | sort; }
options() { weft "$@" --help | sed -n 's/^ *\(-., \)*\(--[a-z0-9-]*\).*/\2/p' | sort; }

# What a shell offers for its words, the last of which is being written; sorted, and without the = of
# options that take a value.
in_bash() {
	bash --norc -c '. "$0" && COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) && _weft
		printf "%s\n" "${COMPREPLY[@]}"' "$scripts/weft.bash" "$@" 2> /dev/null
}
in_zsh() { # compadd is the editor's own, which chooses those that fit the word
	zsh -f -c 'compadd() { shift "${@[(i)--]}"; print -lr -- "$@"; return $((! $#)) }
		_files() { print -l *(N); }
		fpath=("${0:h}" $fpath); autoload -U _weft
		words=("$@") CURRENT=$#; _weft' "$scripts/_weft" "$@" | grep "^${last:-.}"
}
in_fish() {
	fish --no-config -c 'source $argv[1]; complete -C "$argv[2]"' "$scripts/weft.fish" "$*" | cut -f 1
}
offers() { # SHELL WORD...
	shell=$1
	shift
	for last; do :; done
	in_$shell "$@" | sed 's/=$//' | sort
}

scratch=$dir/scratch/offers
mkdir "$dir/scratch" "$dir/files" && cd "$dir/files" && : > a-file || exit 1
groups='model adapter cache bench'
for shell in bash zsh fish; do
	if ! command -v $shell > /dev/null; then
		n=$((n + 1))
		echo "ok $n - $shell # SKIP not installed"
		continue
	fi
	is "$(offers $shell weft '')" "$(commands)" "$shell: weft"
	is "$(offers $shell weft st)" status "$shell: a command that is begun"
	wrong=
	for c in $(commands); do
		case " $groups " in
		*" $c "*)
			[ "$(offers $shell weft $c '')" = "$(commands $c)" ] || wrong="$wrong $c"
			for s in $(commands $c); do
				[ "$(offers $shell weft $c $s --)" = "$(options $c $s)" ] || wrong="$wrong $c:$s"
			done
			;;
		*) [ "$(offers $shell weft $c --)" = "$(options $c)" ] || wrong="$wrong $c" ;;
		esac
	done
	is "$wrong" "" "$shell: all commands of groups and all options"
	is "$(offers $shell weft run 'a text' --raw --)" "$(options run)" "$shell: behind other words"
	is "$(offers $shell weft run --mod)" --model "$shell: an option that is begun"
	[ $shell = zsh ] || is "$(offers $shell weft run a-f)" a-file "$shell: files where a text may stand"
	missing=
	for words in 'eval' 'adapter load judge' 'run --raw' 'chat --stats'; do
		offers $shell weft $words '' > "$scratch"
		grep -qx a-file "$scratch" && grep -qx -e --socket "$scratch" || missing="$missing $words"
	done
	is "$missing" "" "$shell: files and options where either may stand"
	is "$(offers $shell weft run --socket '')" a-file "$shell: files alone for an option's value"
done
[ -n "$(commands)" ] && [ -n "$(commands bench)" ] && [ "$(options run | wc -l)" -gt 20 ]
check $? "the help names some"
echo "1..$n"
exit $failed

# SPDX-License-Identifier: Apache-2.0
# Completion of weft for bash: the command itself says what it takes (weft COMMAND --complete). Where it takes
# options, and none is begun, a file may stand too; behind an option that takes a value nothing else.
_weft() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words=() said i
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -* ]] && break
		words+=("${COMP_WORDS[i]}")
	done
	case ${words[0]-} in
	model | adapter | tenant | cache | bench) [[ ${#words[@]} -gt 2 ]] && words=("${words[@]:0:2}") ;;
	*) [[ ${#words[@]} -gt 1 ]] && words=("${words[0]}") ;;
	esac
	said=$'\n'$("${COMP_WORDS[0]}" "${words[@]}" --complete 2>/dev/null)$'\n'
	[[ $cur == = ]] && cur= prev==
	COMPREPLY=()
	if [[ $prev != = && $said != *$'\n'"$prev="$'\n'* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$said" -- "$cur")
		[[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
		if [[ ${#COMPREPLY[@]} -gt 0 ]]; then
			[[ -z $cur && ${COMPREPLY[0]} == --* ]] &&
				mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f)
			return
		fi
	fi
	compopt -o filenames
	mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _weft weft

# SPDX-License-Identifier: Apache-2.0
# Completion of weft for bash: the command itself says what it takes (weft COMMAND --complete).
_weft() {
	local cur=${COMP_WORDS[COMP_CWORD]} words=() i
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -* ]] && break
		words+=("${COMP_WORDS[i]}")
	done
	case ${words[0]-} in
	model | adapter | cache | bench) [[ ${#words[@]} -gt 2 ]] && words=("${words[@]:0:2}") ;;
	*) [[ ${#words[@]} -gt 1 ]] && words=("${words[0]}") ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" "${words[@]}" --complete 2>/dev/null)" -- "$cur")
	[[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
	[[ ${#COMPREPLY[@]} -eq 0 ]] && mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _weft weft

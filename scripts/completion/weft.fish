# SPDX-License-Identifier: Apache-2.0
# Completion of weft for fish: the command itself says what it takes (weft COMMAND --complete). Files are offered
# beside that, and alone behind an option that takes a value.
function __weft_complete
	set -l words (commandline -opc)
	set -l given
	set -l keep 1
	for word in $words[2..-1]
		string match -q -- '-*' $word; and break
		set -a given $word
	end
	contains -- "$given[1]" model adapter tenant cache bench; and set keep 2
	set -q given[(math $keep + 1)]; and set given $given[1..$keep]
	set -l said (command $words[1] $given --complete 2>/dev/null)
	contains -- "$words[-1]=" $said; and return
	string join \n -- $said
end
# Is the word a command's name, so that files make no sense?
function __weft_names
	set -l words (commandline -opc)
	test (count $words) -eq 1; and return 0
	test (count $words) -eq 2; and contains -- $words[2] model adapter tenant cache bench
end
complete -c weft -n __weft_names -f
complete -c weft -a '(__weft_complete)'

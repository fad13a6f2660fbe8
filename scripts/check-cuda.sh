#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the CUDA kernels must have been compiled to; called by `make check-cuda` where nvcc is found.
# No kernel spills a register or has a stack frame (the compiler's own report), and each uses the wide
# loads and matrix instructions that it is written for (disassembly, where cuobjdump is installed). For
# Hopper each kernel lets the next launch begin (PREEXIT) and waits for the one before (ACQBULK), with no access
# to memory before that but what device.cuh allows to some, and no loads by the path for constants, which
# need not stay behind it.
# Argument: the folder with NAME.fatbin and NAME.fatbin.log.
set -eu

dir=$1
failed=0
fault() {
	echo "check-cuda: $*" >&2
	failed=1
}

for log in "$dir"/*.fatbin.log; do
	spills=$(awk '/Function properties for/ { name = $NF }
		/bytes stack frame/ { n++; if ($1 + $5 + $9) print name ": " $0 }
		END { if (!n) print "no report" }' "$log")
	[ -z "$spills" ] || fault "$log: $spills"
done

# kernel prefix, file, instruction: each kernel of that name, for each device, has at least one.
needs='wk_norm basic LDG.E.128
wk_swiglu basic LDG.E.128
wk_zero basic STG.E.128
wk_gemm gemm HMMA.16816.F32.BF16
wk_gemm gemm LDGSTS.E.BYPASS.*128
wk_attn_whole attention HMMA.16816.F32.BF16
wk_attn_whole attention LDGSTS.E.BYPASS.*128
wk_attn_split attention HMMA.16816.F32.BF16
wk_attn_split attention LDGSTS.E.BYPASS.*128
wk_shrink lora HMMA.16816.F32.BF16
wk_shrink lora LDG.E.128
wk_expand lora LDG.E.128'

cuobjdump=${CUOBJDUMP:-cuobjdump}
if ! command -v "$cuobjdump" >/dev/null 2>&1; then
	echo "check-cuda: instructions not checked, no cuobjdump"
	exit $failed
fi
sass=$(mktemp)
trap 'rm -f "$sass"' EXIT
for file in $(echo "$needs" | awk '{ print $2 }' | sort -u); do
	"$cuobjdump" --dump-sass "$dir/$file.fatbin" >"$sass"
	echo "$needs" | awk -v f="$file" '$2 == f { print $1, $3 }' | while read -r kernel what; do
		awk -v k="$kernel" -v what="$what" '
			function close_one() { if (inside && !seen) print name; inside = 0 }
			/Function :/ { close_one(); name = $NF; inside = index(name, k) == 1; seen = 0; n += inside }
			inside && $0 ~ what { seen = 1 }
			END { close_one(); if (!n) print k " is not there" }' "$sass" |
			sed "s/\$/ has no $what/"
	done
done >"$sass.faults"

# Kernels that copy weights before they wait, or bring them into the cache.
early='^wk_(gemm_|norm$)'
for file in "$dir"/*.fatbin; do
	"$cuobjdump" --dump-sass "$file" | awk -v early="$early" -v file="$(basename "$file")" '
		function close_one() {
			if (!name) return
			if (!waits) print name " never waits for the launch before it"
			if (!lets) print name " never lets the next launch begin"
			if (first) print name " before its wait: " first
			if (constant) print name " loads by the path for constants: " constant
			name = ""
		}
		/^arch =/ { close_one(); hopper = $3 ~ /^sm_90/ }
		/Function :/ { close_one()
			if (hopper) { name = $NF; n++; waits = lets = 0; first = constant = "" } }
		!name || !/^ *\/\*[0-9a-f]+\*\/ / { next }
		{ sub(/^ *\/\*[0-9a-f]+\*\/ */, ""); sub(/ *;.*/, ""); op = $0; sub(/^@!?U?P[0-9T]+ +/, "", op) }
		op ~ /^ACQBULK/ { waits = 1 }
		op ~ /^PREEXIT/ { lets = 1 }
		op ~ /^LDG.*CONSTANT/ { constant = op }
		!waits && !first && op ~ /^(LD|ST|LDG|STG|LDGSTS|ATOM|ATOMG|RED|REDUX|CCTL|UBLK|UTMA|SYNCS|HGMMA)[A-Z]*([. ]|$)/ &&
			op !~ /^(LDC|LDS|LDSM|STS|REDUX)[. ]/ &&
			!(name ~ early && op ~ /^(LDGSTS|UBLKPF)[. ]/) { first = op }
		END { close_one(); if (!n) print file " has no kernel for Hopper" }'
done >>"$sass.faults"
[ ! -s "$sass.faults" ] || fault "$(cat "$sass.faults")"
rm -f "$sass.faults"
exit $failed

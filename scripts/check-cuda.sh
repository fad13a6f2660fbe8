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

# The compiler waits after each product of a warpgroup, or gives it no registers, and says so.
for log in "$dir"/*.fatbin.log; do
	slow=$(grep -E 'wgmma.*serialized|setmaxnreg.*ignored' "$log" || true)
	[ -z "$slow" ] || fault "$log: $slow"
done

# kernel prefix, file, instruction, device (each without it): each kernel of that name has at least one.
needs='wk_norm basic LDG.E.128
wk_swiglu basic LDG.E.128
wk_zero basic STG.E.128
wk_gemm gemm HMMA.16816.F32.BF16
wk_gemm gemm LDGSTS.E.BYPASS.*128
wk_attn_whole attention HMMA.16816.F32.BF16
wk_attn_whole attention LDGSTS.E.BYPASS.*128
wk_attn_split attention HMMA.16816.F32.BF16
wk_attn_split attention LDGSTS.E.BYPASS.*128
wk_flash_gather flash LDG.E.128
wk_flash_gather flash STG.E.128
wk_flash_64 flash HGMMA.64x128x16.F32.BF16 sm_90a
wk_flash_64 flash HGMMA.64x64x16.F32.BF16 sm_90a
wk_flash_64 flash UBLKCP sm_90a
wk_flash_64 flash USETMAXREG sm_90a
wk_flash_128 flash HGMMA.64x128x16.F32.BF16 sm_90a
wk_flash_128 flash UBLKCP sm_90a
wk_flash_128 flash USETMAXREG sm_90a
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
	echo "$needs" | awk -v f="$file" '$2 == f { print $1, $3, $4 }' | while read -r kernel what on; do
		awk -v k="$kernel" -v what="$what" -v on="$on" '
			function close_one() { if (inside && !seen) print name; inside = 0 }
			/^arch =/ { close_one(); arch = $3 }
			/Function :/ { close_one(); name = $NF; seen = 0
				inside = index(name, k) == 1 && (on == "" || arch == on); n += inside }
			inside && $0 ~ what { seen = 1 }
			END { close_one(); if (!n) print k " is not there" }' "$sass" |
			sed "s/\$/ has no $what/"
	done
done >"$sass.faults"

# While the values of a tile are added up its successor's softmax is done: between the wait for the scores and
# the one for the values there are its 64 exponentials.
"$cuobjdump" --dump-sass "$dir/flash.fatbin" | awk '
	/Function :/ { name = $NF; beside = 0 }
	/WARPGROUP.DEPBAR.LE gsb0, 0x1/ { beside = 1; n = 0 }
	beside && /MUFU.EX2/ { n++ }
	beside && /WARPGROUP.DEPBAR.LE gsb0, 0x0/ {
		beside = 0; seen++
		if (n < 64) print name " does " n " exponentials beside its products" }
	END { if (seen != 2) print "flash: " seen + 0 " loops with products under way" }' >>"$sass.faults"

# Kernels that copy weights before they wait, or bring them into the cache. Split attention reads
# what its unit is, too.
early='^wk_(gemm_|norm$|attn_split_)'
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
			!(name ~ early && op ~ /^(LDGSTS|UBLKPF)[. ]/) &&
			!(name ~ /^wk_attn_split_/ && op ~ /^LDG[.]E[.]STRONG[.]GPU /) { first = op }
		END { close_one(); if (!n) print file " has no kernel for Hopper" }'
done >>"$sass.faults"
[ ! -s "$sass.faults" ] || fault "$(cat "$sass.faults")"
rm -f "$sass.faults"
exit $failed

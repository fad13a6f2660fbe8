include kernels/cuda/rules.mk

kernels_src := $(wildcard kernels/*.c kernels/ref/*.c kernels/cpu/*.c)

# A source NAME_<path>.c is compiled with that path's instructions. gcc 12 has no znver4, so the
# features are listed; they hold in gcc and clang alike.
isa-avx2       := -mavx2 -mfma -mf16c -mbmi2
isa-avx512     := $(isa-avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512cd \
	-mprefer-vector-width=512
isa-avx512bf16 := $(isa-avx512) -mavx512bf16
isa_flags = $(foreach s,$(filter %_$(1).c,$(kernels_src)),$(eval cflags-$(s) := $(isa-$(1))))
$(foreach p,avx2 avx512 avx512bf16,$(call isa_flags,$(p)))

$(O)/libwk.a: $(call obj,$(kernels_src))
	$(archive)

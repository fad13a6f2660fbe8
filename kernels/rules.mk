kernels_src := $(wildcard kernels/*.c kernels/ref/*.c kernels/cpu/*.c)
$(O)/libwk.a: $(call obj,$(kernels_src))
	$(archive)

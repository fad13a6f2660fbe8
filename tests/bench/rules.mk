# Measuring on a device: the program, and all that tests/bench/on_device.sh needs, in one folder that can
# be carried to a machine that has a device and nothing else.
device_bench := $(O)/tests/bench/device-bench
$(device_bench): $(call obj,$(wildcard tests/bench/device*.c) kernels/cuda/driver.c kernels/cuda/blas.c) \
		$(O)/libengine.a $(O)/libwshm.a $(O)/libwk.a $(O)/libweft-text.a
	@mkdir -p $(@D)
	$(call link,$(engine_libs) $(text_libs))

# make cuda-bundle: build/cuda-bundle/on_device.sh is the one command on the machine with a device.
CUDA_BUNDLE_MIB := 60
.PHONY: cuda-bundle
cuda-bundle: all $(tests_bin) $(device_bench) $(cuda_programs)
	$(Q)$(if $(nvcc_found),,echo "cuda-bundle: there is no $(NVCC) to compile the kernels with" >&2; exit 1;) \
		tests/bench/stage.sh $(O) . $(O)/cuda-bundle $(O)/weft-cuda.so
	$(Q)size=$$(du -sm $(O)/cuda-bundle | cut -f1); echo "$(O)/cuda-bundle: $$size MiB; run on_device.sh there"; \
		[ $$size -le $(CUDA_BUNDLE_MIB) ] || { echo "cuda-bundle: over $(CUDA_BUNDLE_MIB) MiB" >&2; exit 1; }

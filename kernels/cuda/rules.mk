# The CUDA backend: weft-cuda.so, where nvcc is found (CUDA=0: nowhere; CUDA=1: or it is an error).
# nvcc 12 is the first that knows the devices below; an older one counts as none.
# Its host code is C and needs nothing of CUDA; the tests build it everywhere (tests/cuda/rules.mk).
CUDA ?= auto
NVCC ?= nvcc
nvcc_found := $(if $(filter 0,$(CUDA)),,$(shell command -v $(NVCC) 2>/dev/null))
nvcc_major := $(if $(nvcc_found),$(shell $(NVCC) --version | sed -n 's/.* release \([0-9]*\)\..*/\1/p'))
nvcc_found := $(if $(shell [ "$(nvcc_major)" -ge 12 ] 2>/dev/null && echo 1),$(nvcc_found))
$(if $(filter 1,$(CUDA)),$(if $(nvcc_found),,$(error CUDA=1, but there is no $(NVCC) of release 12 or later)))

# Machine code for the oldest device that is served and for the one that it is tuned for; PTX for others.
CUDA_ARCHS ?= -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a \
	-gencode=arch=compute_80,code=compute_80

cuda_kernels := $(basename $(notdir $(wildcard kernels/cuda/*.cu)))
cuda_fatbins := $(cuda_kernels:%=$(O)/kernels/cuda/%.fatbin)
cuda_src     := $(filter-out %/driver_check.c %/image.c,$(wildcard kernels/cuda/*.c))
# What the module takes along of the code that all backends share.
cuda_shared  := kernels/lora.c kernels/uniform.c

# -Xptxas -v says how many registers each kernel has and what it spills: kept, and read by check-cuda.
$(O)/kernels/cuda/%.fatbin: kernels/cuda/%.cu kernels/cuda/device.cuh kernels/cuda/hopper.cuh \
		kernels/cuda/args.h $(O)/.flags
	@mkdir -p $(@D)
	$(say) NVCC $<
	$(Q)$(NVCC) -fatbin -std=c++17 $(CUDA_ARCHS) -fmad=false -O3 -I. -Xptxas -v \
		-Werror all-warnings -o $@ $< > $@.log 2>&1 || { cat $@.log >&2; rm -f $@; exit 1; }

cflags-kernels/cuda/image.c := -DWEFT_FATBIN='"$(abspath $(O))/kernels/cuda"' -DWEFT_NVCC=$(nvcc_major)
$(O)/kernels/cuda/image.o: $(cuda_fatbins)

$(O)/weft-cuda.so: $(call obj,$(cuda_src) kernels/cuda/image.c $(cuda_shared))
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(base_ldflags) $(LDFLAGS) -shared -Wl,-z,defs -o $@ $(filter %.o,$^) -ldl -lm

cuda_programs := $(if $(nvcc_found),$(O)/weft-cuda.so)

# What was compiled: spills, the instructions that are claimed, our declarations against the vendor's.
nvcc_include := $(if $(nvcc_found),$(firstword $(wildcard $(patsubst %/bin/,%/include,$(dir $(realpath $(nvcc_found)))))))
.PHONY: check-cuda
check-cuda: $(cuda_programs)
ifeq ($(nvcc_found),)
	@echo "check-cuda: nothing checked, no $(NVCC) of release 12 or later"
else
	$(Q)scripts/check-cuda.sh $(O)/kernels/cuda
	$(Q)$(if $(and $(wildcard $(nvcc_include)/cuda.h),$(wildcard $(nvcc_include)/cublasLt.h)),$(CC) \
		$(base_cflags) -MF /dev/null -I$(nvcc_include) -fsyntax-only kernels/cuda/driver_check.c,echo \
		"check-cuda: declarations not checked, no cuda.h and cublasLt.h beside $(NVCC)")
endif

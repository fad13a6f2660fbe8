# The CUDA backend without a device: its host code as a module, and a driver that runs the kernels' own
# text (tests/cuda/fake). Needs a C++ compiler on x86-64; without one these tests say so and are skipped.
CXX_FOUND := $(if $(filter x86_64,$(shell uname -m)),$(shell command -v $(or $(filter-out default undefined,$(CXX)),g++) 2>/dev/null))
fake_dir     := $(O)/tests/cuda
fake_kernels := $(cuda_kernels:%=$(fake_dir)/fake/%.o)
fake_cxx     := -std=c++17 -O2 -g -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra \
	-Wno-unknown-pragmas -Wno-unused-function -I. -MMD -MP

$(fake_dir)/fake/%.o: kernels/cuda/%.cu $(O)/.flags
	@mkdir -p $(@D)
	$(say) CXX $<
	$(Q)$(CXX_FOUND) $(fake_cxx) -include tests/cuda/fake/emulate.cuh -x c++ -c -o $@ $<
fake_emulator := $(fake_dir)/fake/emulate.o $(fake_dir)/fake/hopper.o
$(fake_emulator): $(fake_dir)/fake/%.o: tests/cuda/fake/%.cc $(O)/.flags
	@mkdir -p $(@D)
	$(say) CXX $<
	$(Q)$(CXX_FOUND) $(fake_cxx) -c -o $@ $<

fake_driver := $(addprefix $(fake_dir)/fake/,driver.o memory.o stream.o)
$(fake_dir)/libcuda.so.1: $(fake_driver) $(fake_emulator) $(fake_kernels)
	$(say) LINK $@
	$(Q)$(CXX_FOUND) -shared -Wl,-z,nodelete -o $@ $^
$(fake_dir)/libcuda-old.so.1: $(fake_dir)/libcuda.so.1 tests/cuda/fake/old.map
	$(say) LINK $@
	$(Q)$(CXX_FOUND) -shared -Wl,--version-script,tests/cuda/fake/old.map -o $@ \
		$(fake_driver) $(fake_emulator) $(fake_kernels)
$(fake_dir)/libcublasLt-fake.so: $(fake_dir)/fake/blas.o
	$(say) LINK $@
	$(Q)$(CC) $(base_ldflags) $(LDFLAGS) -shared -o $@ $^
$(fake_dir)/weft-cuda.so: $(call obj,$(cuda_src) tests/cuda/fake/image.c $(cuda_shared))
	$(say) LINK $@
	$(Q)$(CC) $(base_ldflags) $(LDFLAGS) -shared -Wl,-z,defs -o $@ $(filter %.o,$^) -ldl -lm

# Sanitizers know nothing of fibers.
fake_cuda := $(if $(and $(CXX_FOUND),$(if $(SAN),,1)),$(fake_dir)/libcuda.so.1 $(fake_dir)/libcuda-old.so.1 \
	$(fake_dir)/libcublasLt-fake.so \
	$(fake_dir)/weft-cuda.so)

# What takes minutes under emulation: called where check-cuda is.
emulated_tests := $(addprefix $(O)/tests/,model/test_adapter_oracle model/test_adapter_mix model/test_chunks \
	kernels/test_lora_invariance kernels/test_attention_invariance)
.PHONY: check-cuda-emulated
check-cuda-emulated: $(emulated_tests) $(fake_cuda)
	$(Q)WEFT_BUILD=$(abspath $(O)) WEFT_SRC=$(abspath .) prove --exec '' --timer tests/cuda/emulated.sh

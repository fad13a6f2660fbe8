# One executable per test source, in tests/<group>/test_*.c; shell tests are tests/<group>/*.t.
# Helpers shared by a group's tests are its other .c files.
# The group cache has its own rules.
include tests/cache/rules.mk
include tests/cuda/rules.mk
test_groups := unit shm kernels cuda model text e2e hostile fault
check_groups ?= cache $(test_groups)
tests_src   := $(foreach g,$(test_groups),$(wildcard tests/$(g)/test_*.c))
tests_bin   := $(patsubst %.c,$(O)/%,$(tests_src))
tests_group  = $(foreach g,$(check_groups),$(if $(filter cache,$(g)),$(cache_check),$(patsubst %.c,$(O)/%,$(wildcard tests/$(g)/test_*.c))))
tests_sh     = $(foreach g,$(check_groups),$(wildcard tests/$(g)/*.t))
test_common := $(filter-out test_%,$(wildcard tests/*.c))
# After tests_bin, which its bundle needs.
include tests/bench/rules.mk

test_archives := $(O)/libtools.a $(O)/libsupervisor.a $(O)/libengine.a $(O)/libweft.a $(O)/libweft-text.a $(O)/libwk.a
test_libs := $(text_libs) $(engine_libs) $(supervisor_libs) $(client_libs) $(edit_libs) -lseccomp

$(O)/libtest.a: $(call obj,$(test_common) $(foreach g,$(test_groups),$(filter-out tests/$(g)/test_%,$(wildcard tests/$(g)/*.c))))
	$(archive)

$(tests_bin): $(O)/%: $(O)/%.o $(O)/libtest.a $(test_archives)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(base_ldflags) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(test_libs)

.PHONY: check-run tests
tests: $(tests_bin) $(cache_check) $(fake_cuda) $(device_bench)

# make check check_groups="unit shm" runs some groups; WEFT_BUILD tells the tests where the programs are. Tests
# that become another user need files that this one may read, whatever the caller's umask. With SAN=thread a report of
# any process is a failure.
watched = $(if $(filter thread,$(SAN)),CC='$(CC)' scripts/races.sh $(abspath $(O)))
check-run: all $(tests_bin) $(cache_check) $(fake_cuda) $(device_bench)
	$(Q)umask 022; WEFT_BUILD=$(abspath $(O)) WEFT_SRC=$(abspath .) $(watched) \
		prove --exec '' --timer -j1 $(tests_group) $(tests_sh)

# make check-collisions: an engine with keys of 8 bits, so that nearly all collide. Whatever says what is reused and by
# whom must still be right; how much is reused becomes an upper bound. A build folder of its own.
collision_tests := e2e/test_property e2e/test_complete e2e/test_reuse e2e/test_mistakes e2e/test_engine_cache \
	e2e/test_engine_adapter hostile/test_leak
.PHONY: check-collisions check-collisions-run
check-collisions: deps
	$(Q)$(MAKE) --no-print-directory DEPS=0 O=$(O)-key8 CFLAGS='$(CFLAGS) -DWSHM_KEY_BITS=8' check-collisions-run
check-collisions-run: all $(filter $(addprefix $(O)/tests/,$(collision_tests)),$(tests_bin))
	$(Q)WEFT_BUILD=$(abspath $(O)) WEFT_SRC=$(abspath .) \
		prove --exec '' --timer -j1 $(filter $(addprefix $(O)/tests/,$(collision_tests)),$(tests_bin))

# make check-races: what has several threads, under the thread sanitizer, in a build folder of its own.
race_tests := e2e/test_at_once e2e/test_client_threads e2e/test_engine_adapter e2e/test_engine_chores kernels/test_pool \
	shm/test_handshakes shm/test_need_wake_torture shm/test_ring_torture shm/test_threads shm/test_wait_torture
.PHONY: check-races check-races-run
check-races: deps
	$(Q)$(MAKE) --no-print-directory DEPS=0 SAN=thread O=$(O)-thread check-races-run
check-races-run: all $(addprefix $(O)/tests/,$(race_tests))
	$(Q)umask 022; WEFT_BUILD=$(abspath $(O)) WEFT_SRC=$(abspath .) $(watched) \
		prove --exec '' --timer -j1 $(addprefix $(O)/tests/,$(race_tests))

# make stress: what make check does twenty times, two hundred times, and every torture once more.
STRESS_KILLS ?= 200
STRESS_CACHE ?= 20000000
STRESS_REQUESTS ?= 1000000
STRESS_TRIALS ?= 20000
STRESS_LOOKUPS ?= 400000000
stress_tests := $(patsubst %.c,$(O)/%,$(wildcard tests/fault/test_kill_*.c tests/hostile/test_re*.c tests/shm/test_*_torture.c \
	tests/e2e/test_property.c tests/hostile/test_leak.c)) \
	$(O)/tests/cache/test_random $(O)/tests/cache8/test_random
.PHONY: stress
stress: all $(stress_tests)
	$(Q)WEFT_BUILD=$(abspath $(O)) WEFT_SRC=$(abspath .) WEFT_KILLS=$(STRESS_KILLS) WEFT_CACHE_OPS=$(STRESS_CACHE) \
		WEFT_REQUESTS=$(STRESS_REQUESTS) WEFT_TRIALS=$(STRESS_TRIALS) WEFT_LOOKUPS=$(STRESS_LOOKUPS) \
		prove --exec '' --timer -j1 $(stress_tests)

# make fuzz FUZZ_SECONDS=60: each target with its seed corpus; what is found stays in $(O)/fuzz.
FUZZ_SECONDS ?= 60
FUZZ_CC      ?= clang
fuzz_flags   := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined
fuzz_targets := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_shared  := $(shm_src) $(text_src) tests/shm/desc_oracle.c tests/shm/pair.c tests/shm/idx_damage.c daemon/common/err.c \
	$(addprefix daemon/engine/model/,json_file.c safetensors.c config.c rope.c adapter.c \
	adapter_config.c adapter_invocation.c adapter_pattern.c)

fuzz:
	$(Q)FUZZ_CC='$(FUZZ_CC)' FUZZ_FLAGS='$(fuzz_flags)' FUZZ_SECONDS='$(FUZZ_SECONDS)' \
		scripts/fuzz.sh $(O)/fuzz '$(fuzz_targets)' '$(fuzz_shared)' \
		'$(filter-out $(SANFLAGS),$(base_cflags)) -O1 -g' '$(call pc_libs,$(MSGPACK_PC) jansson libxxhash libpcre2-8 libutf8proc) -lm'

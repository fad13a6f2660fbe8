# The cache's tests are linked with the cache alone: neither engine nor shared memory. The mirror is
# a recorder (fake_idx.c). Each program is built a second time, with keys of 8 bits, in cache8/.
cache_src     := $(wildcard daemon/engine/cache/*.c) daemon/engine/blocks.c shm/key.c
cache_helpers := $(filter-out tests/cache/test_% tests/cache/bench_%,$(wildcard tests/cache/*.c))
cache_tests   := $(wildcard tests/cache/test_*.c)
cache_bin     := $(patsubst %.c,$(O)/%,$(cache_tests))
cache8_bin    := $(patsubst tests/cache/%.c,$(O)/tests/cache8/%,$(cache_tests))
cache_check   := $(cache_bin) $(cache8_bin)

$(cache_bin): $(O)/%: $(O)/%.o $(call obj,$(cache_src) $(cache_helpers))
	$(call link,$(call pc_libs,libxxhash) -lm)

$(O)/tests/cache8/obj/%.o: %.c $(O)/.flags
	@mkdir -p $(@D)
	$(say) CC '$< (8-bit keys)'
	$(Q)$(CC) $(base_cflags) -DWSHM_KEY_BITS=8 $(CFLAGS) -c -o $@ $<

$(cache8_bin): $(O)/tests/cache8/%: $(O)/tests/cache8/obj/tests/cache/%.o \
		$(patsubst %.c,$(O)/tests/cache8/obj/%.o,$(cache_src) $(cache_helpers))
	$(call link,$(call pc_libs,libxxhash) -lm)

# Not a test: what the cache costs, with the true mirror.
$(O)/tests/cache/bench_cache: $(O)/tests/cache/bench_cache.o $(O)/libengine.a $(O)/libwshm.a
	$(call link,$(engine_libs))

tools_src := $(filter-out %/main.c,$(wildcard tools/*.c))
$(O)/libtools.a: $(call obj,$(tools_src))
	$(archive)

# weft chat edits lines.
edit_libs := $(call pc_libs,libedit)

# The command line talks to the daemon through libweft alone; `weft bench` and `weft model` also
# use the kernels and the model loader directly, in their own process.
$(O)/weft: $(O)/tools/main.o $(O)/libtools.a $(O)/libengine.a $(O)/libweft.a $(O)/libweft-text.a $(O)/libwk.a
	$(call link,$(text_libs) $(engine_libs) $(client_libs) $(edit_libs))

tools_programs := $(O)/weft

.PHONY: bench-run
bench-run: all
	$(Q)scripts/bench.sh $(O)

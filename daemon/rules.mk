common_src     := $(wildcard daemon/common/*.c)
supervisor_src := $(filter-out %/main.c,$(wildcard daemon/supervisor/*.c))
engine_src     := $(filter-out %/main.c,$(wildcard daemon/engine/*.c daemon/engine/*/*.c))

$(O)/libsupervisor.a: $(call obj,$(supervisor_src) $(common_src))
	$(archive)
$(O)/libengine.a: $(call obj,$(engine_src) $(common_src))
	$(archive)

engine_libs     := $(call pc_libs,jansson libxxhash liburcu-qsbr) -ldl -lm
supervisor_libs := $(call pc_libs,jansson libxxhash) -linih -lm

$(O)/weftd: $(O)/daemon/supervisor/main.o $(O)/libsupervisor.a $(O)/libwshm.a
	$(call link,$(supervisor_libs))
# Adapters may say what activates them in text.
$(O)/weft-engine: $(O)/daemon/engine/main.o $(O)/libengine.a $(O)/libwshm.a $(O)/libwk.a $(O)/libweft-text.a
	$(call link,$(engine_libs) $(text_libs))

daemon_programs := $(O)/weftd $(O)/weft-engine

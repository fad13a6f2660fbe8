shm_src := $(wildcard shm/*.c)
$(O)/libwshm.a: $(call obj,$(shm_src))
	$(archive)

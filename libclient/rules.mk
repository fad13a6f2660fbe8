libclient_src := $(wildcard libclient/*.c)
client_libs   := $(call pc_libs,$(MSGPACK_PC) libxxhash)

$(O)/libweft.a: $(call obj,$(libclient_src) $(shm_src))
	$(archive)
$(O)/libweft.so.0: $(call obj,$(libclient_src) $(shm_src)) libclient/libweft.map
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) -shared $(base_ldflags) $(LDFLAGS) -Wl,-soname,libweft.so.0 \
		-Wl,--version-script=libclient/libweft.map -o $@ $(filter %.o,$^) $(client_libs)
	$(Q)ln -sf libweft.so.0 $(O)/libweft.so

libclient_libs := $(O)/libweft.a $(O)/libweft.so.0

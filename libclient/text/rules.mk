text_src  := $(wildcard libclient/text/*.c libclient/text/template/*.c)
text_libs := $(call pc_libs,libpcre2-8 jansson libutf8proc libxxhash)

$(O)/libweft-text.a: $(call obj,$(text_src))
	$(archive)
$(O)/libweft-text.so.0: $(call obj,$(text_src)) libclient/text/libweft-text.map
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) -shared $(base_ldflags) $(LDFLAGS) -Wl,-soname,libweft-text.so.0 \
		-Wl,--version-script=libclient/text/libweft-text.map -o $@ $(filter %.o,$^) $(text_libs) -lm
	$(Q)ln -sf libweft-text.so.0 $(O)/libweft-text.so

libclient_libs += $(O)/libweft-text.a $(O)/libweft-text.so.0

# make deb, make rpm: the packages, in $(packages). What is installed is staged once and split by the
# lists in packaging/files. Built twice, they are the same bytes: all times are that of the last commit.
packages ?= $(O)/packages
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y VERSION)
# Who answers for the packages, as "name <address>".
PACKAGER ?= weft maintainers <maintainers@weft.invalid>

.PHONY: deb rpm deb-run rpm-run
# Not both at once: each builds what is missing.
rpm: | $(filter deb,$(MAKECMDGOALS))
deb rpm:
	$(Q)DEPS=$(DEPS) scripts/deps.sh $@
	$(Q)$(MAKE) --no-print-directory DEPS=0 $@-run

# stage,<folder>,<libdir>,<folder of zsh's completions>
define stage
	@$(if $(SAN),echo "packages are not made with a sanitizer" >&2; exit 1)
	$(Q)rm -rf $(1)
	+$(Q)$(MAKE) --no-print-directory -s -o all DEPS=0 install DESTDIR=$(abspath $(1)) prefix=/usr \
		bindir=/usr/bin libdir=$(2) libexecdir=/usr/lib/weft includedir=/usr/include \
		mandir=/usr/share/man docdir=/usr/share/doc/weftd/examples zshdir=$(3) > $(1).log
	$(Q)SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) packaging/stage.sh $(1)
endef

packager_env = SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) PACKAGER='$(PACKAGER)'

deb-run: deb_libdir = /usr/lib/$(shell dpkg-architecture -qDEB_HOST_MULTIARCH)
deb-run: all
	@mkdir -p $(packages)
	$(call stage,$(packages)/deb-stage,$(deb_libdir),/usr/share/zsh/vendor-completions)
	$(Q)$(packager_env) packaging/deb/build.sh $(packages)/deb-stage $(deb_libdir) $(packages)

rpm-run: rpm_libdir = $(shell rpm --eval '%{_libdir}')
rpm-run: all
	@mkdir -p $(packages)
	$(call stage,$(packages)/rpm-stage,$(rpm_libdir),/usr/share/zsh/site-functions)
	$(Q)$(packager_env) packaging/rpm/build.sh $(packages)/rpm-stage $(rpm_libdir) $(packages)

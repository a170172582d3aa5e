# One Makefile, no recursion into folders: make sees the whole dependency graph.
# `make help` lists the targets; variables a user may set stand first.
O       ?= build
# make presets CC to cc, which ?= would keep
ifeq ($(origin CC),default)
CC      := gcc
endif
CLANG   ?= clang
BPFTOOL ?= bpftool
PREFIX  ?= /usr/local
DESTDIR ?=
SAN     ?=
COV     ?=
V       ?= 0
CFLAGS  ?= -O2 -g
FUZZ_SECONDS ?= 60
SUDO_CHECK = [ "$$(id -u)" = 0 ] || { echo "make $@: needs root (namespaces, BPF, capabilities): sudo make $@" >&2; exit 1; }

VERSION := 0.1.0
Q       := $(if $(filter 1,$V),,@)
say      = $(if $(filter 1,$V),,@printf '  %-7s %s\n' $(1) $(2))

PKGS := libbpf yaml-0.1 jansson libcares libcap-ng libseccomp libssl libcrypto libnftnl libmnl
WARN := -Wall -Wextra -Werror -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
	-Wswitch-enum -Wvla -fno-common
HARD := -fstack-protector-strong -fPIE $(if $(SAN)$(COV),,-D_FORTIFY_SOURCE=2)
ALL_CFLAGS := -std=gnu11 -D_GNU_SOURCE -DSL_VERSION='"$(VERSION)"' -pthread $(WARN) $(HARD) \
	-Iuserspace -Ibpf -I. -isystem $O/gen $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CFLAGS)
ALL_LDFLAGS := -pthread -pie -Wl,-z,relro,-z,now $(LDFLAGS)
LDLIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm
ifneq ($(SAN),)
ALL_CFLAGS  += -fsanitize=$(SAN) -fno-omit-frame-pointer -DSL_SANITIZED
ALL_LDFLAGS += -fsanitize=$(SAN)
endif
ifneq ($(COV),)
ALL_CFLAGS  += --coverage -O0
ALL_LDFLAGS += --coverage
endif

# Exactly what the kernel's user headers need; no BTF of this host is read at build time.
BPF_CFLAGS := -g -O2 -mcpu=v3 -target bpf -Wall -Wextra -Werror \
	-idirafter /usr/include/$(shell $(CC) -print-multiarch 2>/dev/null) -Ibpf

SRC   := $(wildcard userspace/*/*.c nft/*.c)
MAIN  := userspace/daemon/main.c
OBJ   := $(SRC:%.c=$O/%.o)
LIB   := $O/libsluice.a
LIBOBJ := $(filter-out $(MAIN:%.c=$O/%.o),$(OBJ))
CORE  := $(filter $O/userspace/core/%,$(OBJ))
BPF   := $(wildcard bpf/*.bpf.c)
SKEL  := $(BPF:bpf/%.bpf.c=$O/gen/%.skel.h)
UNIT  := $(patsubst tests/unit/%.c,$O/unit/%,$(wildcard tests/unit/test_*.c))
VMUNIT := guard% sklookup% packet% sockmap% broker% ct_% nat% nft% tls_ktls%
FUZZ  := $(patsubst tests/fuzz/%.c,$O/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
TESTTOOLS := $(patsubst tests/lib/%.c,$O/testlib/%,$(wildcard tests/lib/*.c))
CFILES := $(wildcard userspace/*/*.[ch] nft/*.[ch] bpf/*.[ch] tools/*.[ch] tests/*/*.[ch])
SCRIPTS = $(shell grep -lE '^\#!.*(ba)?sh' $$(git ls-files -- '*.sh' .ci/run tests/e2e tools 2>/dev/null) 2>/dev/null)

all: $O/sluiced $O/sluice

help:
	@echo 'make all        build/sluiced and build/sluice (CC=clang, SAN=address,undefined, SAN=thread, COV=1, V=1, O=DIR)'
	@echo 'make demo       root: install what is missing, build, show the daemon at work in namespaces of its own'
	@echo 'make check      root: install what is missing, build, run lint, unit, fuzz (short) and e2e tests'
	@echo 'make unit       unit tests only; no root'
	@echo 'make e2e        root: end-to-end tests only (ONLY=NAME for one)'
	@echo 'make lint       layer, purity, header, format and shell checks'
	@echo 'make tidy       clang-tidy over everything (slow)'
	@echo 'make fuzz       every fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo 'make soak       root: the long suites (integrity, churn, deaths, sanitizers)'
	@echo 'make vmtest     other kernels, in virtual machines (KERNEL=6.1 or 6.12; both without it)'
	@echo 'make bench      root: against routing, DNAT, HAProxy and nginx, one interleaved run (ONLY=packet, ONLY=tls: short)'
	@echo 'make bench-matcher  what routing costs by the number of routes, and lists of addresses'
	@echo 'make bench-packet-prog  root: what a packet costs in the programs of the packet engine'
	@echo 'make bench-tls  handshakes and bytes per second of one core that the TLS library allows'
	@echo 'make coverage   line coverage of userspace/core (needs gcovr)'
	@echo 'make install    to DESTDIR and PREFIX=$(PREFIX)'
	@echo 'make deps       root: install-deps.sh'

# A change of flags rebuilds everything that depends on them.
FLAGS := $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LDLIBS)
$(shell mkdir -p $O && { [ "$$(cat $O/flags 2>/dev/null)" = "$$(printf '%s' '$(subst ','\'',$(FLAGS))')" ] || printf '%s' '$(subst ','\'',$(FLAGS))' > $O/flags; })

$O/bpf/%.bpf.o: bpf/%.bpf.c
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$Q$(CLANG) $(BPF_CFLAGS) -MMD -MP -MT $@ -MF $O/bpf/$*.bpf.d -c $< -o $@.tmp
	$Q$(BPFTOOL) gen object $@ $@.tmp && rm $@.tmp

$O/gen/%.skel.h: $O/bpf/%.bpf.o
	$(call say,SKEL,$@)
	@mkdir -p $(@D)
	$Q$(BPFTOOL) gen skeleton $< name sl_$*_bpf > $@

$O/userspace/%.o: userspace/%.c $O/flags | $(SKEL)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$O/nft/%.o: nft/%.c $O/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

# Skeletons come through -isystem, which -MMD leaves out.
$(filter $O/userspace/accel/%,$(OBJ)): $(SKEL)

$O/tools/%.o: tools/%.c $O/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(LIB): $(LIBOBJ)
	$(call say,AR,$@)
	$Qrm -f $@ && $(AR) rcs $@ $^

$O/sluiced: $(MAIN:%.c=$O/%.o) $(LIB)
	$(call say,LINK,$@)
	$Q$(CC) $(ALL_LDFLAGS) $^ $(LDLIBS) -o $@

$O/sluice: $O/tools/sluice.o $(LIB)
	$(call say,LINK,$@)
	$Q$(CC) $(ALL_LDFLAGS) $^ $(LDLIBS) -o $@

# WRAP in a test's first lines names the functions it replaces: /* WRAP: malloc calloc */
wrap = $(foreach f,$(shell sed -n '1,5s,.*/\* WRAP: \(.*\) \*/.*,\1,p' $(1)),-Wl,--wrap=$f)
$O/unit/%: tests/unit/%.c $(LIB)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) -Wno-conversion -Wno-missing-prototypes -MMD -MP $(ALL_LDFLAGS) \
		$(call wrap,$<) $< $(LIB) -lcmocka $(LDLIBS) -o $@

# Programs the end-to-end tests and benchmarks drive; plain, also when the daemon is sanitized.
$O/testlib/%: tests/lib/%.c $(wildcard tests/lib/*.h)
	$(call say,TOOL,$@)
	@mkdir -p $(@D)
	$Q$(CC) -std=gnu11 -D_GNU_SOURCE -pthread -O2 -g $(WARN) -Iuserspace $< -o $@ -lm $(if $(filter tls_%,$(@F)),-lssl -lcrypto)

$O/bench/%: tests/bench/%.c $(LIB)
	$(call say,BENCH,$@)
	@mkdir -p $(@D)
	$Q$(CC) $(ALL_CFLAGS) -MMD -MP $(ALL_LDFLAGS) $< $(LIB) $(LDLIBS) -o $@

$O/fuzz/%: tests/fuzz/%.c $(wildcard tests/fuzz/*.h userspace/*/*.[ch] nft/*.[ch])
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$Q$(CLANG) $(filter-out -D_FORTIFY_SOURCE=2 -fPIE,$(ALL_CFLAGS)) -Wno-missing-prototypes \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		$< $(wildcard userspace/base/*.c userspace/core/*.c userspace/conf/*.c nft/*.c) \
		userspace/broker/nft_routes.c userspace/broker/nat_plan.c \
		$(if $(findstring tls_stream,$@),$(wildcard userspace/tls/*.c)) $(LDLIBS) -o $@

testtools: $(TESTTOOLS)

unit: $(UNIT)
	$Qtests/run unit $(UNIT)

lint: $(CORE) $(SKEL)
	$Qtests/run lint $(CORE)

# check and demo install first and then look at the machine anew (pkg-config, compilers).
check:
	@$(SUDO_CHECK)
	$Q./install-deps.sh
	$Q$(MAKE) --no-print-directory check-installed

check-installed: all $(UNIT) $(FUZZ) $(TESTTOOLS) $(CORE)
	$QO=$O CORE="$(CORE)" UNIT="$(UNIT)" FUZZ="$(FUZZ)" tests/run check

e2e: all $(TESTTOOLS)
	@$(SUDO_CHECK)
	$QO=$O tests/run e2e $(ONLY)

fuzz: $(FUZZ)
	$QFUZZ_SECONDS=$(FUZZ_SECONDS) tests/run fuzz $(FUZZ)

soak: all $(TESTTOOLS)
	@$(SUDO_CHECK)
	$QO=$O tests/run soak $(ONLY)

# Needs root only to install what is missing.
vmtest:
	$Q./install-deps.sh --vm
	$Q$(MAKE) --no-print-directory vmtest-installed

vmtest-installed: all $(TESTTOOLS) $(filter $(VMUNIT:%=$O/unit/test_%),$(UNIT))
	$Qrc=0; for k in $(or $(KERNEL),6.1 6.12); do O=$O tests/vm/run $$k -- tests/vm/suite || rc=1; done; exit $$rc

bench: all $(TESTTOOLS) $O/bench/nat_scale $O/bench/tls_load
	@$(SUDO_CHECK)
	$QO=$O tests/bench/run $(ONLY)

bench-matcher: $O/bench/matcher
	$Q$<

bench-tls: $O/bench/tls_handshakes
	$Q$<

bench-packet-prog: $O/bench/packet_prog
	@$(SUDO_CHECK)
	$Q$<

demo:
	@$(SUDO_CHECK)
	$Q./install-deps.sh
	$Q$(MAKE) --no-print-directory all
	$QO=$O tools/demo.sh

deps:
	$Q./install-deps.sh

coverage:
	$Q$(MAKE) --no-print-directory O=$O/cov COV=1 unit
	$Qgcovr --root . --object-directory $O/cov --filter userspace/core/ --fail-under-line 95 $O/cov

tidy: $(SKEL)
	$Qclang-tidy --quiet $(SRC) tools/sluice.c -- $(ALL_CFLAGS)

format:
	$Qclang-format -i $(CFILES)

install: all
	install -D -m 0755 $O/sluiced $(DESTDIR)$(PREFIX)/sbin/sluiced
	install -D -m 0755 $O/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	install -d -m 0755 $(DESTDIR)/etc/sluice/conf.d
	[ -e $(DESTDIR)/etc/sluice/sluice.yaml ] || \
		install -m 0644 docs/sluice.yaml $(DESTDIR)/etc/sluice/sluice.yaml
	install -D -m 0644 docs/sluiced.service $(DESTDIR)$(PREFIX)/lib/systemd/system/sluiced.service
	install -D -m 0644 README.md $(DESTDIR)$(PREFIX)/share/doc/sluice/README.md

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/sluiced $(DESTDIR)$(PREFIX)/bin/sluice \
		$(DESTDIR)$(PREFIX)/lib/systemd/system/sluiced.service \
		$(DESTDIR)$(PREFIX)/share/doc/sluice/README.md

clean:
	$(call say,CLEAN,$O)
	$Qrm -rf $O

.PHONY: all help unit lint check check-installed e2e fuzz soak vmtest vmtest-installed bench \
	bench-matcher bench-tls bench-packet-prog demo deps coverage tidy format install uninstall clean testtools
.DELETE_ON_ERROR:
.SECONDARY:
-include $(shell find $O -name '*.d' 2>/dev/null)

# container_manager: built with PGXS.
#
#   make && sudo make install      build and install for the pg_config in PATH
#   make installcheck              SQL tests against a running, preloaded server
#   make unit | lint               need no server and no root
#   make demo | check-all          need root: they start a Docker engine of their own
#
# Another server:        make PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config
# Out of the tree:       mkdir b && cd b && make -f ../Makefile
# Warnings as errors:    make COPT=-Werror   (CI does; users' compilers may be newer)

PG_CONFIG ?= pg_config

# The folder of this file, also when make was started in another one.
here := $(patsubst %/,%,$(dir $(abspath $(firstword $(MAKEFILE_LIST)))))

EXTENSION = container_manager
# The control file is the one place where the version is written.
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" $(here)/container_manager.control)

MODULE_big = container_manager
SRCS := $(sort $(notdir $(wildcard $(here)/src/*.c)))
OBJS = $(SRCS:%.c=src/%.o)

# The install script is assembled from its parts in the order of their numbers;
# upgrade scripts are taken as they are.
SQL_PARTS := $(sort $(wildcard $(here)/sql/[0-9][0-9]-*.sql))
DATA_built = sql/container_manager--$(EXTVERSION).sql
DATA = $(patsubst $(here)/%,%,$(sort $(wildcard $(here)/sql/upgrade/container_manager--*--*.sql)))

# In the order in which they run; scripts are in test/sql, outputs in expected.
REGRESS = comments submit hosts templates schedule
REGRESS_OPTS = --inputdir=$(here)/test

# These need no server headers (two of them install what is missing), so a
# machine without PGXS can make them.
script_targets := lint format demo check-all soak bench leaks dist
ifneq ($(filter-out $(script_targets),$(or $(MAKECMDGOALS),all)),)

ifneq ($(shell pkg-config --exists libcurl && echo yes),yes)
$(error libcurl is needed to build: install the Debian packages libcurl4-openssl-dev and pkg-config)
endif
ifneq ($(shell pkg-config --exists 'libcrypto >= 3.0' && echo yes),yes)
$(error OpenSSL 3 is needed to build: install the Debian packages libssl-dev and pkg-config)
endif

PG_CPPFLAGS = -I$(here)/src -DCM_VERSION='"$(EXTVERSION)"' $(shell pkg-config --cflags libcurl libcrypto)
# The server's own headers compare signed with unsigned.
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-declaration-after-statement
SHLIB_LINK = $(shell pkg-config --libs libcurl libcrypto)

EXTRA_CLEAN = build results regression.diffs regression.out tmp_check

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error the server's development files are missing: install the Debian package postgresql-server-dev-N, N being your server's major version, or set PG_CONFIG)
endif
include $(PGXS)

# Scripts are looked for in test/, outputs beside it: PostgreSQL 16 has an option
# for that, 15 looks into the folder it runs in.
ifeq ($(MAJORVERSION),15)
ifneq ($(here),$(CURDIR))
REGRESS_PREP = $(CURDIR)/expected
$(CURDIR)/expected:
	ln -s $(here)/expected $@
endif
else
REGRESS_OPTS += --expecteddir=$(here)
endif

# Every object hangs on every header: PGXS tracks none, and the whole takes
# seconds.  The folder is order-only and absolute, or VPATH would find the
# source's one and create nothing here.
$(OBJS) $(OBJS:.o=.bc): $(wildcard $(here)/src/*.h) $(here)/container_manager.control | $(CURDIR)/src

$(DATA_built): $(SQL_PARTS) $(here)/container_manager.control $(here)/Makefile | $(CURDIR)/sql
	cat $(SQL_PARTS) > $@.tmp
	mv $@.tmp $@

$(CURDIR)/src $(CURDIR)/sql $(CURDIR)/build/unit $(CURDIR)/build/fuzz:
	mkdir -p $@

# Unit tests: each test/unit/test_*.c with all of floor 0 (see test/lint/floors.txt),
# no server, under the sanitizers.  Each is a program that prints TAP.
UNIT_CFLAGS ?= -std=gnu11 -O1 -g -Wall -Wextra -Wno-format-truncation -fno-omit-frame-pointer \
	-fsanitize=address,undefined -fno-sanitize-recover=all
FLOOR0 := $(wildcard $(addprefix $(here)/src/,$(addsuffix .c,\
	$(shell sed -n 's/^0[ \t]*//p' $(here)/test/lint/floors.txt))))
UNIT_TESTS := $(patsubst $(here)/test/unit/%.c,build/unit/%,$(sort $(wildcard $(here)/test/unit/test_*.c)))
UNIT_OBJS := $(FLOOR0:$(here)/src/%.c=build/unit/%.o)
UNIT_HEADERS := $(wildcard $(here)/src/*.h $(here)/test/unit/*.h)

$(UNIT_OBJS): build/unit/%.o: $(here)/src/%.c $(UNIT_HEADERS) | $(CURDIR)/build/unit
	$(CC) $(UNIT_CFLAGS) -I$(here)/src -c -o $@ $<

$(UNIT_TESTS): build/unit/%: $(here)/test/unit/%.c $(UNIT_OBJS) $(UNIT_HEADERS)
	$(CC) $(UNIT_CFLAGS) -I$(here)/src -I$(here)/test/unit -o $@ $< $(UNIT_OBJS) -lm

.PHONY: unit unit-programs
unit-programs: $(UNIT_TESTS)

unit: unit-programs
	prove $(UNIT_TESTS)

# Fuzzing: each test/fuzz/fuzz_*.c with libFuzzer (clang).  Those that need the
# JSON parser have the server's own from libpgcommon, and server.c for the rest.
FUZZ_CC ?= $(firstword $(shell command -v clang-14 clang) clang)
FUZZ_CFLAGS ?= -std=gnu11 -O1 -g -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-ignored-attributes -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZ_FLOOR0 := $(addprefix build/fuzz/,endpoint envtext image_ref logstream placeholder policy)
FUZZ_SERVER := $(addprefix build/fuzz/,engine json)
FUZZ_SERVER_SRCS := $(here)/test/fuzz/server.c $(addprefix $(here)/src/,docker_json.c \
	$(notdir $(filter-out %/engine_body.c %/engine_options.c,$(wildcard $(here)/src/engine*.c))))
FUZZ_HEADERS := $(wildcard $(here)/src/*.h $(here)/test/fuzz/*.h)

$(FUZZ_FLOOR0): build/fuzz/%: $(here)/test/fuzz/fuzz_%.c $(FLOOR0) $(FUZZ_HEADERS) | $(CURDIR)/build/fuzz
	$(FUZZ_CC) $(FUZZ_CFLAGS) -I$(here)/src -o $@ $< $(FLOOR0) -lm

$(FUZZ_SERVER): build/fuzz/%: $(here)/test/fuzz/fuzz_%.c $(FUZZ_SERVER_SRCS) $(FLOOR0) $(FUZZ_HEADERS) | $(CURDIR)/build/fuzz
	$(FUZZ_CC) $(FUZZ_CFLAGS) -I$(here)/src -I$(shell $(PG_CONFIG) --includedir-server) -o $@ $< \
		$(FUZZ_SERVER_SRCS) $(FLOOR0) -L$(shell $(PG_CONFIG) --pkglibdir) -L$(shell $(PG_CONFIG) --libdir) \
		-lpgcommon -lpgport -lm

.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ_FLOOR0) $(FUZZ_SERVER)

# make fuzz SECONDS=600
SECONDS ?= 60
fuzz: fuzz-programs
	$(here)/test/fuzz/run $(SECONDS)

endif

.PHONY: lint format demo check-all soak bench leaks dist

lint:
	prove $(here)/test/lint/run

format:
	clang-format -i $(here)/src/*.[ch] $(wildcard $(here)/test/unit/*.[ch] $(here)/test/fuzz/*.[ch])

demo:
	$(here)/test/demo

check-all:
	$(here)/test/check-all

# Rounds of jobs and faults, see test/README.md: make soak ROUNDS=200 [SEED=n].
soak:
	ROUNDS=$(ROUNDS) SEED=$(SEED) $(here)/test/check-all test/soak/ledger.pl

# One script at a time: they measure.
bench:
	CM_TEST_JOBS=1 $(here)/test/check-all test/bench/*.pl

# The long form of a test: some minutes.
leaks:
	CM_LEAK_JOBS=20000 CM_TEST_JOBS=1 CM_TEST_VERBOSE=1 $(here)/test/check-all test/t/093_leaks.pl

dist:
	git -C $(here) archive --format=zip --prefix=$(EXTENSION)-$(EXTVERSION)/ \
		-o $(CURDIR)/$(EXTENSION)-$(EXTVERSION).zip HEAD

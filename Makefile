# multisite_repl: build with PGXS.
#
#	make PG_CONFIG=/path/to/pg_config && make install
#
# librdkafka, lz4 and zstd are found through pkg-config, libpq through pg_config.

MODULE_big = multisite_repl
OBJS = \
	src/barrier.o \
	src/conn.o \
	src/decide.o \
	src/greenplum.o \
	src/history.o \
	src/identity.o \
	src/in_doubt.o \
	src/kafka.o \
	src/logfilter.o \
	src/main.o \
	src/messages.o \
	src/offline.o \
	src/orchestrator.o \
	src/pack.o \
	src/points.o \
	src/promote.o \
	src/prune.o \
	src/publisher.o \
	src/receiver.o \
	src/remote_sites.o \
	src/segments.o \
	src/settings.o \
	src/shared_state.o \
	src/snapshot.o \
	src/staging.o \
	src/statefile.o \
	src/status.o \
	src/twophase.o \
	src/twophase_log.o \
	src/verify.o \
	src/walcheck.o \
	src/wire.o \
	src/worker.o

EXTENSION = multisite_repl
DATA = $(wildcard sql/multisite_repl--*.sql)
PGFILEDESC = "multisite_repl - a consistent copy of a whole cluster at another site"

REGRESS = surface privileges errors
REGRESS_OPTS = --inputdir=. --outputdir=.

PKG_CONFIG ?= pkg-config
LIBRARIES = rdkafka liblz4 libzstd
PG_CPPFLAGS = -I$(libpq_srcdir) $(shell $(PKG_CONFIG) --cflags $(LIBRARIES))
# callbacks and SQL functions have parameters that they do not need
PG_CFLAGS = -Wextra -Wno-unused-parameter
SHLIB_LINK_INTERNAL = $(libpq)
SHLIB_LINK = $(shell $(PKG_CONFIG) --libs $(LIBRARIES))

# bitcode is for inlining SQL operators, of which there are none here
override with_llvm = no

# a server that was built with gcc passes gcc's flags on to clang
ifneq (,$(findstring clang,$(CC)))
PG_CFLAGS += -Wno-ignored-attributes -Wno-unknown-warning-option -Wno-ignored-optimization-argument
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS has no dependencies on our own headers
$(OBJS): $(wildcard $(srcdir)/src/*.h)

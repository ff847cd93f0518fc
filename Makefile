# The C side, built without Python: the core and its tests. The package itself is built by setup.py.
#
#   make check           build and run the C tests with gcc
#   make check-matrix    the same for gcc and clang, plain, under the sanitizers, and with counted read-side sections
#   make soak            the stress for long, in every configuration; prints the seeds
#   make build           only build; like check, takes CC=gcc|clang and SAN=plain|address|thread|debug
#   make lib             build/lib/libpyruntime.a and .so, for programs in C without Python
#   make install         puts these, the headers, libpyruntime.pc and a CMake package below PREFIX=/usr/local; takes DESTDIR=, too
#   make check-lib       runs those C tests with the shared library that need nothing private
#   make malloc          build/libpyruntime-malloc.so: malloc, free, new, delete and the rest of them, for LD_PRELOAD
#   make clean
#
# One executable a concept: tests/c/test_NAME.c, or .cc for the headers of C++, with the support code of tests/c and the whole core.
# Everything is built out of tree, in build/c/COMPILER-SAN.

CC := gcc
SAN := plain
SCALE := 20
SEED :=
MATRIX := $(foreach cc,gcc clang,$(foreach san,plain address thread,$(cc)-$(san))) gcc-debug

OUT := build/c/$(notdir $(CC))-$(SAN)

FLAGS_plain := -O2
FLAGS_debug := -O2
FLAGS_address := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAGS_thread := -O1 -fsanitize=thread -fno-omit-frame-pointer
ifeq ($(FLAGS_$(SAN)),)
    $(error SAN=$(SAN) is none of plain, address, thread, debug)
endif
# Of code that uses the library; the core is the same with and without it.
TEST_FLAGS_debug := -DPYRT_DEBUG

CXX := $(if $(findstring clang,$(CC)),clang++,g++)
COMMON := -g -Wall -Wextra -Werror -pthread $(FLAGS_$(SAN))
CFLAGS := -std=gnu11 $(COMMON)
CXXFLAGS := -std=c++17 -Wconversion $(COMMON)
CPPFLAGS := -Icsrc/include -Icsrc -Icsrc/core
DEPENDENCIES := -MMD -MP

CORE := $(sort $(shell find csrc/core -name '*.c'))
TESTS := $(sort $(wildcard tests/c/test_*.c))
CXX_TESTS := $(sort $(wildcard tests/c/test_*.cc))
SUPPORT := $(filter-out $(TESTS),$(sort $(wildcard tests/c/*.c)))

# gcc-debug takes the core of gcc-plain.
CORE_OUT := build/c/$(notdir $(CC))-$(SAN:debug=plain)

CORE_OBJECTS := $(CORE:%.c=$(CORE_OUT)/%.o)
SUPPORT_OBJECTS := $(SUPPORT:%.c=$(OUT)/%.o)
TEST_OBJECTS := $(TESTS:%.c=$(OUT)/%.o) $(CXX_TESTS:%.cc=$(OUT)/%.o)
EXECUTABLES := $(TESTS:tests/c/%.c=$(OUT)/%) $(CXX_TESTS:tests/c/%.cc=$(OUT)/%)

# What a program gets in place of its own malloc: only that family leaves the object, thread-local variables cost no call (and
# so no allocation), an exception of a new passes through it, and nothing is bound late.
MALLOC_LIBRARY := build/libpyruntime-malloc.so
MALLOC_OBJECTS := $(patsubst %.c,build/malloc/%.o,$(CORE) csrc/malloc/malloc.c)
MALLOC_FLAGS := -std=gnu11 -g -O2 -Wall -Wextra -Werror -pthread -fPIC -fvisibility=hidden -ftls-model=initial-exec \
    -fno-builtin-malloc -fno-builtin-calloc -fexceptions

.PHONY: malloc
malloc: $(MALLOC_LIBRARY)

build/malloc/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(MALLOC_FLAGS) $(CPPFLAGS) $(DEPENDENCIES) -c $< -o $@

$(MALLOC_LIBRARY): $(MALLOC_OBJECTS)
	$(CC) -shared -pthread -Wl,-z,now -Wl,-z,nodelete -Wl,-z,defs $^ -o $@

# The core for programs without Python. What the public headers declare is exported and nothing else, and nothing in here is to
# be replaced by a function of the same name elsewhere. The object is never unloaded: threads may still have to end in it.
LIB := build/lib
LIB_OBJECTS := $(CORE:%.c=$(LIB)/%.o)
LIB_FLAGS := -std=gnu11 -g -O2 -Wall -Wextra -Werror -pthread -fPIC -fvisibility=hidden -fno-semantic-interposition -DPYRT_EXPORT
config = $(shell sed -n 's/^\#define $(1) "*\([^"]*\)"*$$/\1/p' csrc/include/pyruntime/config.h)
SONAME := libpyruntime.so.$(call config,PYRT_ABI_MAJOR)

OBJCOPY := objcopy
PREFIX := /usr/local
DESTDIR :=

.PHONY: lib install check-lib
lib: $(LIB)/libpyruntime.a $(LIB)/libpyruntime.so $(LIB)/libpyruntime.pc

$(LIB)/csrc/%.o: csrc/%.c
	@mkdir -p $(@D)
	$(CC) $(LIB_FLAGS) $(CPPFLAGS) $(DEPENDENCIES) -c $< -o $@

# One object: who needs a part of it gets all of it. Its floors meet through constructors, of which a linker that takes what is
# referred to would leave some out.
$(LIB)/libpyruntime.a: $(LIB_OBJECTS)
	@rm -f $@
	$(CC) -r -nostdlib $^ -o $(LIB)/pyruntime.o
	$(OBJCOPY) --localize-hidden $(LIB)/pyruntime.o
	$(AR) rcs $@ $(LIB)/pyruntime.o

$(LIB)/$(SONAME): $(LIB_OBJECTS)
	$(CC) -shared -pthread -Wl,-soname,$(SONAME) -Wl,-z,now -Wl,-z,nodelete -Wl,-z,defs $^ -o $@

$(LIB)/libpyruntime.so: $(LIB)/$(SONAME)
	ln -sf $(SONAME) $@

$(LIB)/libpyruntime.pc: csrc/libpyruntime.pc.in csrc/include/pyruntime/config.h
	sed 's|@VERSION@|$(call config,PYRT_VERSION)|' $< > $@

install: lib
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,include/pyruntime lib/pkgconfig lib/cmake/pyruntime)
	install -m 644 csrc/include/pyruntime/* $(DESTDIR)$(PREFIX)/include/pyruntime
	install -m 644 $(LIB)/libpyruntime.a $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(LIB)/$(SONAME) $(DESTDIR)$(PREFIX)/lib
	ln -sf $(SONAME) $(DESTDIR)$(PREFIX)/lib/libpyruntime.so
	install -m 644 $(LIB)/libpyruntime.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -m 644 csrc/libpyruntimeConfig.cmake $(DESTDIR)$(PREFIX)/lib/cmake/pyruntime/pyruntimeConfig.cmake
	install -m 644 csrc/cmake/pyruntimeConfigVersion.cmake $(DESTDIR)$(PREFIX)/lib/cmake/pyruntime

LIB_TESTS := attach block_hooks condition critical_section disposers event object_special once parking_lot read_section recursive_mutex \
    retire rwlock section_order seqlock statistics thread_end

LIB_SUPPORT := $(addprefix $(OUT)/tests/c/,steps.o support.o things.o workers.o)

$(LIB)/test_%: $(OUT)/tests/c/test_%.o $(LIB_SUPPORT) $(LIB)/libpyruntime.so
	$(CC) $(CFLAGS) $(filter %.o,$^) -L$(LIB) -lpyruntime -Wl,-rpath,$(abspath $(LIB)) -o $@

check-lib: $(LIB_TESTS:%=$(LIB)/test_%)
	@set -e; for test in $^; do echo "== $$test"; $$test; done

.PHONY: build check check-matrix $(addprefix check-,$(MATRIX)) $(EXECUTABLES:%=run-%) soak clean print-executables
.SECONDARY: $(CORE_OBJECTS) $(SUPPORT_OBJECTS) $(TEST_OBJECTS)

build: $(EXECUTABLES)

$(CORE_OUT)/csrc/%.o: csrc/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(CPPFLAGS) $(DEPENDENCIES) -c $< -o $@

$(OUT)/tests/c/%.o: tests/c/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(TEST_FLAGS_$(SAN)) $(CPPFLAGS) -Itests/c $(DEPENDENCIES) -c $< -o $@

$(OUT)/tests/c/%.o: tests/c/%.cc
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(TEST_FLAGS_$(SAN)) $(CPPFLAGS) -Itests/c $(DEPENDENCIES) -c $< -o $@

$(CXX_TESTS:tests/c/%.cc=$(OUT)/%): LINK = $(CXX) $(CXXFLAGS)
LINK = $(CC) $(CFLAGS)

$(OUT)/test_%: $(OUT)/tests/c/test_%.o $(SUPPORT_OBJECTS) $(CORE_OBJECTS)
	$(LINK) $^ -o $@

print-executables:
	@echo $(EXECUTABLES)

check: $(EXECUTABLES:%=run-%)

$(EXECUTABLES:%=run-%): run-%: %
	@echo "== $*"; $* $(if $(SEED),--seed $(SEED))

check-matrix: $(addprefix check-,$(MATRIX))

# One configuration after the other, or with -j several at once; what each writes stays together.
# The debug one waits for the core that it takes.
check-gcc-debug: check-gcc-plain
$(addprefix check-,$(MATRIX)): check-%:
	@$(MAKE) --no-print-directory check CC=$(firstword $(subst -, ,$*)) SAN=$(lastword $(subst -, ,$*))

soak:
	@set -e; for config in $(MATRIX); do \
	    $(MAKE) --no-print-directory build CC=$${config%-*} SAN=$${config#*-}; \
	    echo "== $$config"; build/c/$$config/test_stress --scale $(SCALE) $(if $(SEED),--seed $(SEED)); \
	done

clean:
	rm -rf build/c build/lib build/malloc $(MALLOC_LIBRARY)

-include $(MALLOC_OBJECTS:.o=.d)
-include $(LIB_OBJECTS:.o=.d)
-include $(CORE_OBJECTS:.o=.d) $(SUPPORT_OBJECTS:.o=.d) $(TEST_OBJECTS:.o=.d)

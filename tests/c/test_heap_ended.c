/* test_heap_ended.c -- blocks that outlive their interpreter: what is left is told, and goes back when they are freed.
 *
 * In the stress several threads free what a row of interpreters has left, while the next ones end. --break keep leaves one block
 * out: the last look must find it.
 */
#include "support.h"

#include "faults.h"
#include "heaps.h"
#include "memory/heap_impl.h"
#include "platform/meta_alloc.h"
#include "platform/os_memory.h"
#include "workers.h"

#include <pyruntime/fork.h>

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static pyrt_interp *
new_interp(const char *name, int use_main_allocator)
{
    pyrt_interp *interp = pyrt_interp_new(&(pyrt_interp_config){
        .struct_size = sizeof(pyrt_interp_config), .use_main_allocator = use_main_allocator, .name = name});
    CHECK(interp != NULL);
    return interp;
}

static void
end(pyrt_interp *interp, const char *blocks)
{
    CHECK_OK(pyrt_interp_delete(interp));
    EXPECT_REPORT("has ended with", blocks, "go back when they are freed");
}

/* The first that has ended at or after the place; its blocks. */
static pyrt_ended_memory
next_ended(uint64_t *place)
{
    pyrt_ended_memory found = {.struct_size = sizeof(found)};
    CHECK_OK(pyrt_ended_memory_next(place, &found));
    return found;
}

static bool
none_has_left_anything(void)
{
    uint64_t place = 0;
    pyrt_ended_memory found = {.struct_size = sizeof(found)};
    return pyrt_ended_memory_next(&place, &found) == PYRT_ENOTFOUND;
}

/* ---- what goes back ---------------------------------------------------------------------------------------------- */

enum { SIZES = 7, SMALLS = 300 };
static const size_t sizes[SIZES] = {8, 100, 1000, 30000, 100000, 1500000, 6000000};
static char *left[SIZES], *smalls[SMALLS];

/* An interpreter with blocks of all kinds, in more than one page and arena, which has ended. */
static void
leave_behind(int use_main_allocator, bool type_stable)
{
    pyrt_interp *interp = new_interp("short", use_main_allocator);
    pyrt_heap *heap = new_heap(interp, 5, type_stable);
    for (int i = 0; i < SIZES; i++) {
        left[i] = block_of(interp, heap, sizes[i]);
    }
    for (int i = 0; i < SMALLS; i++) {
        smalls[i] = block_of(interp, heap, 4000);
    }
    end(interp, "307 blocks");
}

static void
free_left(void *unused)
{
    (void)unused;
    for (int i = 0; i < SMALLS; i++) {
        CHECK(smalls[i][3999] == 0x5A);
        pyrt_free(smalls[i]);
    }
    for (int i = 0; i < SIZES; i++) {
        CHECK(left[i][sizes[i] - 1] == 0x5A);
        pyrt_free(left[i]);
    }
}

static void
outlive(int use_main_allocator, bool type_stable, bool elsewhere)
{
    leave_behind(use_main_allocator, type_stable);
    if (elsewhere) {
        worker other;
        worker_start(&other);
        worker_do(&other, free_left, NULL);
        worker_end(&other);
    }
    else {
        free_left(NULL);
    }
    CHECK(none_has_left_anything());
    for (int i = 0; i < SIZES; i++) {
        int64_t owner = pyrt_address_owner(left[i]);
        CHECK(owner == PYRT_OWNER_NONE || (owner == 0 && use_main_allocator && sizes[i] < PYRT_LARGE_MAX));
    }
}

/* The main interpreter keeps its newest arena: it is there then. */
static void
warm_up(void)
{
    for (int i = 0; i < 8; i++) {
        outlive(i % 2, false, false);
    }
}

TEST(all_of_it_goes_back_with_the_last_block)
{
    runtime_up();
    warm_up();
    size_t mapped = mapped_beside_the_map();
    size_t live = pyrt_meta_live_bytes();
    for (int way = 0; way < 8; way++) {
        outlive(way & 1, (way & 2) != 0, (way & 4) != 0);
        CHECK_UINT(mapped_beside_the_map(), mapped);
        CHECK_UINT(pyrt_meta_live_bytes(), live);
    }
    runtime_down();
}

static size_t
resident_of(const char *start, size_t bytes)
{
    static unsigned char pages[2048];
    size_t count = 0;
    CHECK(bytes / 4096 <= sizeof(pages) && mincore((void *)(uintptr_t)start, bytes, pages) == 0);
    for (size_t i = 0; i < bytes / 4096; i++) {
        count += pages[i] & 1u;
    }
    return count;
}

TEST(a_page_goes_back_with_its_last_block_and_an_arena_with_its_last_page)
{
    enum { MANY = 12, LARGE = 1500000, LARGE_PAGE = 1507328 };
    runtime_up();
    pyrt_interp *interp = new_interp("pages", 0);
    pyrt_heap *heap = new_heap(interp, 0, false);
    char *large[MANY];
    char *small = block_of(interp, heap, 100);
    for (int i = 0; i < MANY; i++) {
        large[i] = block_of(interp, heap, LARGE);
    }
    end(interp, "13 blocks");
    size_t reserved = 0;
    for (int i = 0; i < MANY; i++) {
        uint64_t place = 0;
        pyrt_ended_memory now = next_ended(&place);
        CHECK_UINT(now.blocks, MANY + 1 - i);
        CHECK_UINT(now.page_bytes, 65536 + (size_t)(MANY - i) * LARGE_PAGE);
        CHECK(i == 0 || now.reserved_bytes <= reserved);
        reserved = now.reserved_bytes;
        bool shares_a_segment = (((uintptr_t)large[i] ^ (uintptr_t)small) & ~(uintptr_t)(PYRT_SEGMENT - 1)) == 0;
        CHECK_UINT(resident_of(large[i], LARGE_PAGE - LARGE_PAGE % 4096), LARGE / 4096 + 1);
        pyrt_free(large[i]);
        if (shares_a_segment) {
            CHECK_UINT(resident_of(large[i], LARGE_PAGE - LARGE_PAGE % 4096), 0);
        }
    }
    /* Of several arenas the one with the small block is left. */
    uint64_t place = 0;
    CHECK(next_ended(&place).reserved_bytes < (size_t)MANY * LARGE);
    pyrt_free(small);
    CHECK(none_has_left_anything());
    runtime_down();
}

/* Whoever compares addresses of interpreters, as pyrt_weakref_get does, never takes a new one for that which has ended. */
TEST(while_something_is_left_no_other_interpreter_has_its_address)
{
    runtime_up();
    /* The first times round the arenas of the main one grow until one has room for all three: the last of them stays. */
    for (int round = 0; round < 8; round++) {
        int shares = round % 2;
        size_t live = pyrt_meta_live_bytes();
        pyrt_interp *gone[3];
        char *blocks[3];
        for (int i = 0; i < 3; i++) {
            gone[i] = new_interp("gone", shares);
            blocks[i] = block_of(gone[i], new_heap(gone[i], 0, i == 1), 100);
            for (int j = 0; j < i; j++) {
                CHECK(gone[i] != gone[j]);
            }
            end(gone[i], "1 block ");
        }
        CHECK(round < 4 || pyrt_meta_live_bytes() == live);
        for (int i = 0; i < 3; i++) {
            pyrt_free(blocks[i]);
        }
        CHECK(round < 4 || pyrt_meta_live_bytes() == live);
        /* Without anything left it is free again: the newest comes first. */
        pyrt_interp *next = new_interp("next", shares);
        CHECK_PTR(next, gone[2]);
        CHECK_OK(pyrt_interp_delete(next));
    }
    runtime_down();
}

/* Each interpreter leaves one block in the arenas of the main one, and one of its own kind. */
TEST(arenas_that_are_shared_stay_for_who_shares_them_also_when_the_runtime_has_ended)
{
    for (int order = 0; order < 2; order++) {
        runtime_up();
        pyrt_interp *interps[2] = {new_interp("one", 1), new_interp("two", 1)};
        char *blocks[3];
        for (int i = 0; i < 2; i++) {
            blocks[i] = block_of(interps[i], new_heap(interps[i], 0, false), 100);
        }
        blocks[2] = block_of(pyrt_interp_main(), new_heap(pyrt_interp_main(), 0, false), 100);
        end(interps[1], "1 block ");
        CHECK_OK(pyrt_runtime_fini());
        EXPECT_REPORT("'one' has ended with 1 block ");
        EXPECT_REPORT("'main' has ended with 1 block ");
        uint64_t place = 0;
        CHECK_STR(next_ended(&place).name, "two");
        CHECK_STR(next_ended(&place).name, "one");
        CHECK_STR(next_ended(&place).name, "main");
        for (int i = 0; i < 3; i++) {
            int n = order == 0 ? i : 2 - i;
            CHECK_INT(pyrt_address_owner(blocks[n]), n == 2 ? 0 : n + 1);
            pyrt_free(blocks[n]);
        }
        CHECK(none_has_left_anything());
        CHECK_INT(pyrt_address_owner(blocks[0]), PYRT_OWNER_NONE);
    }
}

static struct {
    size_t reports, interps;
    pyrt_status init, fini;
    pyrt_interp *pinned, *made;
} seen;

/* What a hook may ask of the runtime. */
static void
ask_the_runtime(const char *message, void *unused)
{
    (void)unused;
    CHECK(strstr(message, "has ended with 1 block ") != NULL);
    int64_t ids[3];
    seen.reports++;
    seen.interps += pyrt_interp_list(ids, 3);
    seen.init = pyrt_runtime_init();
    seen.fini = pyrt_runtime_fini();
    seen.pinned = pyrt_interp_pin(0);
    seen.made = pyrt_interp_new(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(pyrt_runtime_init() == PYRT_ESTATE ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(the_report_of_what_the_runtime_leaves_holds_no_lock)
{
    memset(&seen, 0, sizeof(seen));
    runtime_up();
    pyrt_interp *interps[2] = {pyrt_interp_main(), new_interp("other", 0)};
    char *blocks[2];
    for (int i = 0; i < 2; i++) {
        blocks[i] = block_of(interps[i], new_heap(interps[i], 0, false), 100);
    }
    pyrt_set_report_hook(ask_the_runtime, NULL);
    CHECK_OK(pyrt_runtime_fini());
    pyrt_set_report_hook(NULL, NULL);
    CHECK_UINT(seen.reports, 2);
    CHECK_UINT(seen.interps, 0);
    CHECK_STATUS(seen.init, PYRT_ESTATE);
    CHECK_STATUS(seen.fini, PYRT_ESTATE);
    CHECK_PTR(seen.pinned, NULL);
    CHECK_PTR(seen.made, NULL);
    for (int i = 0; i < 2; i++) {
        pyrt_free(blocks[i]);
    }
    runtime_up();
    runtime_down();
}

/* Who forks in the middle of it, and does not end the runtime himself, can begin anew in the child. */
static void
fork_elsewhere(void *unused)
{
    (void)unused;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        bool began = !pyrt_runtime_is_initialized() && pyrt_runtime_init() == PYRT_OK && pyrt_interp_main() != NULL;
        bool good = began && pyrt_runtime_fini() == PYRT_OK && !pyrt_runtime_is_initialized();
        _exit(good ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
have_it_forked(const char *message, void *other)
{
    (void)message;
    worker_do(other, fork_elsewhere, NULL);
    seen.reports++;
}

TEST(the_child_of_a_fork_in_the_middle_of_the_last_fini_can_begin_anew)
{
    memset(&seen, 0, sizeof(seen));
    worker other;
    worker_start(&other);
    runtime_up();
    pyrt_interp *interp = new_interp("other", 0);
    char *block = block_of(interp, new_heap(interp, 0, false), 100);
    pyrt_set_report_hook(have_it_forked, &other);
    CHECK_OK(pyrt_runtime_fini());
    pyrt_set_report_hook(NULL, NULL);
    CHECK_UINT(seen.reports, 1);
    pyrt_free(block);
    worker_end(&other);
}

TEST(blocks_that_others_had_freed_before_the_end_are_not_left)
{
    runtime_up();
    pyrt_interp *interp = new_interp("before", 0);
    pyrt_heap *heap = new_heap(interp, 0, false);
    char *first = block_of(interp, heap, 100);
    char *second = block_of(interp, heap, 100);
    pyrt_free(first);
    end(interp, "1 block ");
    pyrt_free(second);
    CHECK(none_has_left_anything());
    /* Of a heap that was destroyed neither. */
    interp = new_interp("destroyed", 0);
    heap = new_heap(interp, 0, false);
    (void)block_of(interp, heap, 100);
    (void)block_of(interp, heap, 5000000);
    pyrt_heap_destroy(heap);
    CHECK_OK(pyrt_interp_delete(interp));
    CHECK(none_has_left_anything());
    runtime_down();
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

TEST(what_is_left_is_told_by_size_and_tag)
{
    runtime_up();
    pyrt_interp *interps[2] = {new_interp("older", 0), new_interp("newer", 0)};
    char *small = block_of(interps[0], new_heap(interps[0], 3, false), 100);
    char *large = block_of(interps[0], new_heap(interps[0], 31, false), 200000);
    char *huge = block_of(interps[0], new_heap(interps[0], 31, true), 5000000);
    char *other = block_of(interps[1], new_heap(interps[1], 0, false), 8);
    CHECK(none_has_left_anything());
    end(interps[1], "1 block ");
    end(interps[0], "3 blocks ");
    uint64_t place = 0;
    pyrt_ended_memory found = next_ended(&place);
    CHECK_STR(found.name, "newer");
    CHECK_INT(found.interp_id, 2);
    found = next_ended(&place);
    CHECK_STR(found.name, "older");
    CHECK_INT(found.interp_id, 1);
    CHECK_UINT(found.blocks, 3);
    CHECK_UINT(found.bytes, 112 + pyrt_usable_size(large) + pyrt_usable_size(huge));
    CHECK_UINT(found.pages, 2);
    CHECK_UINT(found.page_bytes, 65536 + pyrt_usable_size(large));
    CHECK_UINT(found.huge_bytes, pyrt_usable_size(huge));
    CHECK(found.reserved_bytes >= PYRT_SEGMENT && found.reserved_bytes % PYRT_SEGMENT == 0);
    for (unsigned class = 0; class < PYRT_HEAP_CLASSES; class++) {
        bool is_small = class == pyrt_class_of(100);
        bool is_large = class == PYRT_CLASS_LARGE;
        CHECK_UINT(found.by_class[class].block_size, is_large ? 0 : pyrt_class_size(class));
        CHECK_UINT(found.by_class[class].blocks, is_small ? 1 : is_large ? 2 : 0);
        CHECK_UINT(found.by_class[class].bytes, is_small ? 112 : is_large ? found.bytes - 112 : 0);
    }
    for (unsigned tag = 0; tag < PYRT_HEAP_TAGS; tag++) {
        CHECK_UINT(found.by_tag[tag], tag == 3 ? 1 : tag == 31 ? 2 : 0);
    }
    CHECK_STATUS(pyrt_ended_memory_next(&place, &found), PYRT_ENOTFOUND);
    /* Each free counts at once. */
    pyrt_free(huge);
    pyrt_free(other);
    place = 0;
    found = next_ended(&place);
    CHECK_STR(found.name, "older");
    CHECK_UINT(found.blocks, 2);
    CHECK_UINT(found.huge_bytes, 0);
    CHECK_UINT(found.by_tag[31], 1);
    pyrt_free(small);
    pyrt_free(large);
    CHECK(none_has_left_anything());
    CHECK_STATUS(pyrt_ended_memory_next(NULL, &found), PYRT_EINVAL);
    CHECK_STATUS(pyrt_ended_memory_next(&place, NULL), PYRT_EINVAL);
    found.struct_size--;
    CHECK_STATUS(pyrt_ended_memory_next(&place, &found), PYRT_EINVAL);
    runtime_down();
}

TEST(a_block_that_is_freed_twice_is_named_there_too)
{
    for (unsigned watched = 0; watched < 2; watched++) {
        CHECK_OK(pyrt_heap_debug(watched ? PYRT_HEAP_DEBUG_FILL : 0));
        runtime_up();
        pyrt_interp *interp = new_interp("twice", 0);
        pyrt_heap *heap = new_heap(interp, 0, false);
        char *first = block_of(interp, heap, 100);
        char *second = block_of(interp, heap, 100);
        end(interp, "2 blocks");
        pyrt_free(first);
        pyrt_free(first);
        EXPECT_REPORT("is free already; nothing was freed");
        CHECK_PTR(pyrt_realloc(first, 1000), NULL);
        EXPECT_REPORT("pyrt_realloc: ", "is free already; nothing was done");
        uint64_t place = 0;
        CHECK_UINT(next_ended(&place).blocks, 1);
        pyrt_free(second);
        CHECK(none_has_left_anything());
        runtime_down();
    }
    CHECK_OK(pyrt_heap_debug(0));
}

/* ---- without memory, and in a child ------------------------------------------------------------------------------- */

static bool
always(void *unused)
{
    (void)unused;
    return true;
}

TEST(neither_the_end_nor_a_free_needs_memory)
{
    runtime_up();
    warm_up();
    size_t mapped = mapped_beside_the_map();
    size_t live = pyrt_meta_live_bytes();
    pyrt_interp *interp = new_interp("short", 0);
    pyrt_heap *heap = new_heap(interp, 0, false);
    for (int i = 0; i < SIZES; i++) {
        left[i] = block_of(interp, heap, sizes[i]);
    }
    for (int i = 0; i < SMALLS; i++) {
        smalls[i] = block_of(interp, heap, 4000);
    }
    fault_arm(1, INT32_MAX);
    pyrt_os_set_fault(always, NULL);
    end(interp, "307 blocks");
    free_left(NULL);
    pyrt_os_set_fault(NULL, NULL);
    CHECK_INT(faults_hit(), 0);
    fault_disarm();
    /* What could not be purged is unmapped with the rest. */
    CHECK(none_has_left_anything());
    CHECK_UINT(mapped_beside_the_map(), mapped);
    CHECK_UINT(pyrt_meta_live_bytes(), live);
    runtime_down();
}

static void
end_child(pid_t child)
{
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(the_child_of_a_fork_gives_its_own_back)
{
    for (int raw = 0; raw < 2; raw++) {
        runtime_up();
        leave_behind(raw, false);
        pid_t child = raw ? fork() : pyrt_fork();
        CHECK(child >= 0);
        free_left(NULL);
        CHECK(none_has_left_anything());
        if (child == 0) {
            CHECK_OK(pyrt_runtime_fini());
            _exit(0);
        }
        end_child(child);
        runtime_down();
    }
}

/* ---- all at once ------------------------------------------------------------------------------------------------- */

enum { ROW = 6, BLOCKS = 400, FREERS = 3, ROUNDS = 12 };

static struct {
    pyrt_interp *interps[ROW];
    char *blocks[ROW][BLOCKS];
    int freed;
} row;

static size_t
size_in_row(int i)
{
    return i % 100 == 7 ? 3000000 : i % 50 == 8 ? 150000 : (size_t)(i * 37) % 2000 + 1;
}

/* What a thread left in an interpreter that it may share with others. */
static void
fill_row(int n)
{
    row.interps[n] = new_interp("row", n % 2);
    pyrt_heap *heaps[2] = {new_heap(row.interps[n], 0, false), new_heap(row.interps[n], 1, true)};
    for (int i = 0; i < BLOCKS; i++) {
        char *block = block_of(row.interps[n], heaps[i % 2], size_in_row(i) < 4000 ? size_in_row(i) : 64);
        if (size_in_row(i) >= 4000) {
            pyrt_free(block);
            block = block_of(row.interps[n], heaps[i % 2], size_in_row(i));
        }
        row.blocks[n][i] = block; /* the crowd starts later */
    }
}

/* The first thread ends them, one after the other; the others free, of those that have ended, that are ending, and that have not. */
static void
end_or_free(void *arg, int number)
{
    random_stream random = random_for((uint64_t)number + 1000u * *(unsigned *)arg);
    if (number == 0) {
        for (int n = 0; n < ROW; n++) {
            CHECK_OK(pyrt_interp_delete(row.interps[n]));
        }
        return;
    }
    for (int freed = 0; freed < ROW * BLOCKS; freed++) {
        int n = (int)random_below(&random, ROW);
        int i = (int)random_below(&random, BLOCKS);
        /* acquire, where relaxed would do: each is taken once, and was written before the crowd started. */
        char *block = pyrt_exchange_acquire(&row.blocks[n][i], (char *)NULL);
        if (block == NULL) {
            continue;
        }
        CHECK(*block == 0x5A && block[size_in_row(i) - 1] == 0x5A);
        pyrt_free(block);
        pyrt_fetch_add_relaxed(&row.freed, 1); /* read when the crowd is joined */
        if (random_below(&random, 16) == 0) {
            uint64_t place = 0;
            pyrt_ended_memory found = {.struct_size = sizeof(found)};
            while (pyrt_ended_memory_next(&place, &found) == PYRT_OK) {
                CHECK_STR(found.name, "row");
                CHECK(found.blocks <= BLOCKS);
            }
        }
    }
}

static void
free_the_rest(bool keep_one)
{
    for (int n = 0; n < ROW; n++) {
        for (int i = 0; i < BLOCKS; i++) {
            char *block = row.blocks[n][i];
            row.blocks[n][i] = NULL;
            if (block != NULL && !(keep_one && n == 2)) {
                pyrt_free(block);
                row.freed++;
            }
            keep_one = keep_one && !(block != NULL && n == 2);
        }
    }
}

/* How many an interpreter has left when it ends is as it comes. */
static void
expect_ends_only(const char *message, void *unused)
{
    (void)unused;
    if (strstr(message, "interpreter ") != message || strstr(message, "'row' has ") == NULL) {
        FAIL("reported was '%s'", message);
    }
}

TEST(threads_free_into_ended_interpreters_while_others_end)
{
    bool keep_one = test_sabotage() != NULL && strcmp(test_sabotage(), "keep") == 0;
    runtime_up();
    pyrt_set_report_hook(expect_ends_only, NULL);
    for (unsigned round = 0; round < ROUNDS * test_scale(); round++) {
        CHECK_OK(pyrt_heap_debug(round % 4 == 3 ? PYRT_HEAP_DEBUG_CHECK : 0));
        memset(&row, 0, sizeof(row));
        for (int n = 0; n < ROW; n++) {
            fill_row(n);
        }
        run_crowd(FREERS + 1, end_or_free, &round);
        free_the_rest(keep_one);
        CHECK(none_has_left_anything());
        CHECK_INT(row.freed, ROW * BLOCKS);
    }
    CHECK_OK(pyrt_heap_debug(0));
    runtime_down();
}

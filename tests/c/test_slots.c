/* test_slots.c -- the user's bytes in every thread state, with their hooks (thread.h, "per-thread slots"). */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "workers.h"

#include <stdio.h>
#include <string.h>

/* What the hooks below have done, one letter a call. */
static char story[200];

static void
tell(char letter)
{
    size_t length = strlen(story);
    CHECK(length + 1 < sizeof(story));
    story[length] = letter;
    story[length + 1] = '\0';
}

static void
forget_story(void)
{
    story[0] = '\0';
}

static void
check_zeroed(const void *bytes)
{
    static const unsigned char zeroes[PYRT_THREAD_SLOT_SIZE];
    CHECK(memcmp(bytes, zeroes, sizeof(zeroes)) == 0);
}

static pyrt_status
init_a(void *bytes)
{
    check_zeroed(bytes);
    memset(bytes, 'a', PYRT_THREAD_SLOT_SIZE);
    tell('a');
    return PYRT_OK;
}

static void
exit_a(void *bytes)
{
    CHECK(*(char *)bytes == 'a');
    tell('A');
}

static pyrt_status
init_b(void *bytes)
{
    check_zeroed(bytes);
    memset(bytes, 'b', PYRT_THREAD_SLOT_SIZE);
    tell('b');
    return PYRT_OK;
}

static void
exit_b(void *bytes)
{
    CHECK(*(char *)bytes == 'b');
    tell('B');
}

static void
exit_c(void *bytes)
{
    (void)bytes;
    tell('C');
}

static pyrt_status
refuse(void *bytes)
{
    check_zeroed(bytes);
    memset(bytes, 'r', PYRT_THREAD_SLOT_SIZE);
    tell('r');
    return PYRT_ENOTSUP;
}

static void
exit_of_refused(void *bytes)
{
    (void)bytes;
    FAIL("the exit hook of a slot whose init refused");
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

TEST(there_is_no_slot_without_runtime)
{
    CHECK_INT(pyrt_thread_slot_new(init_a, exit_a, 0), -PYRT_ESTATE);
}

TEST(numbers_count_up_to_the_limit_and_start_again_with_the_runtime)
{
    for (int round = 0; round < 2; round++) {
        runtime_up();
        for (int i = 0; i < PYRT_THREAD_SLOT_MAX; i++) {
            CHECK_INT(pyrt_thread_slot_new(NULL, NULL, 0), i);
        }
        CHECK_INT(pyrt_thread_slot_new(NULL, NULL, 0), -PYRT_EOVERFLOW);
        runtime_down();
    }
}

TEST(a_wrong_number_has_no_bytes)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_PTR(pyrt_thread_slot(thread, 0), NULL);
    int slot = pyrt_thread_slot_new(NULL, NULL, 0);
    const int none[] = {-1, slot + 1, PYRT_THREAD_SLOT_MAX, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 5; i++) {
        CHECK_PTR(pyrt_thread_slot(thread, none[i]), NULL);
    }
    CHECK(pyrt_thread_slot(thread, slot) != NULL);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

TEST(bytes_are_zeroed_apart_and_stay)
{
    runtime_up();
    int slots[PYRT_THREAD_SLOT_MAX];
    unsigned char *bytes[PYRT_THREAD_SLOT_MAX];
    for (int i = 0; i < PYRT_THREAD_SLOT_MAX; i++) {
        slots[i] = pyrt_thread_slot_new(NULL, NULL, 0);
    }
    for (int round = 0; round < 2; round++) {
        pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
        for (int i = 0; i < PYRT_THREAD_SLOT_MAX; i++) {
            bytes[i] = pyrt_thread_slot(thread, slots[i]);
            check_zeroed(bytes[i]);
            memset(bytes[i], i + 1, PYRT_THREAD_SLOT_SIZE);
        }
        pyrt_safepoint(thread);
        for (int i = 0; i < PYRT_THREAD_SLOT_MAX; i++) {
            CHECK_PTR(pyrt_thread_slot(thread, slots[i]), bytes[i]);
            CHECK_INT(bytes[i][0], i + 1);
            CHECK_INT(bytes[i][PYRT_THREAD_SLOT_SIZE - 1], i + 1);
        }
        /* The second round gets them zeroed again. */
        pyrt_thread_release(thread);
    }
    runtime_down();
}

TEST(each_state_has_its_own_bytes)
{
    runtime_up();
    int slot = pyrt_thread_slot_new(NULL, NULL, 0);
    pyrt_thread *a = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_new(pyrt_interp_new(NULL));
    char *in_a = pyrt_thread_slot(a, slot);
    char *in_b = pyrt_thread_slot(b, slot);
    CHECK(in_a != NULL && in_b != NULL && in_a != in_b);
    *in_a = 1;
    CHECK_INT(*in_b, 0);
    pyrt_thread_delete(a);
    pyrt_thread_delete(b);
    runtime_down();
}

/* ---- hooks ------------------------------------------------------------------------------------------------------- */

TEST(init_runs_at_birth_and_exit_at_the_end)
{
    forget_story();
    runtime_up();
    int a = pyrt_thread_slot_new(init_a, exit_a, 0);
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_STR(story, "a");
    CHECK(*(char *)pyrt_thread_slot(thread, a) == 'a');
    CHECK_STR(story, "a");
    pyrt_thread_delete(thread);
    CHECK_STR(story, "aA");
    runtime_down();
    CHECK_STR(story, "aA");
}

TEST(init_runs_at_the_first_look_up_in_an_older_state)
{
    forget_story();
    runtime_up();
    pyrt_thread *looks = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread *does_not = pyrt_thread_new(pyrt_interp_new(NULL));
    int a = pyrt_thread_slot_new(init_a, exit_a, 0);
    CHECK_STR(story, "");
    CHECK(*(char *)pyrt_thread_slot(looks, a) == 'a');
    CHECK(*(char *)pyrt_thread_slot(looks, a) == 'a');
    CHECK_STR(story, "a");
    pyrt_thread_delete(does_not);
    CHECK_STR(story, "a");
    pyrt_thread_delete(looks);
    CHECK_STR(story, "aA");
    runtime_down();
}

TEST(exit_hooks_run_by_order_lower_first_older_first_of_equals)
{
    forget_story();
    runtime_up();
    pyrt_thread_slot_new(NULL, exit_c, 7);
    pyrt_thread_slot_new(init_a, exit_a, -3);
    pyrt_thread_slot_new(init_b, exit_b, 7);
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_STR(story, "ab");
    pyrt_thread_delete(thread);
    CHECK_STR(story, "abACB");
    runtime_down();
}

static pyrt_thread *ending;

static void
exit_looks_around(void *bytes)
{
    CHECK(bytes != NULL);
    /* On its own OS thread, attached. */
    CHECK_PTR(pyrt_thread_current(), ending);
    CHECK(ending->slot.word & 1);
    CHECK_UINT(pyrt_tls()->self_id, ending->self_id);
    tell('L');
}

TEST(exit_runs_attached)
{
    forget_story();
    runtime_up();
    pyrt_thread_slot_new(NULL, exit_looks_around, 0);
    ending = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread_delete(ending);
    CHECK_STR(story, "L");
    ending = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread_release(ending);
    CHECK_STR(story, "LL");
    runtime_down();
}

static int slot_b;

/* A hook of higher order still has its bytes; its own are gone for it. */
static void
exit_looks_up(void *bytes)
{
    (void)bytes;
    CHECK(*(char *)pyrt_thread_slot(pyrt_thread_current(), slot_b) == 'b');
    tell('U');
}

TEST(exit_may_look_up_slots_of_higher_order)
{
    forget_story();
    runtime_up();
    pyrt_thread_slot_new(NULL, exit_looks_up, 0);
    slot_b = pyrt_thread_slot_new(init_b, exit_b, 1);
    pyrt_thread_delete(pyrt_thread_new(pyrt_interp_main()));
    CHECK_STR(story, "bUB");
    runtime_down();
}

static void
count(void *p)
{
    *(int *)p += 1;
}

static int *retired_by_exit;

static void
exit_retires(void *bytes)
{
    (void)bytes;
    CHECK_OK(pyrt_retire(pyrt_thread_current(), retired_by_exit, 1, count));
    pyrt_detach(ending);
    pyrt_attach(ending);
    pyrt_safepoint(ending);
    pyrt_detach(ending);
}

TEST(exit_may_retire_detach_and_pass_safepoints)
{
    int disposed = 0;
    retired_by_exit = &disposed;
    runtime_up();
    pyrt_thread_slot_new(NULL, exit_retires, 0);
    ending = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread_delete(ending);
    CHECK_PTR(pyrt_thread_current(), NULL);
    runtime_down();
    CHECK_INT(disposed, 1);
}

/* ---- an init that refuses ---------------------------------------------------------------------------------------- */

TEST(a_refusal_at_birth_refuses_the_state_and_undoes_the_others)
{
    forget_story();
    runtime_up();
    pyrt_thread_slot_new(init_a, exit_a, 5);
    pyrt_thread_slot_new(refuse, exit_of_refused, 0);
    pyrt_thread_slot_new(init_b, exit_b, 0);
    CHECK_PTR(pyrt_thread_new(pyrt_interp_main()), NULL);
    CHECK_STR(story, "arA");
    CHECK_PTR(pyrt_thread_ensure(pyrt_interp_main()), NULL);
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_STR(story, "arAarA");
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    runtime_down();
}

TEST(a_refusal_at_look_up_gives_no_bytes_and_is_asked_again)
{
    forget_story();
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    int slot = pyrt_thread_slot_new(refuse, exit_of_refused, 0);
    CHECK_PTR(pyrt_thread_slot(thread, slot), NULL);
    CHECK_PTR(pyrt_thread_slot(thread, slot), NULL);
    CHECK_STR(story, "rr");
    pyrt_thread_delete(thread);
    CHECK_STR(story, "rr");
    runtime_down();
}

/* ---- many at once ------------------------------------------------------------------------------------------------ */

static int initialised;
static int exited;

static pyrt_status
count_init(void *bytes)
{
    check_zeroed(bytes);
    *(char *)bytes = 1;
    pyrt_fetch_add_seq_cst(&initialised, 1);
    return PYRT_OK;
}

static void
count_exit(void *bytes)
{
    CHECK_INT(*(char *)bytes, 1);
    pyrt_fetch_add_seq_cst(&exited, 1);
}

static void
make_slots_and_states(void *unused, int number)
{
    (void)unused;
    random_stream choices = random_for((uint64_t)number);
    for (int i = 0; i < 100; i++) {
        pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
        if (i % 10 == 0) {
            int slot = pyrt_thread_slot_new(count_init, count_exit, (int)random_below(&choices, 5));
            CHECK(slot >= 0);
        }
        for (int slot = 0; slot < 8; slot++) {
            char *bytes = pyrt_thread_slot(thread, slot);
            CHECK(bytes == NULL || *bytes == 1);
        }
        pyrt_thread_release(thread);
    }
}

TEST(slots_and_states_are_made_on_many_threads)
{
    initialised = exited = 0;
    runtime_up();
    run_crowd(4, make_slots_and_states, NULL);
    CHECK_INT(pyrt_thread_slot_new(NULL, NULL, 0), 40);
    CHECK(initialised > 0);
    CHECK_INT(exited, initialised);
    runtime_down();
}

/* ---- short of memory --------------------------------------------------------------------------------------------- */

static pyrt_thread *older;

static void
up_with_an_older_state(void)
{
    forget_story();
    runtime_up();
    older = pyrt_thread_new(pyrt_interp_main());
    CHECK_INT(pyrt_thread_slot_new(init_a, exit_a, 0), 0);
}

static bool
try_look_up(void)
{
    char *bytes = pyrt_thread_slot(older, 0);
    CHECK_STR(story, bytes == NULL ? "" : "a");
    return bytes != NULL;
}

static void
down_with_an_older_state(bool succeeded)
{
    pyrt_thread_delete(older);
    CHECK_STR(story, succeeded ? "aA" : "");
    runtime_down();
}

TEST(look_up_short_of_memory_gives_no_bytes)
{
    const fault_plan plan = {up_with_an_older_state, try_look_up, down_with_an_older_state};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 1);
}

static void
up_with_a_slot(void)
{
    forget_story();
    runtime_up();
    pyrt_thread_delete(pyrt_thread_new(pyrt_interp_main()));
    CHECK_INT(pyrt_thread_slot_new(init_a, exit_a, 0), 0);
}

static bool
try_birth(void)
{
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_STR(story, thread == NULL ? "" : "a");
    if (thread != NULL) {
        pyrt_thread_delete(thread);
    }
    return thread != NULL;
}

TEST(birth_with_slots_short_of_memory_changes_nothing)
{
    const fault_plan plan = {up_with_a_slot, try_birth, NULL};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 1);
}

/* test_interp.c -- interpreters: making, naming, listing, pinning and ending them (thread.h, "interpreters"). */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "steps.h"
#include "workers.h"

#include <stdio.h>
#include <string.h>

/* ---- making ------------------------------------------------------------------------------------------------------ */

TEST(there_is_no_interpreter_without_runtime)
{
    CHECK_PTR(pyrt_interp_main(), NULL);
    CHECK_PTR(pyrt_interp_new(NULL), NULL);
    CHECK_PTR(pyrt_interp_pin(0), NULL);
    CHECK_UINT(pyrt_interp_list(NULL, 0), 0);
}

TEST(the_main_interpreter)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    CHECK_INT(pyrt_interp_id(main), 0);
    CHECK_STR(pyrt_interp_name(main), "main");
    CHECK_INT(pyrt_interp_whence(main), PYRT_WHENCE_RUNTIME);
    CHECK_STATUS(pyrt_interp_delete(main), PYRT_EINVAL);
    CHECK_PTR(pyrt_interp_main(), main);
    runtime_down();
}

TEST(without_a_config_name_and_origin_are_the_usual_ones)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_new(NULL);
    CHECK_INT(pyrt_interp_id(interp), 1);
    CHECK_STR(pyrt_interp_name(interp), "interpreter 1");
    CHECK_INT(pyrt_interp_whence(interp), PYRT_WHENCE_CAPI);
    CHECK_OK(pyrt_interp_delete(interp));
    runtime_down();
}

TEST(the_config_is_followed_and_copied)
{
    runtime_up();
    char name[] = "of mine";
    pyrt_interp_config config = {.struct_size = sizeof(config), .whence = PYRT_WHENCE_STDLIB, .name = name};
    pyrt_interp *interp = pyrt_interp_new(&config);
    memset(name, 'x', sizeof(name) - 1);
    CHECK_STR(pyrt_interp_name(interp), "of mine");
    CHECK_INT(pyrt_interp_whence(interp), PYRT_WHENCE_STDLIB);
    CHECK_OK(pyrt_interp_delete(interp));
    runtime_down();
}

TEST(a_name_is_cut_to_31_bytes)
{
    const char *long_name = "0123456789012345678901234567890123456789";
    runtime_up();
    pyrt_interp_config config = {.struct_size = sizeof(config), .name = long_name};
    pyrt_interp *interp = pyrt_interp_new(&config);
    CHECK_UINT(strlen(pyrt_interp_name(interp)), 31);
    CHECK(strncmp(pyrt_interp_name(interp), long_name, 31) == 0);
    runtime_down();
}

TEST(a_config_of_another_size_is_refused)
{
    runtime_up();
    size_t live = pyrt_meta_live_bytes();
    const uint32_t sizes[] = {0, sizeof(pyrt_interp_config) - 1, sizeof(pyrt_interp_config) + 8};
    for (size_t i = 0; i < 3; i++) {
        pyrt_interp_config config = {.struct_size = sizes[i]};
        CHECK_PTR(pyrt_interp_new(&config), NULL);
    }
    CHECK_UINT(pyrt_meta_live_bytes(), live);
    CHECK_UINT(pyrt_interp_list(NULL, 0), 1);
    runtime_down();
}

/* ---- ids and the list -------------------------------------------------------------------------------------------- */

TEST(ids_count_up_and_are_not_reused)
{
    runtime_up();
    pyrt_interp *first = pyrt_interp_new(NULL);
    pyrt_interp *second = pyrt_interp_new(NULL);
    CHECK_INT(pyrt_interp_id(first), 1);
    CHECK_INT(pyrt_interp_id(second), 2);
    CHECK_OK(pyrt_interp_delete(second));
    CHECK_OK(pyrt_interp_delete(first));
    pyrt_interp *third = pyrt_interp_new(NULL);
    CHECK_INT(pyrt_interp_id(third), 3);
    runtime_down();
    runtime_up();
    CHECK_INT(pyrt_interp_id(pyrt_interp_new(NULL)), 1);
    runtime_down();
}

TEST(the_list_is_oldest_first_and_says_how_many_there_are)
{
    runtime_up();
    pyrt_interp *made[5];
    for (int i = 0; i < 5; i++) {
        made[i] = pyrt_interp_new(NULL);
    }
    CHECK_OK(pyrt_interp_delete(made[1]));
    int64_t ids[8] = {-7, -7, -7, -7, -7, -7, -7, -7};
    CHECK_UINT(pyrt_interp_list(ids, 8), 5);
    const int64_t wanted[] = {0, 1, 3, 4, 5, -7};
    for (int i = 0; i < 6; i++) {
        CHECK_INT(ids[i], wanted[i]);
    }
    int64_t two[3] = {-7, -7, -7};
    CHECK_UINT(pyrt_interp_list(two, 2), 5);
    CHECK_INT(two[1], 1);
    CHECK_INT(two[2], -7);
    CHECK_UINT(pyrt_interp_list(NULL, 0), 5);
    runtime_down();
}

/* ---- pins -------------------------------------------------------------------------------------------------------- */

TEST(a_pin_keeps_alive)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_new(NULL);
    int64_t id = pyrt_interp_id(interp);
    CHECK_PTR(pyrt_interp_pin(id), interp);
    CHECK_PTR(pyrt_interp_pin(id), interp);
    CHECK_STATUS(pyrt_interp_delete(interp), PYRT_EBUSY);
    pyrt_interp_unpin(interp);
    CHECK_STATUS(pyrt_interp_delete(interp), PYRT_EBUSY);
    CHECK_PTR(pyrt_interp_pin(id), interp);
    pyrt_interp_unpin(interp);
    pyrt_interp_unpin(interp);
    CHECK_OK(pyrt_interp_delete(interp));
    CHECK_PTR(pyrt_interp_pin(id), NULL);
    runtime_down();
}

TEST(there_is_no_pin_for_a_wrong_id)
{
    runtime_up();
    const int64_t none[] = {-1, 1, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < 4; i++) {
        CHECK_PTR(pyrt_interp_pin(none[i]), NULL);
    }
    runtime_down();
}

TEST(an_unpin_too_many_is_reported)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_new(NULL);
    pyrt_interp_unpin(interp);
    EXPECT_REPORT("pyrt_interp_unpin", "interpreter 1");
    CHECK_PTR(pyrt_interp_pin(1), interp);
    CHECK_STATUS(pyrt_interp_delete(interp), PYRT_EBUSY);
    pyrt_interp_unpin(interp);
    CHECK_OK(pyrt_interp_delete(interp));
    runtime_down();
}

/* ---- ending ------------------------------------------------------------------------------------------------------ */

TEST(delete_refuses_null)
{
    CHECK_STATUS(pyrt_interp_delete(NULL), PYRT_EINVAL);
    runtime_up();
    CHECK_STATUS(pyrt_interp_delete(NULL), PYRT_EINVAL);
    runtime_down();
}

TEST(delete_is_busy_while_thread_states_remain_and_changes_nothing)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    CHECK_STATUS(pyrt_interp_delete(interp), PYRT_EBUSY);
    CHECK_PTR(pyrt_thread_current(), thread);
    CHECK_UINT(pyrt_interp_list(NULL, 0), 2);
    CHECK_PTR(pyrt_interp_pin(1), interp);
    pyrt_interp_unpin(interp);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_interp_delete(interp));
    CHECK_UINT(pyrt_interp_list(NULL, 0), 1);
    runtime_down();
}

static int disposed;

static void
count(void *p)
{
    (void)p;
    disposed++;
}

static pyrt_interp *ending;

static void
attach_in_ending(void *unused)
{
    (void)unused;
    pyrt_thread_ensure(ending);
}

static void
release_in_ending(void *unused)
{
    (void)unused;
    pyrt_thread_release(pyrt_thread_find(ending));
}

TEST(delete_disposes_of_what_its_threads_left)
{
    disposed = 0;
    runtime_up();
    ending = pyrt_interp_new(NULL);
    worker reader;
    worker_start(&reader);
    worker_do(&reader, attach_in_ending, NULL);
    pyrt_thread *thread = pyrt_thread_ensure(ending);
    for (int i = 0; i < 400; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 10, count));
    }
    pyrt_thread_release(thread);
    CHECK_INT(disposed, 0);
    CHECK_STATUS(pyrt_interp_delete(ending), PYRT_EBUSY);
    CHECK_INT(disposed, 0);
    worker_do(&reader, release_in_ending, NULL);
    CHECK_OK(pyrt_interp_delete(ending));
    CHECK_INT(disposed, 400);
    worker_end(&reader);
    runtime_down();
}

static struct {
    pyrt_retire_node node;
    pyrt_status delete_again;
} last_item;

static void
look_at_the_ending_one(pyrt_retire_node *node)
{
    count(node);
    CHECK_PTR(pyrt_thread_new(ending), NULL);
    CHECK_PTR(pyrt_thread_ensure(ending), NULL);
    CHECK_PTR(pyrt_interp_pin(pyrt_interp_id(ending)), NULL);
    CHECK_STATUS(pyrt_stop_the_world(ending), PYRT_ESTATE);
    last_item.delete_again = pyrt_interp_delete(ending);
}

static void
make_state_in_ending(void *out)
{
    *(pyrt_thread **)out = pyrt_thread_new(ending);
}

TEST(an_ending_interpreter_takes_no_thread_no_pin_and_no_pause)
{
    worker w;
    pyrt_thread *thread;
    disposed = 0;
    runtime_up();
    ending = pyrt_interp_new(NULL);
    worker_start(&w);
    worker_do(&w, make_state_in_ending, &thread);
    /* With another OS thread's state the node goes to its interpreter, which has nobody who looks at it. */
    pyrt_retire_node(thread, &last_item.node, 1, look_at_the_ending_one);
    worker_do(&w, delete_state, thread);
    CHECK_INT(disposed, 0);
    CHECK_OK(pyrt_interp_delete(ending));
    CHECK_INT(disposed, 1);
    CHECK_STATUS(last_item.delete_again, PYRT_EBUSY);
    worker_end(&w);
    runtime_down();
}

/* ---- many at once ------------------------------------------------------------------------------------------------ */

static void
make_and_delete(void *unused, int number)
{
    (void)unused;
    random_stream choices = random_for((uint64_t)number);
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%d of thread %d", i, number);
        pyrt_interp_config config = {.struct_size = sizeof(config), .name = name};
        pyrt_interp *interp = pyrt_interp_new(&config);
        CHECK(interp != NULL);
        CHECK_STR(pyrt_interp_name(interp), name);
        pyrt_interp *same = pyrt_interp_pin(pyrt_interp_id(interp));
        CHECK_PTR(same, interp);
        int64_t ids[64];
        size_t listed = pyrt_interp_list(ids, 64);
        CHECK(listed >= 2);
        for (size_t k = 1; k < listed && k < 64; k++) {
            CHECK(ids[k - 1] < ids[k]);
        }
        pyrt_interp *any = pyrt_interp_pin(ids[random_below(&choices, (uint32_t)listed)]);
        if (any != NULL) {
            pyrt_interp_unpin(any);
        }
        pyrt_interp_unpin(same);
        /* Another thread may hold a pin for a moment. */
        WAIT_UNTIL(pyrt_interp_delete(interp) == PYRT_OK);
    }
}

TEST(interpreters_come_and_go_on_many_threads)
{
    runtime_up();
    run_crowd(4, make_and_delete, NULL);
    CHECK_UINT(pyrt_interp_list(NULL, 0), 1);
    runtime_down();
}

/* ---- short of memory --------------------------------------------------------------------------------------------- */

static bool
try_new(void)
{
    int64_t id = 1;
    pyrt_interp *interp = pyrt_interp_new(NULL);
    CHECK_UINT(pyrt_interp_list(NULL, 0), interp == NULL ? 1 : 2);
    if (interp == NULL) {
        /* The id of the one that did not come about is not lost. */
        fault_disarm();
        interp = pyrt_interp_new(NULL);
        CHECK_INT(pyrt_interp_id(interp), id);
        CHECK_OK(pyrt_interp_delete(interp));
        return false;
    }
    CHECK_INT(pyrt_interp_id(interp), id);
    return true;
}

TEST(new_short_of_memory_changes_nothing)
{
    const fault_plan plan = {NULL, try_new, NULL};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 1);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) >= 1);
}

/* test_once.c -- a function that is to succeed once, sentence by sentence (once.h). */
#include "support.h"
#include "workers.h"

#include <signal.h>

/* A call of pyrt_once_call_timed by a led thread; what fn does and answers stands in it. */
typedef struct call {
    pyrt_once *once;
    int64_t timeout_ns;
    unsigned flags;
    pyrt_status answer; /* of fn */
    int *gate;          /* NULL, or what fn waits for to become nonzero */
    int runs;
    pyrt_status status;
} call;

static int total_runs;

static pyrt_status
run(void *arg)
{
    call *self = arg;
    pyrt_fetch_add_seq_cst(&self->runs, 1);
    pyrt_fetch_add_seq_cst(&total_runs, 1);
    if (self->gate != NULL) {
        WAIT_UNTIL(pyrt_load_seq_cst(self->gate) != 0);
    }
    return self->answer;
}

static void
make_call(void *arg)
{
    call *self = arg;
    self->status = pyrt_once_call_timed(self->once, run, self, self->timeout_ns, self->flags);
}

static call
endless(pyrt_once *once, pyrt_status answer)
{
    return (call){.once = once, .timeout_ns = -1, .answer = answer, .status = PYRT_ENOTSUP};
}

/* ---- one thread -------------------------------------------------------------------------------------------------- */

TEST(it_runs_once)
{
    pyrt_once once = PYRT_ONCE_INIT;
    call c = {.once = &once};
    CHECK(!pyrt_once_is_done(&once));
    CHECK_OK(pyrt_once_call(&once, run, &c));
    CHECK(pyrt_once_is_done(&once));
    CHECK_OK(pyrt_once_call(&once, run, &c));
    CHECK_OK(pyrt_once_call_timed(&once, run, &c, 0, 0));
    CHECK_INT(c.runs, 1);
}

TEST(a_failure_goes_to_its_caller_and_the_next_tries_again)
{
    pyrt_once once = PYRT_ONCE_INIT;
    call c = {.once = &once, .answer = PYRT_ENOMEM};
    CHECK_STATUS(pyrt_once_call(&once, run, &c), PYRT_ENOMEM);
    CHECK(!pyrt_once_is_done(&once));
    c.answer = PYRT_EEXIST;
    CHECK_STATUS(pyrt_once_call(&once, run, &c), PYRT_EEXIST);
    c.answer = PYRT_OK;
    CHECK_OK(pyrt_once_call(&once, run, &c));
    CHECK_INT(c.runs, 3);
}

TEST(unknown_flags_are_refused)
{
    pyrt_once once = PYRT_ONCE_INIT;
    CHECK_STATUS(pyrt_once_call_timed(&once, run, NULL, 0, PYRT_PARK_FRONT), PYRT_EINVAL);
    CHECK(!pyrt_once_is_done(&once));
}

static pyrt_status
call_itself(void *arg)
{
    CHECK_STATUS(pyrt_once_call(arg, call_itself, arg), PYRT_EDEADLK);
    CHECK_STATUS(pyrt_once_call_timed(arg, call_itself, arg, 0, 0), PYRT_EDEADLK);
    return PYRT_OK;
}

TEST(recursion_is_refused)
{
    pyrt_once once = PYRT_ONCE_INIT;
    CHECK_OK(pyrt_once_call(&once, call_itself, &once));
    CHECK(pyrt_once_is_done(&once));
}

TEST(after_a_fork_done_stays_done_and_the_rest_is_new)
{
    pyrt_once running = {pyrt_tls(), PYRT_ONCE_WAITED};
    pyrt_once_at_fork_reinit(&running);
    call c = endless(&running, PYRT_OK);
    CHECK_OK(pyrt_once_call(&running, run, &c));
    pyrt_once_at_fork_reinit(&running);
    CHECK_OK(pyrt_once_call(&running, run, &c));
    CHECK_INT(c.runs, 1);
}

/* ---- several ----------------------------------------------------------------------------------------------------- */

TEST(the_others_wait_for_the_one_that_runs_it)
{
    worker runner;
    worker waiter;
    int gate = 0;
    pyrt_once once = PYRT_ONCE_INIT;
    call running = endless(&once, PYRT_OK);
    call waiting = endless(&once, PYRT_OK);
    running.gate = &gate;
    worker_start(&runner);
    worker_start(&waiter);
    worker_begin(&runner, make_call, &running);
    WAIT_UNTIL(pyrt_load_seq_cst(&running.runs) == 1);
    CHECK_STATUS(pyrt_once_call_timed(&once, run, &waiting, 0, 0), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_once_call_timed(&once, run, &waiting, 1000, 0), PYRT_ETIMEDOUT);
    worker_begin(&waiter, make_call, &waiting);
    WAIT_UNTIL(pyrt_parked_count(&once) == 1);
    pyrt_exchange_seq_cst(&gate, 1);
    worker_end(&runner);
    worker_end(&waiter);
    CHECK_OK(running.status);
    CHECK_OK(waiting.status);
    CHECK_INT(waiting.runs, 0);
}

TEST(a_waiter_tries_after_a_failure)
{
    worker runner;
    worker waiter;
    int gate = 0;
    pyrt_once once = PYRT_ONCE_INIT;
    call running = endless(&once, PYRT_ENOTFOUND);
    call waiting = endless(&once, PYRT_OK);
    running.gate = &gate;
    worker_start(&runner);
    worker_start(&waiter);
    worker_begin(&runner, make_call, &running);
    WAIT_UNTIL(pyrt_load_seq_cst(&running.runs) == 1);
    worker_begin(&waiter, make_call, &waiting);
    WAIT_UNTIL(pyrt_parked_count(&once) == 1);
    pyrt_exchange_seq_cst(&gate, 1);
    worker_end(&runner);
    worker_end(&waiter);
    CHECK_STATUS(running.status, PYRT_ENOTFOUND);
    CHECK_OK(waiting.status);
    CHECK_INT(waiting.runs, 1);
}

static pyrt_status
end_the_thread(void *arg)
{
    int *entered = arg;
    pyrt_exchange_seq_cst(entered, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(entered) == 2);
    pthread_exit(NULL);
}

typedef struct ending {
    pyrt_once *once;
    int entered;
} ending;

static void
call_and_end(void *arg)
{
    ending *self = arg;
    (void)pyrt_once_call(self->once, end_the_thread, &self->entered);
    FAIL("the OS thread should have ended");
}

TEST(an_os_thread_that_ends_inside_does_not_block_the_others)
{
    worker runner;
    worker waiter;
    pyrt_once once = PYRT_ONCE_INIT;
    ending ends = {&once, 0};
    call waiting = endless(&once, PYRT_OK);
    worker_start(&runner);
    worker_start(&waiter);
    worker_begin(&runner, call_and_end, &ends);
    WAIT_UNTIL(pyrt_load_seq_cst(&ends.entered) == 1);
    worker_begin(&waiter, make_call, &waiting);
    WAIT_UNTIL(pyrt_parked_count(&once) == 1);
    pyrt_exchange_seq_cst(&ends.entered, 2);
    worker_join_exited(&runner);
    worker_end(&waiter);
    CHECK_OK(waiting.status);
    CHECK_INT(waiting.runs, 1);
}

static void
ignore_signal(int number)
{
    (void)number;
}

TEST(a_signal_ends_an_interruptible_wait)
{
    worker runner;
    worker waiter;
    int gate = 0;
    pyrt_once once = PYRT_ONCE_INIT;
    call running = endless(&once, PYRT_OK);
    call waiting = endless(&once, PYRT_OK);
    running.gate = &gate;
    waiting.flags = PYRT_LOCK_INTERRUPTIBLE;
    signal(SIGUSR1, ignore_signal);
    worker_start(&runner);
    worker_start(&waiter);
    worker_begin(&runner, make_call, &running);
    WAIT_UNTIL(pyrt_load_seq_cst(&running.runs) == 1);
    worker_begin(&waiter, make_call, &waiting);
    while (worker_is_busy(&waiter)) {
        pthread_kill(waiter.thread, SIGUSR1);
        sched_yield();
    }
    CHECK_STATUS(waiting.status, PYRT_EINTR);
    pyrt_exchange_seq_cst(&gate, 1);
    worker_end(&runner);
    worker_end(&waiter);
    CHECK_OK(running.status);
}

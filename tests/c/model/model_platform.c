/* model_platform.c -- floor 1 of the core for the simulated machine: the same headers, other means.
 *
 * Locks and futexes are steps that the scheduler sees: a thread that waits cannot move until it is woken. The kernel passes
 * a full barrier in each of these calls, so they need an empty store buffer like a locked instruction. Memory comes from an
 * arena for each thread, so that addresses do not depend on the schedule; nothing is used twice in a run, and an
 * atomic operation on what has been freed ends the run.
 */
#include "machine.h"

#include "platform/futex.h"
#include "platform/meta_alloc.h"
#include "platform/os_thread.h"
#include "platform/raw_mutex.h"
#include "platform/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- locks ------------------------------------------------------------------------------------------------------- */

static int locks_held[MODEL_THREADS + 1];

static bool
is_broken(const pyrt_raw_mutex *mutex)
{
    return model_broken == MODEL_BREAK_POOL && machine_is_scheduling() && mutex == model_unlocked;
}

static void
take(pyrt_raw_mutex *mutex)
{
    mutex->word = 1;
    locks_held[machine_self()]++;
}

void
pyrt_raw_mutex_lock(pyrt_raw_mutex *mutex)
{
    if (is_broken(mutex)) {
        return;
    }
    machine_turn(MODEL_LOCK, &mutex->word, 0, "lock", __func__);
    if (mutex->word != 0) {
        model_fail("a thread that is alone finds a lock taken");
    }
    take(mutex);
    machine_note(__func__, "lock %p", (void *)mutex);
}

void
pyrt_raw_mutex_unlock(pyrt_raw_mutex *mutex)
{
    if (is_broken(mutex)) {
        return;
    }
    machine_turn(MODEL_UNLOCK, &mutex->word, 0, "unlock", __func__);
    mutex->word = 0;
    locks_held[machine_self()]--;
    machine_note(__func__, "unlock %p", (void *)mutex);
}

void
pyrt_raw_mutex_reinit(pyrt_raw_mutex *mutex)
{
    mutex->word = 0;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static int64_t now;
static bool clock_in_use;

void
model_use_clock(void)
{
    clock_in_use = true;
}

void
model_pass_time(int64_t ns)
{
    machine_turn(MODEL_RMW, &now, 0, "time passes", __func__);
    now += ns;
}

void
platform_relaxes(void)
{
    now += 1000;
}

int64_t
pyrt_now_ns(void)
{
    if (clock_in_use) {
        machine_turn(MODEL_LOAD, &now, 0, "the time", __func__);
    }
    now += model_broken == MODEL_BREAK_TURN ? (int64_t)1000000000 : 1;
    return now;
}

int64_t
pyrt_deadline_after(int64_t timeout_ns)
{
    return timeout_ns < 0 ? INT64_MAX : pyrt_now_ns() + timeout_ns;
}

bool
pyrt_futex_wait(const uint32_t *word, uint32_t expected, int64_t deadline)
{
    /* The clock stands still: whatever waits with an end must be woken all the same. */
    (void)deadline;
    if (locks_held[machine_self()] != 0) {
        model_fail("a thread goes to sleep with a lock");
    }
    machine_turn(MODEL_WAIT, word, 0, "wait", __func__);
    bool sleeps = *word == expected || model_broken == MODEL_BREAK_FUTEX;
    machine_note(__func__, "wait on %p for %u to change: %s", (const void *)word, expected, sleeps ? "sleeps" : "goes on");
    if (!sleeps) {
        return true;
    }
    if (!machine_is_scheduling()) {
        model_fail("a thread that is alone goes to sleep");
    }
    machine_sleep(word);
    machine_note(__func__, "wakes up");
    return true;
}

pyrt_futex_end
pyrt_futex_sleep(const uint32_t *word, uint32_t expected, int64_t deadline, bool interruptible)
{
    (void)interruptible;
    (void)pyrt_futex_wait(word, expected, deadline);
    return PYRT_FUTEX_WOKEN;
}

void
pyrt_futex_wake(const uint32_t *word, int count)
{
    machine_turn(MODEL_WAKE, word, 0, "wake", __func__);
    int woken = 0;
    while (woken < count && machine_wake_one(word)) {
        woken++;
    }
    machine_note(__func__, "wake %p: %d", (const void *)word, woken);
}

void
pyrt_yield(void)
{
    model_relax();
}

bool
pyrt_membarrier_is_supported(void)
{
    return true;
}

void
pyrt_membarrier_register(void)
{
}

bool
pyrt_membarrier(void)
{
    if (model_broken != MODEL_BREAK_MEMBARRIER) {
        for (int t = 0; t < machine_threads(); t++) {
            machine_turn(MODEL_BARRIER, NULL, t, "membarrier", __func__);
            machine_note(__func__, "membarrier of thread %d", t);
        }
    }
    return true;
}

static int sleeps[MODEL_THREADS + 1];

int
platform_sleeps(int thread)
{
    return sleeps[thread];
}

void *
pyrt_block_before(void)
{
    sleeps[machine_self()]++;
    if (locks_held[machine_self()] != 0) {
        model_fail("pyrt_block_before with a lock held");
    }
    return NULL;
}

void
pyrt_block_after(void *saved)
{
    (void)saved;
    if (locks_held[machine_self()] != 0) {
        model_fail("pyrt_block_after with a lock held");
    }
}

bool
pyrt_block_hooks_are_set(void)
{
    return false;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

enum { ARENA = 128 * 1024, GRAIN = 64, PAGE = 4096 };

typedef enum grain_state { GRAIN_UNUSED, GRAIN_LIVE, GRAIN_FREED } grain_state;

typedef struct arena {
    unsigned char memory[ARENA] __attribute__((aligned(PAGE)));
    unsigned char state[ARENA / GRAIN]; /* grain_state */
    size_t used;
} arena;

static arena arenas[MODEL_THREADS + 1];
static size_t live_bytes;

static arena *
arena_of(const volatile void *address, size_t *grain)
{
    uintptr_t offset = (uintptr_t)address - (uintptr_t)arenas;
    if (offset >= sizeof(arenas) || offset % sizeof(arena) >= ARENA) {
        return NULL;
    }
    *grain = offset % sizeof(arena) / GRAIN;
    return &arenas[offset / sizeof(arena)];
}

bool
platform_is_freed(const volatile void *address)
{
    size_t grain;
    arena *found = arena_of(address, &grain);
    return found != NULL && found->state[grain] != GRAIN_LIVE;
}

static size_t
round_up(size_t size, size_t to)
{
    return (size + to - 1) / to * to;
}

void *
pyrt_meta_alloc(size_t size)
{
    arena *mine = &arenas[machine_self()];
    size_t start = size < PAGE ? mine->used : round_up(mine->used, PAGE);
    size_t rounded = round_up(size, GRAIN);
    if (start + rounded > ARENA) {
        model_fail("the arena of a thread is full: make ARENA larger");
    }
    mine->used = start + rounded;
    memset(&mine->state[start / GRAIN], GRAIN_LIVE, rounded / GRAIN);
    live_bytes += rounded;
    return &mine->memory[start];
}

void
pyrt_meta_free(void *block, size_t size)
{
    if (block == NULL) {
        return;
    }
    size_t grain;
    arena *found = arena_of(block, &grain);
    if (found == NULL || found->state[grain] != GRAIN_LIVE) {
        model_fail("memory is freed that is not live: twice, perhaps");
    }
    size_t rounded = round_up(size, GRAIN);
    memset(&found->state[grain], GRAIN_FREED, rounded / GRAIN);
    memset(block, 0xdb, rounded);
    live_bytes -= rounded;
}

size_t
pyrt_meta_live_bytes(void)
{
    return live_bytes;
}

void
pyrt_meta_trim(void)
{
}

void
pyrt_meta_fork_prepare(void)
{
}

void
pyrt_meta_fork_parent(void)
{
}

void
pyrt_meta_fork_child(void)
{
}

/* ---- OS threads -------------------------------------------------------------------------------------------------- */

static void (*exit_hook)(void);

pyrt_status
pyrt_os_thread_register(void)
{
    pyrt_tls()->os_id = (uint64_t)machine_self() + 1;
    return PYRT_OK;
}

const void *
pyrt_os_thread_identity_new(void)
{
    pyrt_tls()->identity = (const void *)(uintptr_t)(machine_self() + 1);
    return pyrt_tls()->identity;
}

void
pyrt_os_thread_set_exit_hook(void (*hook)(void))
{
    exit_hook = hook;
}

int32_t
pyrt_os_thread_tid(void)
{
    return machine_self() + 1;
}

void
pyrt_os_thread_name(char name[PYRT_OS_THREAD_NAME])
{
    snprintf(name, PYRT_OS_THREAD_NAME, "thread %d", machine_self());
}

void
pyrt_os_thread_fork_child(void)
{
}

void
platform_thread_exit(void)
{
    if (locks_held[machine_self()] != 0) {
        model_fail("a thread ends with a lock");
    }
    if (pyrt_tls()->os_id != 0) {
        exit_hook();
    }
}

void
platform_start(void)
{
    clock_in_use = false;
    for (int n = 0; n <= MODEL_THREADS; n++) {
        memset(arenas[n].memory, 0, arenas[n].used);
        memset(arenas[n].state, GRAIN_UNUSED, (arenas[n].used + GRAIN - 1) / GRAIN);
        arenas[n].used = 0;
    }
    live_bytes = 0;
    memset(sleeps, 0, sizeof(sleeps));
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

/* No scenario does anything that the library would complain of. */
void
pyrt_report(const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    /* Addresses are others in the next process, and a replay is to say the same. */
    char *address = strstr(line, "0x");
    if (address != NULL) {
        memset(address + 2, '.', strspn(address + 2, "0123456789abcdef"));
    }
    model_fail("the library reports: %s", line);
}

void
pyrt_report_hold(pyrt_held_reports *held)
{
    (void)held;
}

void
pyrt_report_tell(pyrt_held_reports *held)
{
    (void)held;
}

void
pyrt_report_fork_child(void)
{
}

/* ---- what can be taken away -------------------------------------------------------------------------------------- */

/* The linker sends all calls from other files here (--wrap). */
void __real_pyrt_mutex_give_back(void);
void __wrap_pyrt_mutex_give_back(void);

void
__wrap_pyrt_mutex_give_back(void)
{
    if (model_broken != MODEL_BREAK_GIVE_BACK) {
        __real_pyrt_mutex_give_back();
    }
}

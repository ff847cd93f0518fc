/* machine.c -- see machine.h.
 *
 * Threads also read and write what they have stored atomically with plain accesses, which nobody intercepts: the core does
 * so with words that it owns for the moment. So the buffered stores of a thread are *laid over* memory while it runs,
 * and taken off when another actor has its turn. A plain store to such a word shows when they are taken off: the word is no
 * longer what was laid there. It is put into the buffer then, at the place where it belongs in the order of the stores.
 */
#include "machine.h"

#include "model_atomic.h"

#include <pyruntime/current.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

/* A spin loop may look so often. */
enum { STACK = 256 * 1024, BUFFER = 64, MOST_LOOKS = 100000 };

typedef struct buffered_store {
    model_op flush;  /* the step that ends it */
    size_t size;
    uint64_t value;
    uint64_t under;  /* what memory holds while it is laid over */
} buffered_store;

typedef struct model_thread {
    int number;
    pyrt_tls_block tls;
    model_op next;
    buffered_store buffer[BUFFER];
    int buffered;
    int last_step;
    int looks;          /* of the spin loop that it is in; 0: in none */
    bool at_end;        /* has come to model_end() */
    bool asleep;        /* on the futex of `next` */

    bool made;
    ucontext_t context; /* for the first entry only */
    jmp_buf place;
    char stack[STACK] __attribute__((aligned(16)));
} model_thread;

model_break model_broken;
const void *model_unlocked;
bool model_tracing;

static const model_scenario *running;
static int thread_count;
static model_thread threads[MODEL_THREADS];
static model_thread *current; /* NULL: the scheduler */
static bool scheduling;
static int steps;

/* Of the scheduler's own context, where setup and finish run. */
static pyrt_tls_block own_tls;
struct pyrt_tls_block *model_tls = &own_tls;
static ucontext_t own_context;
static jmp_buf own_place;

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static volatile void *
word_of(const buffered_store *store)
{
    return (volatile void *)store->flush.address;
}

static void
lay(buffered_store *store)
{
    store->under = machine_read(word_of(store), store->size);
    machine_write(word_of(store), store->size, store->value);
}

static void
put_in_buffer(model_thread *thread, volatile void *address, size_t size, uint64_t value, const char *text,
              const char *function)
{
    if (thread->buffered == BUFFER) {
        model_fail("%d stores in one buffer: make BUFFER larger", BUFFER);
    }
    buffered_store *store = &thread->buffer[thread->buffered++];
    store->flush = (model_op){MODEL_FLUSH, thread->number, 0, thread->last_step, address, text, function};
    store->size = size;
    store->value = value;
    lay(store);
}

static bool
is_newest_of_its_word(const model_thread *thread, int n)
{
    for (int later = n + 1; later < thread->buffered; later++) {
        if (thread->buffer[later].flush.address == thread->buffer[n].flush.address) {
            return false;
        }
    }
    return true;
}

static void
find_plain_stores(model_thread *thread)
{
    for (int n = thread->buffered - 1; n >= 0; n--) {
        const buffered_store *store = &thread->buffer[n];
        uint64_t found = machine_read(word_of(store), store->size);
        if (found != store->value && is_newest_of_its_word(thread, n)) {
            machine_write(word_of(store), store->size, store->value);
            put_in_buffer(thread, word_of(store), store->size, found, "a plain store", store->flush.function);
        }
    }
}

static void
lay_over(model_thread *thread)
{
    for (int n = 0; n < thread->buffered; n++) {
        lay(&thread->buffer[n]);
    }
}

static void
take_off(model_thread *thread)
{
    find_plain_stores(thread);
    for (int n = thread->buffered - 1; n >= 0; n--) {
        machine_write(word_of(&thread->buffer[n]), thread->buffer[n].size, thread->buffer[n].under);
    }
}

static void
flush_oldest(model_thread *thread)
{
    buffered_store *store = &thread->buffer[0];
    machine_write(word_of(store), store->size, store->value);
    machine_note(store->flush.function, "flush of '%s': %#llx", store->flush.text, (unsigned long long)store->value);
    memmove(store, store + 1, (size_t)(--thread->buffered) * sizeof(*store));
}

/* ---- coroutines -------------------------------------------------------------------------------------------------- */

static void
resume(model_thread *thread)
{
    current = thread;
    model_tls = &thread->tls;
    lay_over(thread);
    if (_setjmp(own_place) == 0) {
        if (thread->made) {
            _longjmp(thread->place, 1);
        }
        thread->made = true;
        swapcontext(&own_context, &thread->context);
    }
    take_off(thread);
    current = NULL;
    model_tls = &own_tls;
}

static void
pause_here(void)
{
    if (_setjmp(current->place) == 0) {
        _longjmp(own_place, 1);
    }
}

/* Lives as long as the process, a turn of the loop for each run. */
static void
thread_main(int number)
{
    for (;;) {
        running->body(number);
        platform_thread_exit();
        pause_here();
    }
}

static void
make_coroutine(model_thread *thread)
{
    getcontext(&thread->context);
    thread->context.uc_stack.ss_sp = thread->stack;
    thread->context.uc_stack.ss_size = sizeof(thread->stack);
    makecontext(&thread->context, (void (*)(void))thread_main, 1, thread->number);
}

void
model_begin(void)
{
    pause_here();
}

void
model_end(void)
{
    current->next.kind = MODEL_NOTHING;
    current->at_end = true;
    pause_here();
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

void
machine_start(const model_scenario *scenario)
{
    running = scenario;
    scheduling = false;
    steps = 0;
    own_tls = (pyrt_tls_block){0};
    platform_start();
    scenario->setup();
    for (thread_count = 0; thread_count < MODEL_THREADS && scenario->threads[thread_count] != NULL; thread_count++) {
        model_thread *thread = &threads[thread_count];
        thread->number = thread_count;
        thread->tls = (pyrt_tls_block){0};
        thread->next = (model_op){.thread = thread_count};
        thread->at_end = false;
        thread->looks = 0;
        if (!thread->made) {
            make_coroutine(thread);
        }
        resume(thread);
    }
    scheduling = true;
    for (int t = 0; t < thread_count; t++) {
        resume(&threads[t]);
    }
}

bool
machine_is_done(void)
{
    for (int t = 0; t < thread_count; t++) {
        if (!threads[t].at_end || threads[t].buffered != 0) {
            return false;
        }
    }
    return true;
}

void
machine_finish(void)
{
    scheduling = false;
    for (int t = 0; t < thread_count; t++) {
        resume(&threads[t]);
    }
    running->finish();
}

const model_op *
machine_next(int actor)
{
    static const model_op nothing;
    if (actor % MODEL_THREADS >= thread_count) {
        return &nothing;
    }
    const model_thread *thread = &threads[actor % MODEL_THREADS];
    if (actor < MODEL_THREADS) {
        return &thread->next;
    }
    return thread->buffered == 0 ? &nothing : &thread->buffer[0].flush;
}

bool
machine_drains(model_kind kind)
{
    return kind >= MODEL_RMW && kind != MODEL_RESUME;
}

bool
machine_could(int actor)
{
    const model_op *next = machine_next(actor);
    if (next->kind == MODEL_LOCK) {
        return machine_read(next->address, sizeof(uint32_t)) == 0;
    }
    return next->kind != MODEL_NOTHING && !(next->kind == MODEL_RESUME && threads[next->thread].asleep);
}

bool
machine_can(int actor)
{
    const model_op *next = machine_next(actor);
    bool empty = !machine_drains(next->kind) || threads[next->thread].buffered == 0;
    bool other_empty = next->kind != MODEL_BARRIER || threads[next->other].buffered == 0;
    return machine_could(actor) && empty && other_empty;
}

void
machine_step(int actor)
{
    model_thread *thread = &threads[actor % MODEL_THREADS];
    if (actor < MODEL_THREADS) {
        thread->last_step = steps++;
        resume(thread);
    }
    else {
        steps++;
        current = thread;
        flush_oldest(thread);
        current = NULL;
    }
}

void
machine_describe(void)
{
    for (int t = 0; t < thread_count; t++) {
        const model_thread *thread = &threads[t];
        printf("  %-10s ", running->threads[t]);
        if (thread->at_end) {
            printf("has ended");
        }
        else {
            printf("%s '%s' in %s", thread->asleep ? "sleeps at" : "is before", thread->next.text, thread->next.function);
        }
        printf(", %d stores buffered\n", thread->buffered);
    }
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

int
machine_self(void)
{
    return current == NULL ? MODEL_THREADS : current->number;
}

int
machine_threads(void)
{
    return thread_count;
}

bool
machine_is_scheduling(void)
{
    return scheduling && current != NULL;
}

void
machine_note(const char *function, const char *format, ...)
{
    if (!model_tracing || !machine_is_scheduling() || current->looks != 0) {
        return;
    }
    va_list args;
    va_start(args, format);
    printf("%4d %-10s ", steps - 1, running->threads[current->number]);
    vprintf(format, args);
    va_end(args);
    printf("   (%s)\n", function);
}

void
machine_turn(model_kind kind, const volatile void *address, int other, const char *text, const char *function)
{
    if (address != NULL && platform_is_freed(address)) {
        model_fail("'%s' in %s touches memory that has been freed", text == NULL ? "a count" : text, function);
    }
    if (!machine_is_scheduling() || text == NULL) {
        return;
    }
    if (kind == MODEL_LOAD && current->looks != 0) {
        return;
    }
    current->looks = 0;
    current->next = (model_op){kind, current->number, other, 0, address, text, function};
    pause_here();
}

/* A spin loop goes on without a step until it does something else than loading: the looks after the first see what the
 * first has seen, and the loops of the core all give up after a while. */
void
model_relax(void)
{
    platform_relaxes();
    if (machine_is_scheduling() && ++current->looks > MOST_LOOKS) {
        model_fail("a spin loop that does not end, after '%s' in %s", current->next.text, current->next.function);
    }
}

void
machine_sleep(const volatile void *address)
{
    current->asleep = true;
    machine_turn(MODEL_RESUME, address, 0, "sleep", "pyrt_futex_wait");
}

/* Which one, if there are several, is not a question: the core wakes all of them, or there is one. */
bool
machine_wake_one(const volatile void *address)
{
    for (int t = 0; t < thread_count; t++) {
        if (threads[t].asleep && threads[t].next.address == address) {
            threads[t].asleep = false;
            return true;
        }
    }
    return false;
}

void
machine_store(volatile void *address, size_t size, uint64_t value, const char *text, const char *function)
{
    put_in_buffer(current, address, size, value, text, function);
}

/* operations.c -- the atomic operations of model_atomic.h: a turn, then what it does to memory or the own buffer.
 *
 * An operation without a text is one of the statistics: it is done at once, without a turn.
 */
#include "machine.h"

#include "model_atomic.h"

#include <pyruntime/object.h>

#include <string.h>

/* Which operation this is, by the function that it stands in. */
static bool
is_in(const char *function, const char *wanted)
{
    return strcmp(function, wanted) == 0;
}

/* Of two looks into a slot in a row, the second finds what the first did. */
static uint64_t
model_second_look(uint64_t value)
{
    static uint64_t first[MODEL_THREADS + 1];
    uint64_t *mine = &first[machine_self()];
    uint64_t found = *mine != 0 ? *mine : value;
    *mine = *mine != 0 ? 0 : value;
    return found;
}

/* What a merge has written too early for the broken core, a word each, until it has merged the shared one. */
typedef struct late_store {
    volatile void *address;
    size_t size;
    uint64_t value;
} late_store;

static late_store late[MODEL_THREADS + 1][2];

static bool
is_to_be_late(volatile void *address, size_t size, uint64_t value, const char *function)
{
    if (model_broken != MODEL_BREAK_MERGE || !machine_is_scheduling() || !is_in(function, "pyrt_merge")) {
        return false;
    }
    late_store *mine = late[machine_self()];
    mine[mine[0].address != NULL] = (late_store){address, size, value};
    return true;
}

static void
store_late(const char *function)
{
    if (model_broken != MODEL_BREAK_MERGE || !machine_is_scheduling() || !is_in(function, "pyrt_merge")) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        late_store it = late[machine_self()][i];
        late[machine_self()][i].address = NULL;
        machine_turn(MODEL_STORE, it.address, 0, "late", function);
        machine_store(it.address, it.size, it.value, "late", function);
    }
}

uint64_t
model_load(const volatile void *address, size_t size, const char *text, const char *function)
{
    if (model_broken == MODEL_BREAK_LOOK && is_in(function, "look_again") && size == 1) {
        return 1;
    }
    if (model_broken == MODEL_BREAK_CELL && is_in(function, "pyrt_mutex_unlock") && size == sizeof(uint32_t)) {
        return 0;
    }
    if (model_broken == MODEL_BREAK_TAKEN && is_in(function, "pyrt_decref_taken")) {
        return PYRT_SHARED_MERGED;
    }
    machine_turn(MODEL_LOAD, address, 0, text, function);
    uint64_t value = machine_read(address, size);
    if (model_broken == MODEL_BREAK_LAST && is_in(function, "pyrt_decref_last_local") && value == PYRT_SHARED_OPEN) {
        value = PYRT_SHARED_PLAIN;
    }
    if (model_broken == MODEL_BREAK_SLOT && is_in(function, "pyrt_load_ref")) {
        value = model_second_look(value);
    }
    if (text != NULL) {
        machine_note(function, "%s: %#llx", text, (unsigned long long)value);
    }
    return value;
}

void
model_store(volatile void *address, size_t size, uint64_t value, const char *text, const char *function)
{
    if (is_to_be_late(address, size, value, function)) {
        return;
    }
    machine_turn(MODEL_STORE, address, 0, text, function);
    if (!machine_is_scheduling() || text == NULL) {
        machine_write(address, size, value);
        return;
    }
    machine_note(function, "%s: %#llx, buffered", text, (unsigned long long)value);
    machine_store(address, size, value, text, function);
}

typedef enum change { CHANGE_SET, CHANGE_ADD, CHANGE_OR, CHANGE_AND } change;

static uint64_t
change_word(change change, volatile void *address, size_t size, uint64_t operand, const char *text, const char *function)
{
    machine_turn(MODEL_RMW, address, 0, text, function);
    uint64_t found = machine_read(address, size);
    uint64_t value = change == CHANGE_ADD   ? found + operand
                     : change == CHANGE_OR  ? (found | operand)
                     : change == CHANGE_AND ? (found & operand)
                                            : operand;
    machine_write(address, size, value);
    if (text != NULL) {
        machine_note(function, "%s: %#llx -> %#llx", text, (unsigned long long)found,
                     (unsigned long long)machine_read(address, size));
    }
    return found;
}

uint64_t
model_exchange(volatile void *address, size_t size, uint64_t value, const char *text, const char *function)
{
    if (model_broken == MODEL_BREAK_COLLECT && (is_in(function, "collect_foreign") || is_in(function, "pyrt_page_mark"))) {
        uint64_t found = model_load(address, size, text, function);
        model_store(address, size, value, text, function);
        return found;
    }
    return change_word(CHANGE_SET, address, size, value, text, function);
}

uint64_t
model_fetch_add(volatile void *address, size_t size, uint64_t value, const char *text, const char *function)
{
    return change_word(CHANGE_ADD, address, size, value, text, function);
}

uint64_t
model_fetch_or(volatile void *address, size_t size, uint64_t value, const char *text, const char *function)
{
    return change_word(CHANGE_OR, address, size, value, text, function);
}

uint64_t
model_fetch_and(volatile void *address, size_t size, uint64_t value, const char *text, const char *function)
{
    return change_word(CHANGE_AND, address, size, value, text, function);
}

/* What is left of a compare-and-swap without its lock prefix. */
static bool
load_and_store(volatile void *address, size_t size, void *expected, uint64_t value, const char *text, const char *function)
{
    uint64_t found = model_load(address, size, text, function);
    if (found != machine_read(expected, size)) {
        memcpy(expected, &found, size);
        return false;
    }
    model_store(address, size, value, text, function);
    return true;
}

bool
model_cas(volatile void *address, size_t size, void *expected, uint64_t value, const char *text, const char *function)
{
    bool locks =
        is_in(function, "pyrt_mutex_lock") || is_in(function, "pyrt_mutex_trylock") || is_in(function, "try_to_take");
    if ((model_broken == MODEL_BREAK_LOCK && locks) ||
        (model_broken == MODEL_BREAK_CLAIM && is_in(function, "end_reservation")) ||
        (model_broken == MODEL_BREAK_DISOWN && is_in(function, "pyrt_disown")) ||
        (model_broken == MODEL_BREAK_FREE && is_in(function, "pyrt_page_free_foreign"))) {
        return load_and_store(address, size, expected, value, text, function);
    }
    machine_turn(MODEL_RMW, address, 0, text, function);
    uint64_t found = machine_read(address, size);
    bool same = found == machine_read(expected, size);
    if (same) {
        machine_write(address, size, value);
        machine_note(function, "%s: %#llx -> %#llx", text, (unsigned long long)found, (unsigned long long)value);
        store_late(function);
    }
    else {
        memcpy(expected, &found, size);
        machine_note(function, "%s: finds %#llx", text, (unsigned long long)found);
    }
    return same;
}

/* ---- the two of threads that can be broken ---------------------------------------------------------------------------------- */

uint64_t
model_fetch_add_seq_cst(volatile void *address, size_t size, uint64_t value, const char *text, const char *function)
{
    if (model_broken == MODEL_BREAK_ADVANCE && size == sizeof(uint64_t)) {
        uint64_t found = model_load(address, size, text, function);
        model_store(address, size, found + value, text, function);
        return found;
    }
    return model_fetch_add(address, size, value, text, function);
}

bool
model_cas_seq_cst(volatile void *address, size_t size, void *expected, uint64_t value, const char *text,
                  const char *function)
{
    /* Attached is odd, suspended is 2. */
    bool attach = value % 2 == 1;
    if (!(model_broken == MODEL_BREAK_ATTACH && attach) && !(model_broken == MODEL_BREAK_SUSPEND && value == 2)) {
        return model_cas(address, size, expected, value, text, function);
    }
    return load_and_store(address, size, expected, value, text, function);
}

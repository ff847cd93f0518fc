/* owner_numbers.c -- small numbers for the owners of memory, which the entries of the address map have room for.
 *
 * Finding an owner takes no lock and touches nothing that goes away; giving and forgetting numbers is under `owners_lock`.
 */
#include "memory/memory.h"

#include "platform/os_memory.h"

enum { CHUNK = 4096, CHUNKS = (PYRT_MAP_OWNER_MAX + 1) / CHUNK };

/* Owners by number. Chunks are never freed; a number that is free holds 0, else owner + 1, which is 0 for nobody only. The
 * lock is for writers. */
static int64_t *owners[CHUNKS];
static pyrt_raw_mutex owners_lock;
static uint32_t next_free_hint = 1;

int64_t
pyrt_owner_find(uint32_t number)
{
    /* acquire: pairs with the release in pyrt_owner_number. */
    const int64_t *chunk = pyrt_load_acquire(&owners[number / CHUNK]);
    return chunk == NULL ? -1 : pyrt_load_relaxed(&chunk[number % CHUNK]) - 1;
}

uint32_t
pyrt_owner_number(int64_t owner)
{
    pyrt_raw_mutex_lock(&owners_lock);
    uint32_t number = next_free_hint;
    for (; number <= PYRT_MAP_OWNER_MAX; number++) {
        int64_t **chunk = &owners[number / CHUNK];
        if (*chunk == NULL) {
            int64_t *made = pyrt_os_map(CHUNK * sizeof(int64_t), 4096);
            if (made == NULL) {
                number = PYRT_MAP_OWNER_MAX + 1;
                break;
            }
            /* release: pairs with the acquire in pyrt_owner_find. */
            pyrt_store_release(chunk, made);
        }
        if ((*chunk)[number % CHUNK] == 0) {
            pyrt_store_relaxed(&(*chunk)[number % CHUNK], owner + 1);
            break;
        }
    }
    next_free_hint = number <= PYRT_MAP_OWNER_MAX ? number + 1 : next_free_hint;
    pyrt_raw_mutex_unlock(&owners_lock);
    return number <= PYRT_MAP_OWNER_MAX ? number : 0;
}

void
pyrt_owner_forget(uint32_t number)
{
    pyrt_raw_mutex_lock(&owners_lock);
    pyrt_store_relaxed(&owners[number / CHUNK][number % CHUNK], (int64_t)0);
    next_free_hint = number < next_free_hint ? number : next_free_hint;
    pyrt_raw_mutex_unlock(&owners_lock);
}

void
pyrt_owners_fork_prepare(void)
{
    pyrt_raw_mutex_lock(&owners_lock);
}

void
pyrt_owners_fork_parent(void)
{
    pyrt_raw_mutex_unlock(&owners_lock);
}

void
pyrt_owners_fork_child(void)
{
    pyrt_raw_mutex_reinit(&owners_lock);
}

/* object_scenarios.c -- the shared word of an object between its owner and others: drops, the queue, merging, and references out of
 * nothing.
 *
 * The files of the object floor are the real ones but for those that make objects and types. Memory of an object that is freed
 * is the header of the next one at once: it says whose that is and how often it is counted, and in the end it must say so still.
 * The stage of the merge queues is there in these scenarios only.
 */
#include "machine.h"
#include "shared_item.h"

#include "object/death.h"
#include "object/merge_queue.h"
#include "platform/meta_alloc.h"

/* ---- what the object floor needs of the files that are not here --------------------------------------------------- */

pyrt_type pyrt_type_of_types = {.base = PYRT_OBJECT_IMMORTAL_INIT(&pyrt_type_of_types), .interp_id = -1, .name = "type"};

static pyrt_type type = {.base = PYRT_OBJECT_IMMORTAL_INIT(&pyrt_type_of_types), .name = "object"};

enum { OBJECTS = 2, NEXT_LOCAL = 5 };

/* Of no interpreter that there is in all the runs. */
#define NEXT_OWNER ((uint64_t)(PYRT_OWNERS_LAST + 1) << PYRT_OWNERS_SHIFT)

static pyrt_object objects[OBJECTS];
static uint32_t died[OBJECTS];
static uint32_t freed[OBJECTS];
static int64_t next_shared; /* of the objects that come after them */

static int
number_of(const pyrt_object *object)
{
    MODEL_CHECK(object >= objects && object < objects + OBJECTS, "%p is no object", (const void *)object);
    return (int)(object - objects);
}

/* Its memory is the next object's. */
void
pyrt_free_guarded(void *block)
{
    pyrt_object *object = block;
    int n = number_of(object);
    MODEL_CHECK(pyrt_load_relaxed(&freed[n]) == 0, "object %d is freed a second time", n);
    pyrt_store_relaxed(&freed[n], 1u);
    if (!type.has_destructors) {
        pyrt_store_relaxed(&died[n], 1u);
    }
    pyrt_store_relaxed(&object->shared, next_shared);
    pyrt_store_relaxed(&object->owner, NEXT_OWNER);
    pyrt_store_relaxed(&object->local, (uint32_t)NEXT_LOCAL);
}

void
pyrt_count_by_id_slow(pyrt_thread *thread, pyrt_object *object, uint32_t id, int32_t n)
{
    (void)thread, (void)id, (void)n;
    MODEL_CHECK(object == &type.base, "%p is counted by an id", (void *)object);
}

static const pyrt_stage *stage;

__attribute__((constructor)) static void
take_stage(void)
{
    stage = pyrt_stages[PYRT_STAGE_MERGE];
    pyrt_stages[PYRT_STAGE_MERGE] = NULL;
}

/* ---- objects ------------------------------------------------------------------------------------------------------- */

static void
object_dealloc(pyrt_object *object)
{
    int n = number_of(object);
    MODEL_CHECK(pyrt_load_relaxed(&died[n]) == 0, "object %d dies a second time", n);
    pyrt_store_relaxed(&died[n], 1u);
}

static void
use(const pyrt_object *object)
{
    int n = number_of(object);
    MODEL_CHECK(pyrt_load_relaxed(&died[n]) == 0, "object %d is used, and has died", n);
}

static pyrt_object *
object_init(int n, const pyrt_thread *owner, uint32_t local, int64_t shared)
{
    objects[n] = (pyrt_object){.owner = owner->self_id, .local = local, .shared = shared, .type = &type};
    return &objects[n];
}

static void
setup(void)
{
    for (int n = 0; n < OBJECTS; n++) {
        died[n] = freed[n] = 0;
    }
    next_shared = PYRT_SHARED_PLAIN;
    pyrt_stage_register(PYRT_STAGE_MERGE, stage);
    type.dealloc = object_dealloc;
    type.has_destructors = true;
    MODEL_CHECK(pyrt_runtime_init() == PYRT_OK, "the runtime does not come up");
    type.interp = pyrt_interp_main();
    type.interp_id = 0;
}

/* Objects of which nothing is to be run when they die. */
static void
setup_plain(void)
{
    setup();
    type.dealloc = NULL;
    type.has_destructors = false;
}

/* So many have died, once each, and nobody has written to what came after them. */
static void
finish_with(int dead)
{
    for (int n = 0; n < OBJECTS; n++) {
        MODEL_CHECK(died[n] == (n < dead ? 1u : 0u) && freed[n] == died[n],
                    "object %d has died %u times, and was freed %u times", n, died[n], freed[n]);
        MODEL_CHECK(n >= dead || (objects[n].owner == NEXT_OWNER && objects[n].local == NEXT_LOCAL &&
                                  objects[n].shared == next_shared),
                    "object %d was written to when it had been freed: owner %#llx, local %u, shared %lld", n,
                    (unsigned long long)objects[n].owner, objects[n].local, (long long)objects[n].shared);
    }
    MODEL_CHECK(pyrt_runtime_fini() == PYRT_OK, "the runtime does not go down");
    pyrt_stages[PYRT_STAGE_MERGE] = NULL;
    MODEL_CHECK(pyrt_meta_live_bytes() == 0, "%zu bytes are left", pyrt_meta_live_bytes());
}

static void
finish(void)
{
    finish_with(1);
}

static void
finish_both(void)
{
    finish_with(2);
}

static pyrt_thread *
attached_thread(int thread)
{
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    return self;
}

/* The first one is the owner of object 0, which it counts so often. */
static pyrt_thread *
begin(int thread, uint32_t local, int64_t shared)
{
    pyrt_thread *self = attached_thread(thread);
    if (thread == 0) {
        object_init(0, self, local, shared);
    }
    return self;
}

/* The owner has object 1 in its queue. */
static void
queue_another(int thread, const pyrt_thread *self)
{
    if (thread == 0) {
        object_init(1, self, 1, PYRT_SHARED_PLAIN);
    }
    else {
        pyrt_decref(&objects[1]);
    }
}

static void
end_thread(pyrt_thread *self)
{
    pyrt_detach(self);
    pyrt_thread_delete(self);
}

/* ---- drops --------------------------------------------------------------------------------------------------------- */

/* Each has a reference, and the owner has counted them all. */
static void
drop_body(int thread)
{
    pyrt_thread *self = begin(thread, 3, PYRT_SHARED_PLAIN);
    model_begin();
    use(&objects[0]);
    pyrt_decref(&objects[0]);
    if (thread == 0) {
        pyrt_safepoint(self);
    }
    model_end();
    end_thread(self);
}

/* Each of the others has counted its own. */
static void
counted_body(int thread)
{
    pyrt_thread *self = begin(thread, 1, pyrt_shared_word(2, PYRT_SHARED_OPEN));
    model_begin();
    use(&objects[0]);
    pyrt_decref(&objects[0]);
    model_end();
    end_thread(self);
}

/* One has counted its reference, the other has not, and is counted up and down besides. */
static void
mixed_body(int thread)
{
    pyrt_thread *self = begin(thread, 2, pyrt_shared_word(1, PYRT_SHARED_PLAIN));
    model_begin();
    if (thread == 1) {
        pyrt_incref(&objects[0]);
        pyrt_decref(&objects[0]);
    }
    use(&objects[0]);
    pyrt_decref(&objects[0]);
    model_end();
    end_thread(self);
}

/* The owner has counted a reference in `shared`, as it does while it is detached, drops that there, takes another one there, and
 * drops two in `local`. So the count may be above 0 when the other thread looks, and it takes it below 0 all the same; and before
 * it has seen to that the object may have died, and its memory be used again. */
static void
below(int thread, const pyrt_thread *self, uint64_t self_id)
{
    if (thread == 0) {
        object_init(0, self, 2, pyrt_shared_word(1, PYRT_SHARED_PLAIN));
    }
    model_begin();
    use(&objects[0]);
    if (thread == 0) {
        pyrt_decref_by(0, &objects[0]);
        pyrt_incref_by(0, &objects[0]);
        pyrt_decref_by(self_id, &objects[0]);
    }
    pyrt_decref_by(self_id, &objects[0]);
    model_end();
}

static void
below_body(int thread)
{
    pyrt_thread *self = attached_thread(thread);
    below(thread, self, self->self_id);
    end_thread(self);
}

/* The other has no state, and nothing keeps the memory an object's for it. */
static void
unstable_body(int thread)
{
    if (thread == 0) {
        below_body(thread);
        return;
    }
    if (model_broken == MODEL_BREAK_STABLE) {
        PYRT_TLS.self_id = pyrt_interp_main()->owners;
    }
    below(thread, NULL, 0);
    PYRT_TLS.self_id = 0;
}

/* What comes in its place looks like an object whose count is below 0. */
static void
setup_unstable(void)
{
    setup();
    next_shared = pyrt_shared_word(-5, PYRT_SHARED_PLAIN);
}

/* ---- owners that are not there ------------------------------------------------------------------------------------- */

/* The owner counts up in `shared`, as it does while it is detached, and down in `local`: so that may come to 0 while the other's
 * reference is on its way into the queue, where another object stands already. */
static void
name_body(int thread)
{
    pyrt_thread *self = begin(thread, 2, PYRT_SHARED_PLAIN);
    queue_another(thread, self);
    model_begin();
    use(&objects[0]);
    if (thread == 0) {
        pyrt_incref_by(0, &objects[0]);
        pyrt_decref(&objects[0]);
    }
    pyrt_decref(&objects[0]);
    model_end();
    end_thread(self);
}

/* It is detached meanwhile, with an object in its queue. */
static void
detached_body(int thread)
{
    pyrt_thread *self = begin(thread, 2, PYRT_SHARED_PLAIN);
    queue_another(thread, self);
    model_begin();
    use(&objects[0]);
    if (thread == 0) {
        pyrt_detach(self);
        pyrt_incref(&objects[0]);
        pyrt_attach(self);
        pyrt_decref(&objects[0]);
    }
    pyrt_decref(&objects[0]);
    model_end();
    end_thread(self);
}

/* It ends. */
static void
ending_body(int thread)
{
    pyrt_thread *self = attached_thread(thread);
    if (thread == 0) {
        object_init(0, self, 1, PYRT_SHARED_PLAIN);
        pyrt_detach(self);
    }
    model_begin();
    if (thread == 0) {
        pyrt_thread_delete(self);
    }
    else {
        use(&objects[0]);
        pyrt_decref(&objects[0]);
    }
    model_end();
    if (thread != 0) {
        end_thread(self);
    }
}

/* Who drops has no state. */
static void
outside_body(int thread)
{
    pyrt_thread *self = thread == 0 ? attached_thread(thread) : NULL;
    if (thread == 0) {
        object_init(0, self, 2, PYRT_SHARED_PLAIN);
    }
    model_begin();
    use(&objects[0]);
    pyrt_decref(&objects[0]);
    model_end();
    if (thread == 0) {
        end_thread(self);
    }
}

/* ---- no count any more --------------------------------------------------------------------------------------------- */

/* The owner merges what it has been asked to, another makes that immortal. */
static void
immortal_body(int thread)
{
    pyrt_thread *self = begin(thread, 2, PYRT_SHARED_PLAIN);
    if (thread != 0) {
        pyrt_decref(&objects[0]);
    }
    model_begin();
    if (thread == 0) {
        pyrt_safepoint(self);
    }
    else {
        pyrt_set_immortal(&objects[0]);
    }
    model_end();
    end_thread(self);
}

static void
finish_immortal(void)
{
    MODEL_CHECK(objects[0].local == PYRT_LOCAL_IMMORTAL, "it is immortal and counted all the same: local %u",
                objects[0].local);
    finish_with(0);
}

/* ---- references out of nothing ------------------------------------------------------------------------------------- */

/* The owner drops the last reference, another tries to get one. */
static void
try_body(int thread)
{
    pyrt_thread *self = begin(thread, 1, PYRT_SHARED_OPEN);
    model_begin();
    if (thread == 0) {
        pyrt_decref(&objects[0]);
    }
    else if (pyrt_try_incref(&objects[0])) {
        use(&objects[0]);
        pyrt_decref(&objects[0]);
    }
    model_end();
    end_thread(self);
}

static pyrt_object *slot;

/* What comes in its place is another that is open. */
static void
setup_slot(void)
{
    setup();
    next_shared = PYRT_SHARED_OPEN;
}

/* One puts another object into the slot, another reads it. */
static void
slot_body(int thread)
{
    pyrt_thread *self = attached_thread(thread);
    if (thread == 0) {
        slot = object_init(0, self, 1, PYRT_SHARED_OPEN);
        object_init(1, self, 1, PYRT_SHARED_PLAIN);
    }
    model_begin();
    if (thread == 0) {
        pyrt_store_ref(&slot, &objects[1]);
    }
    else {
        pyrt_object *found = pyrt_load_ref(&slot);
        use(found);
        pyrt_decref(found);
    }
    model_end();
    end_thread(self);
}

const model_scenario model_object_scenarios[] = {
    {"object-drop",
     "the owner and two others drop what the owner has counted",
     MODEL_ALL,
     setup,
     drop_body,
     finish,
     {"owner", "one", "two"}},
    {"object-plain",
     "the same, of an object that has no destructor",
     MODEL_ALL,
     setup_plain,
     drop_body,
     finish,
     {"owner", "one", "two"}},
    {"object-counted",
     "the owner and two others drop what each has counted",
     1,
     setup,
     counted_body,
     finish,
     {"owner", "one", "two"}},
    {"object-mixed",
     "the owner and two others drop, one of whom has counted",
     MODEL_ALL,
     setup,
     mixed_body,
     finish,
     {"owner", "one", "two"}},
    {"object-below",
     "a drop, while the owner counts in the shared word and in its own",
     MODEL_ALL,
     setup,
     below_body,
     finish,
     {"owner", "other"}},
    {"object-unstable",
     "the same, but the other has no state",
     MODEL_ALL,
     setup_unstable,
     unstable_body,
     finish,
     {"owner", "other"}},
    {"object-name",
     "a drop, while the owner takes its name off",
     MODEL_ALL,
     setup,
     name_body,
     finish_both,
     {"owner", "other"}},
    {"object-detached",
     "a drop, while the owner is detached and counts, comes back and counts",
     MODEL_ALL,
     setup,
     detached_body,
     finish_both,
     {"owner", "other"}},
    {"object-ending", "the last drop, while the owner ends", MODEL_ALL, setup, ending_body, finish, {"owner", "other"}},
    {"object-outside",
     "the owner and a thread without a state drop what the owner has counted",
     MODEL_ALL,
     setup,
     outside_body,
     finish,
     {"owner", "outside"}},
    {"object-immortal",
     "the owner merges what another makes immortal",
     MODEL_ALL,
     setup,
     immortal_body,
     finish_immortal,
     {"owner", "other"}},
    {"object-try",
     "the owner drops the last reference, another tries to get one",
     MODEL_ALL,
     setup,
     try_body,
     finish,
     {"owner", "other"}},
    {"object-slot",
     "an object is replaced in a slot that another thread reads",
     MODEL_ALL,
     setup_slot,
     slot_body,
     finish,
     {"writer", "reader"}},
    {.name = NULL},
};

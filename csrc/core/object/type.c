/* type.c -- types: objects themselves, in the heap of their interpreter that all its objects are in, counted by unique ids. */
#include "object/merge_queue.h"

#include "memory/heap_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

pyrt_type pyrt_type_of_types = {
    .base = PYRT_OBJECT_IMMORTAL_INIT(&pyrt_type_of_types),
    .interp_id = -1,
    .basic_size = sizeof(pyrt_type),
    .name = "type",
};

static bool
is_good_spec(const pyrt_type_spec *spec)
{
    size_t at = spec->weaklist_offset;
    return spec->struct_size == sizeof(*spec) && spec->name != NULL && spec->basic_size >= sizeof(pyrt_object) &&
           spec->basic_size <= PTRDIFF_MAX &&
           (at == 0 || (at >= sizeof(pyrt_object) && at % sizeof(void *) == 0 && at <= spec->basic_size - sizeof(void *)));
}

/* Of two who make it at once one takes it back. */
static pyrt_heap *
heap_of(pyrt_interp *interp)
{
    static const pyrt_heap_config config = {
        .struct_size = sizeof(config),
        .tag = PYRT_OBJECT_TAG,
        .type_stable = true,
        .stable_prefix = sizeof(pyrt_object),
    };
    pyrt_merge_interp *merge = pyrt_merge_of_interp(interp);
    /* acquire: pairs with the release of who made it. */
    pyrt_heap *heap = pyrt_load_acquire(&merge->heap);
    if (heap != NULL) {
        return heap;
    }
    pyrt_heap *made = pyrt_heap_new(interp, &config);
    if (made == NULL) {
        return NULL;
    }
    pyrt_heap_guard(made);
    if (!pyrt_cas_acq_rel(&merge->heap, &heap, made)) {
        pyrt_heap_delete(made);
        return heap;
    }
    return made;
}

/* What a thread makes that is attached to the interpreter. */
static pyrt_type *
make(pyrt_thread *thread, const pyrt_type_spec *spec)
{
    pyrt_heap *heap = heap_of(thread->interp);
    pyrt_type *type = heap == NULL ? NULL : pyrt_heap_malloc(thread, heap, sizeof(*type));
    if (type == NULL) {
        return NULL;
    }
    memset((char *)type + sizeof(type->base), 0, sizeof(*type) - sizeof(type->base));
    type->interp = thread->interp;
    type->interp_id = pyrt_interp_id(thread->interp);
    type->heap = heap;
    type->basic_size = spec->basic_size;
    type->item_size = spec->item_size;
    type->weaklist_offset = spec->weaklist_offset;
    type->has_destructors = spec->finalize != NULL || spec->dealloc != NULL;
    type->dealloc = spec->dealloc;
    type->finalize = spec->finalize;
    type->traverse = spec->traverse;
    type->clear = spec->clear;
    snprintf(type->name, sizeof(type->name), "%s", spec->name);
    pyrt_object_init(thread, &type->base, &pyrt_type_of_types);
    /* Without memory for an id it is counted plainly. */
    (void)pyrt_unique_id_new(thread->interp, &type->base, &type->id);
    return type;
}

pyrt_type *
pyrt_type_new(pyrt_interp *interp, const pyrt_type_spec *spec)
{
    if (interp == NULL || spec == NULL || !is_good_spec(spec)) {
        errno = EINVAL;
        return NULL;
    }
    pyrt_thread *thread;
    pyrt_status status = pyrt_thread_ensure_timed(interp, -1, 0, &thread);
    if (status != PYRT_OK) {
        errno = status == PYRT_ENOMEM ? ENOMEM : EINVAL;
        return NULL;
    }
    pyrt_type *type = make(thread, spec);
    pyrt_thread_release(thread);
    if (type == NULL) {
        errno = ENOMEM;
    }
    return type;
}

const char *
pyrt_type_name(const pyrt_type *type)
{
    return type->name;
}

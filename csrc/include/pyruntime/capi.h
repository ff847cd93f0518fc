/* SPDX-License-Identifier: MIT
 *
 * capi.h -- the way in through the table: use the runtime that the process already has.
 *
 *      #include <Python.h>
 *      #include <pyruntime/capi.h>          before any other pyruntime header
 *
 *      static int exec(PyObject *module) { return pyruntime_import(); }    once, in each Python interpreter
 *
 * (A cffi module, in whose source text it is included, does so by itself.)
 *
 * After that every function of the public headers can be called by its name, and the inline ones are as fast as inside.
 */
#ifndef PYRUNTIME_CAPI_H
#define PYRUNTIME_CAPI_H

#if defined(PYRUNTIME_CONFIG_H) && !defined(PYRT_USE_CAPI)
#    error "include <pyruntime/capi.h> before any other pyruntime header"
#endif
#if !defined(PYRT_USE_CAPI)
#    define PYRT_USE_CAPI 1
#endif

#include "layout.h"
#include "pyruntime.h"

/* From here on what this shared object calls is this table's, for good. */
static inline void
pyrt_capi_use(const pyrt_capi *table)
{
    /* Only ever from nothing, and written once: another interpreter imports it while threads of the first read both plainly.
     * acquire, acq_rel: pair with each other, so that who comes later has what is there. */
    if (pyrt_load_acquire(&pyrt_capi_pointer) == NULL) {
        intptr_t no_offset = PYRT_CAPI_NO_TLS;
        const pyrt_capi *no_table = NULL;
        (void)pyrt_cas_acq_rel(&pyrt_capi_tls_offset, &no_offset, (intptr_t)table->tls_offset);
        (void)pyrt_cas_acq_rel(&pyrt_capi_pointer, &no_table, table);
    }
}

/* Whether the table of the running library has this member; needed only for members newer than the minor version that
 * PYRT_ABI_TARGET names. */
#define PYRT_CAPI_HAS(name) (pyrt_capi_pointer->struct_size >= offsetof(pyrt_capi, name) + sizeof(pyrt_capi_pointer->name))

/* The oldest minor version of the table that the including code can live with: what an extension is built against need not be
 * what it wants its users to have. It then asks PYRT_CAPI_HAS before it calls what came later. */
#if !defined(PYRT_ABI_TARGET)
#    define PYRT_ABI_TARGET PYRT_ABI_MINOR
#endif
#if PYRT_ABI_TARGET > PYRT_ABI_MINOR
#    error "PYRT_ABI_TARGET is a newer minor version of the table than that of these headers"
#endif

/* By their names. In the text above this line a name is still the function's own. */
#define pyrt_strerror PYRT_CALL(strerror)
#define pyrt_version PYRT_CALL(version)
#define pyrt_set_report_hook PYRT_CALL(set_report_hook)
#define pyrt_set_block_hooks PYRT_CALL(set_block_hooks)
#define pyrt_runtime_init PYRT_CALL(runtime_init)
#define pyrt_runtime_fini PYRT_CALL(runtime_fini)
#define pyrt_runtime_is_initialized PYRT_CALL(runtime_is_initialized)
#define pyrt_interp_main PYRT_CALL(interp_main)
#define pyrt_interp_new PYRT_CALL(interp_new)
#define pyrt_interp_delete PYRT_CALL(interp_delete)
#define pyrt_interp_id PYRT_CALL(interp_id)
#define pyrt_interp_name PYRT_CALL(interp_name)
#define pyrt_interp_whence PYRT_CALL(interp_whence)
#define pyrt_interp_pin PYRT_CALL(interp_pin)
#define pyrt_interp_unpin PYRT_CALL(interp_unpin)
#define pyrt_interp_list PYRT_CALL(interp_list)
#define pyrt_thread_new PYRT_CALL(thread_new)
#define pyrt_thread_delete PYRT_CALL(thread_delete)
#define pyrt_thread_ensure PYRT_CALL(thread_ensure)
#define pyrt_thread_release PYRT_CALL(thread_release)
#define pyrt_thread_find PYRT_CALL(thread_find)
#define pyrt_thread_set_name PYRT_CALL(thread_set_name)
#define pyrt_thread_list PYRT_CALL(thread_list)
#define pyrt_attach_slow PYRT_CALL(attach_slow)
#define pyrt_detach_slow PYRT_CALL(detach_slow)
#define pyrt_detach_answer PYRT_CALL(detach_answer)
#define pyrt_safepoint_slow PYRT_CALL(safepoint_slow)
#define pyrt_thread_slot_new PYRT_CALL(thread_slot_new)
#define pyrt_thread_slot PYRT_CALL(thread_slot)
#define pyrt_qsbr_advance PYRT_CALL(qsbr_advance)
#define pyrt_qsbr_poll PYRT_CALL(qsbr_poll)
#define pyrt_qsbr_synchronize PYRT_CALL(qsbr_synchronize)
#define pyrt_qsbr_synchronize_timed PYRT_CALL(qsbr_synchronize_timed)
#define pyrt_qsbr_quiescent_slow PYRT_CALL(qsbr_quiescent_slow)
#define pyrt_read_begin_counted PYRT_CALL(read_begin_counted)
#define pyrt_read_end_counted PYRT_CALL(read_end_counted)
#define pyrt_qsbr_stall_report PYRT_CALL(qsbr_stall_report)
#define pyrt_qsbr_stats_read PYRT_CALL(qsbr_stats_read)
#define pyrt_qsbr_stats_name PYRT_CALL(qsbr_stats_name)
#define pyrt_retire_slow PYRT_CALL(retire_slow)
#define pyrt_retire_call PYRT_CALL(retire_call)
#define pyrt_retire_global PYRT_CALL(retire_global)
#define pyrt_retire_embedded PYRT_CALL(retire_embedded)
#define pyrt_process_delayed PYRT_CALL(process_delayed)
#define pyrt_qsbr_barrier PYRT_CALL(qsbr_barrier)
#define pyrt_qsbr_barrier_timed PYRT_CALL(qsbr_barrier_timed)
#define pyrt_retire_set_bound PYRT_CALL(retire_set_bound)
#define pyrt_stop_the_world PYRT_CALL(stop_the_world)
#define pyrt_stop_the_world_timed PYRT_CALL(stop_the_world_timed)
#define pyrt_start_the_world PYRT_CALL(start_the_world)
#define pyrt_world_is_stopped PYRT_CALL(world_is_stopped)
#define pyrt_stop_the_world_stats PYRT_CALL(stop_the_world_stats)
#define pyrt_fork PYRT_CALL(fork)
#define pyrt_park PYRT_CALL(park)
#define pyrt_unpark_one PYRT_CALL(unpark_one)
#define pyrt_unpark_all PYRT_CALL(unpark_all)
#define pyrt_requeue PYRT_CALL(requeue)
#define pyrt_parked_count PYRT_CALL(parked_count)
#define pyrt_park_is_reading PYRT_CALL(park_is_reading)
#define pyrt_mutex_lock_slow PYRT_CALL(mutex_lock_slow)
#define pyrt_mutex_trylock_slow PYRT_CALL(mutex_trylock_slow)
#define pyrt_mutex_unlock_slow PYRT_CALL(mutex_unlock_slow)
#define pyrt_mutex_wake PYRT_CALL(mutex_wake)
#define pyrt_mutex_lock_timed PYRT_CALL(mutex_lock_timed)
#define pyrt_mutex_at_fork_reinit PYRT_CALL(mutex_at_fork_reinit)
#define pyrt_striped_lock_init PYRT_CALL(striped_lock_init)
#define pyrt_striped_lock_init_config PYRT_CALL(striped_lock_init_config)
#define pyrt_striped_lock_bytes PYRT_CALL(striped_lock_bytes)
#define pyrt_striped_lock_fini PYRT_CALL(striped_lock_fini)
#define pyrt_striped_lock_at_fork_reinit PYRT_CALL(striped_lock_at_fork_reinit)
#define pyrt_striped_lock_name PYRT_CALL(striped_lock_name)
#define pyrt_striped_lock_keys PYRT_CALL(striped_lock_keys)
#define pyrt_striped_lock_hashes PYRT_CALL(striped_lock_hashes)
#define pyrt_striped_lock_keys_timed PYRT_CALL(striped_lock_keys_timed)
#define pyrt_striped_lock_hashes_timed PYRT_CALL(striped_lock_hashes_timed)
#define pyrt_striped_trylock_keys PYRT_CALL(striped_trylock_keys)
#define pyrt_striped_trylock_hashes PYRT_CALL(striped_trylock_hashes)
#define pyrt_striped_unlock_keys PYRT_CALL(striped_unlock_keys)
#define pyrt_striped_unlock_hashes PYRT_CALL(striped_unlock_hashes)
#define pyrt_striped_lock_all PYRT_CALL(striped_lock_all)
#define pyrt_striped_lock_all_timed PYRT_CALL(striped_lock_all_timed)
#define pyrt_striped_trylock_all PYRT_CALL(striped_trylock_all)
#define pyrt_striped_unlock_all PYRT_CALL(striped_unlock_all)
#define pyrt_striped_lock_waits PYRT_CALL(striped_lock_waits)
#define pyrt_striped_lock_stats_read PYRT_CALL(striped_lock_stats_read)
#define pyrt_striped_lock_slow PYRT_CALL(striped_lock_slow)
#define pyrt_lock_debug PYRT_CALL(lock_debug)
#define pyrt_lock_name PYRT_CALL(lock_name)
#define pyrt_lock_name_class PYRT_CALL(lock_name_class)
#define pyrt_lock_name_array PYRT_CALL(lock_name_array)
#define pyrt_lock_forget PYRT_CALL(lock_forget)
#define pyrt_lock_holds PYRT_CALL(lock_holds)
#define pyrt_lock_holder PYRT_CALL(lock_holder)
#define pyrt_lock_report PYRT_CALL(lock_report)
#define pyrt_lock_debug_set_bound PYRT_CALL(lock_debug_set_bound)
#define pyrt_lock_debug_stats_read PYRT_CALL(lock_debug_stats_read)
#define pyrt_event_wait_slow PYRT_CALL(event_wait_slow)
#define pyrt_event_set PYRT_CALL(event_set)
#define pyrt_event_clear PYRT_CALL(event_clear)
#define pyrt_event_wait_timed PYRT_CALL(event_wait_timed)
#define pyrt_event_at_fork_reinit PYRT_CALL(event_at_fork_reinit)
#define pyrt_once_call_slow PYRT_CALL(once_call_slow)
#define pyrt_once_call_timed PYRT_CALL(once_call_timed)
#define pyrt_once_at_fork_reinit PYRT_CALL(once_at_fork_reinit)
#define pyrt_recursive_mutex_unlock_slow PYRT_CALL(recursive_mutex_unlock_slow)
#define pyrt_recursive_mutex_lock_timed PYRT_CALL(recursive_mutex_lock_timed)
#define pyrt_recursive_mutex_at_fork_reinit PYRT_CALL(recursive_mutex_at_fork_reinit)
#define pyrt_rwlock_read_lock_slow PYRT_CALL(rwlock_read_lock_slow)
#define pyrt_rwlock_read_trylock_slow PYRT_CALL(rwlock_read_trylock_slow)
#define pyrt_rwlock_read_unlock_slow PYRT_CALL(rwlock_read_unlock_slow)
#define pyrt_rwlock_wake PYRT_CALL(rwlock_wake)
#define pyrt_rwlock_write_lock PYRT_CALL(rwlock_write_lock)
#define pyrt_rwlock_write_trylock PYRT_CALL(rwlock_write_trylock)
#define pyrt_rwlock_write_unlock PYRT_CALL(rwlock_write_unlock)
#define pyrt_rwlock_read_lock_timed PYRT_CALL(rwlock_read_lock_timed)
#define pyrt_rwlock_write_lock_timed PYRT_CALL(rwlock_write_lock_timed)
#define pyrt_rwlock_readers PYRT_CALL(rwlock_readers)
#define pyrt_rwlock_waiters PYRT_CALL(rwlock_waiters)
#define pyrt_rwlock_at_fork_reinit PYRT_CALL(rwlock_at_fork_reinit)
#define pyrt_seqlock_read_begin_slow PYRT_CALL(seqlock_read_begin_slow)
#define pyrt_seqlock_write_unlock_slow PYRT_CALL(seqlock_write_unlock_slow)
#define pyrt_seqlock_write_lock_timed PYRT_CALL(seqlock_write_lock_timed)
#define pyrt_seqlock_at_fork_reinit PYRT_CALL(seqlock_at_fork_reinit)
#define pyrt_condition_notify_slow PYRT_CALL(condition_notify_slow)
#define pyrt_condition_wait PYRT_CALL(condition_wait)
#define pyrt_condition_wait_timed PYRT_CALL(condition_wait_timed)
#define pyrt_condition_wait_recursive PYRT_CALL(condition_wait_recursive)
#define pyrt_condition_at_fork_reinit PYRT_CALL(condition_at_fork_reinit)
#define pyrt_critical_sections_resume PYRT_CALL(critical_sections_resume)
#define pyrt_critical_section_begin_slow PYRT_CALL(critical_section_begin_slow)
#define pyrt_critical_section_end_slow PYRT_CALL(critical_section_end_slow)
#define pyrt_critical_section2_begin_slow PYRT_CALL(critical_section2_begin_slow)
#define pyrt_critical_section2_end_slow PYRT_CALL(critical_section2_end_slow)
#define pyrt_critical_section_holds PYRT_CALL(critical_section_holds)
#define pyrt_malloc PYRT_CALL(malloc)
#define pyrt_calloc PYRT_CALL(calloc)
#define pyrt_realloc PYRT_CALL(realloc)
#define pyrt_aligned_alloc PYRT_CALL(aligned_alloc)
#define pyrt_free PYRT_CALL(free)
#define pyrt_usable_size PYRT_CALL(usable_size)
#define pyrt_good_size PYRT_CALL(good_size)
#define pyrt_address_owner PYRT_CALL(address_owner)
#define pyrt_heap_new PYRT_CALL(heap_new)
#define pyrt_heap_delete PYRT_CALL(heap_delete)
#define pyrt_heap_destroy PYRT_CALL(heap_destroy)
#define pyrt_heap_alloc_slow PYRT_CALL(heap_alloc_slow)
#define pyrt_heap_aligned_alloc PYRT_CALL(heap_aligned_alloc)
#define pyrt_heap_realloc PYRT_CALL(heap_realloc)
#define pyrt_heap_visit PYRT_CALL(heap_visit)
#define pyrt_interp_memory_stats PYRT_CALL(interp_memory_stats)
#define pyrt_heap_debug PYRT_CALL(heap_debug)
#define pyrt_os_thread_identity_new PYRT_CALL(os_thread_identity_new)
#define pyrt_attach_timed PYRT_CALL(attach_timed)
#define pyrt_thread_ensure_timed PYRT_CALL(thread_ensure_timed)
#define pyrt_type_new PYRT_CALL(type_new)
#define pyrt_type_name PYRT_CALL(type_name)
#define pyrt_object_new PYRT_CALL(object_new)
#define pyrt_object_new_var PYRT_CALL(object_new_var)
#define pyrt_set_immortal PYRT_CALL(set_immortal)
#define pyrt_set_deferred PYRT_CALL(set_deferred)
#define pyrt_clear_deferred PYRT_CALL(clear_deferred)
#define pyrt_merge_refcounts PYRT_CALL(merge_refcounts)
#define pyrt_refcount PYRT_CALL(refcount)
#define pyrt_object_look PYRT_CALL(object_look)
#define pyrt_object_trace PYRT_CALL(object_trace)
#define pyrt_object_stats_read PYRT_CALL(object_stats_read)
#define pyrt_incref_slow PYRT_CALL(incref_slow)
#define pyrt_decref_slow PYRT_CALL(decref_slow)
#define pyrt_decref_last_local PYRT_CALL(decref_last_local)
#define pyrt_try_incref_slow PYRT_CALL(try_incref_slow)
#define pyrt_enable_try_incref_slow PYRT_CALL(enable_try_incref_slow)
#define pyrt_count_by_id_slow PYRT_CALL(count_by_id_slow)
#define pyrt_unique_id_new PYRT_CALL(unique_id_new)
#define pyrt_merge_unique_counts PYRT_CALL(merge_unique_counts)
#define pyrt_weakref_new PYRT_CALL(weakref_new)
#define pyrt_weakref_get_slow PYRT_CALL(weakref_get_slow)
#define pyrt_weakref_count PYRT_CALL(weakref_count)
#define pyrt_weakref_hash PYRT_CALL(weakref_hash)
#define pyrt_ended_memory_next PYRT_CALL(ended_memory_next)
#define pyrt_decref_taken PYRT_CALL(decref_taken)
#if defined(Py_PYTHON_H)
#    define PYRT_CAPI_NAME "pyruntime._C_API"

/* For the functions below: whether what was found is a table that this code can work with; else an ImportError is set. */
static inline int
pyruntime_fits(const pyrt_capi *table)
{
    static const pyrt_layout_item mine[] = {PYRT_LAYOUT_ITEMS};
    const size_t known = sizeof(mine) / sizeof(mine[0]);
    const int major = PYRT_ABI_MAJOR;
    const int minor = PYRT_ABI_TARGET;
    if (table->abi_major != PYRT_ABI_MAJOR) {
        PyErr_Format(PyExc_ImportError,
                     "compiled for pyruntime ABI %d.%d, but the installed pyruntime has ABI %u.%u: rebuild this extension "
                     "against it, or install a pyruntime-ft with ABI %d",
                     major, minor, (unsigned)table->abi_major, (unsigned)table->abi_minor, major);
        return -1;
    }
    if (table->abi_minor < PYRT_ABI_TARGET) {
        PyErr_Format(PyExc_ImportError,
                     "needs pyruntime ABI %d.%d or a newer minor, but the installed pyruntime has ABI %u.%u: upgrade "
                     "pyruntime-ft",
                     major, minor, (unsigned)table->abi_major, (unsigned)table->abi_minor);
        return -1;
    }
    if (table->struct_size < PYRT_CAPI_SIZE(PYRT_ABI_TARGET)) {
        PyErr_Format(PyExc_ImportError,
                     "the installed pyruntime says that it has ABI %u.%u, but its table ends after %zu bytes, and ABI %d.%d "
                     "has %zu: it is damaged; install pyruntime-ft again",
                     (unsigned)table->abi_major, (unsigned)table->abi_minor, table->struct_size, major, minor,
                     PYRT_CAPI_SIZE(PYRT_ABI_TARGET));
        return -1;
    }
    size_t items = table->struct_size < PYRT_CAPI_SIZE(2) ? 0 : table->layout_items;
    for (size_t i = 0; i < items && i < known; i++) {
        if (table->layout[i].value != mine[i].value) {
            PyErr_Format(PyExc_ImportError,
                         "compiled for pyruntime ABI %d.%d with %s %zu, but that is %zu in the installed pyruntime, ABI "
                         "%u.%u: rebuild this extension against it",
                         major, minor, mine[i].what, (size_t)mine[i].value, (size_t)table->layout[i].value,
                         (unsigned)table->abi_major, (unsigned)table->abi_minor);
            return -1;
        }
    }
    return 0;
}

#    if defined(Py_LIMITED_API) && Py_LIMITED_API + 0 < 0x03060000
/* As cffi modules have it. It is older than any Python that there is a package for. */
PyAPI_DATA(PyObject *) PyExc_ModuleNotFoundError;
#    endif

/* Finds the runtime of the process: imports the package and takes the table out of the capsule "pyruntime._C_API". 0, or
 * -1 with an exception set: ModuleNotFoundError when there is no package; ImportError when it cannot be imported or has no
 * table, or when the versions do not fit. The message names both and the mend. Needs the GIL (an attached Python thread state).
 * Once in each Python interpreter, from the module's exec function. Without it there is no table (pyrt_capi_pointer is NULL): the
 * first call ends the process with a plain segmentation fault, as a check would cost every call.
 * blocks: as an import · allocates: yes · runs user code: as an import · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline int
pyruntime_import(void)
{
    const int major = PYRT_ABI_MAJOR;
    const int minor = PYRT_ABI_TARGET;
    PyObject *package = PyImport_ImportModule("pyruntime");
    if (package == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ModuleNotFoundError)) {
            PyErr_Format(PyExc_ModuleNotFoundError,
                         "compiled for pyruntime ABI %d.%d, but there is no package pyruntime: "
                         "python -m pip install pyruntime-ft",
                         major, minor);
        }
        return -1;
    }
    PyObject *capsule = PyObject_GetAttrString(package, "_C_API");
    Py_DECREF(package);
    if (capsule == NULL || !PyCapsule_IsValid(capsule, PYRT_CAPI_NAME)) {
        Py_XDECREF(capsule);
        PyErr_Format(
            PyExc_ImportError,
            "compiled for pyruntime ABI %d.%d, but the package pyruntime has no table _C_API: it is another package, or "
            "its compiled part is missing; install pyruntime-ft again",
            major, minor);
        return -1;
    }
    const pyrt_capi *table = (const pyrt_capi *)PyCapsule_GetPointer(capsule, PYRT_CAPI_NAME);
    Py_DECREF(capsule); /* the table itself is static and is never unloaded */
    if (pyruntime_fits(table) != 0) {
        return -1;
    }
    pyrt_capi_use(table);
    return 0;
}
#else
/* So that the compiler says what is missing. */
#    define pyruntime_import()                                                                                            \
        __extension__({                                                                                                   \
            PYRT_STATIC_ASSERT(0, "pyruntime_import exists only where <Python.h> is included before <pyruntime/capi.h>"); \
            -1;                                                                                                           \
        })
#endif

/* In the source text of a cffi module: its initialisation is the only place where C of it runs with the GIL, so it imports us
 * there. What cffi writes below this text calls _cffi_init. */
#if defined(_CFFI_) && defined(Py_PYTHON_H)
static PyObject *
pyruntime_cffi_init(const char *name, Py_ssize_t version, const struct _cffi_type_context_s *context)
{
    return pyruntime_import() < 0 ? NULL : _cffi_init(name, version, context);
}
#    define _cffi_init pyruntime_cffi_init
#endif

#endif /* PYRUNTIME_CAPI_H */

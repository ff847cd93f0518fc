/* SPDX-License-Identifier: MIT
 *
 * capi_table.h -- the layout of the function table. Included by config.h when <pyruntime/capi.h> came first; do not
 * include it by itself in code that is compiled together with the core, except to fill the table.
 *
 * Members are only ever appended, and each append raises PYRT_ABI_MINOR. What a member does, and whether it blocks, is said
 * where the function of the same name is declared; all but the GIL-bound are callable with and without the GIL, and the
 * block hooks (block.h) let go of it around every real sleep.
 */
#ifndef PYRUNTIME_CAPI_TABLE_H
#define PYRUNTIME_CAPI_TABLE_H

#include "config.h"
#include "status.h"
#include <sys/types.h>

PYRT_BEGIN_DECLS

typedef struct pyrt_block_hooks pyrt_block_hooks;
typedef struct pyrt_condition pyrt_condition;
typedef struct pyrt_ended_memory pyrt_ended_memory;
typedef struct pyrt_event pyrt_event;
typedef struct pyrt_critical_section pyrt_critical_section;
typedef struct pyrt_critical_section2 pyrt_critical_section2;
typedef struct pyrt_heap pyrt_heap;
typedef struct pyrt_heap_config pyrt_heap_config;
typedef struct pyrt_interp_config pyrt_interp_config;
typedef struct pyrt_lock_debug_stats pyrt_lock_debug_stats;
typedef struct pyrt_lock_hold pyrt_lock_hold;
typedef struct pyrt_memory_stats pyrt_memory_stats;
typedef struct pyrt_mutex pyrt_mutex;
typedef struct pyrt_object pyrt_object;
typedef struct pyrt_object_info pyrt_object_info;
typedef struct pyrt_object_stats pyrt_object_stats;
typedef struct pyrt_once pyrt_once;
typedef struct pyrt_pause_stats pyrt_pause_stats;
typedef struct pyrt_recursive_mutex pyrt_recursive_mutex;
typedef struct pyrt_requeued pyrt_requeued;
typedef struct pyrt_retire_node pyrt_retire_node;
typedef struct pyrt_rwlock pyrt_rwlock;
typedef struct pyrt_seqlock pyrt_seqlock;
typedef struct pyrt_stall_report pyrt_stall_report;
typedef struct pyrt_stop_report pyrt_stop_report;
typedef struct pyrt_striped_lock pyrt_striped_lock;
typedef struct pyrt_striped_lock_config pyrt_striped_lock_config;
typedef struct pyrt_striped_lock_stats pyrt_striped_lock_stats;
typedef struct pyrt_thread_info pyrt_thread_info;
typedef struct pyrt_type pyrt_type;
typedef struct pyrt_type_spec pyrt_type_spec;
typedef struct pyrt_unparked pyrt_unparked;
typedef struct pyrt_weakref pyrt_weakref;

typedef struct pyrt_capi {
    uint32_t abi_major;
    uint32_t abi_minor;
    size_t struct_size;
    ptrdiff_t tls_offset; /* of the thread-local block (current.h) from the thread pointer, the same in every thread */
    /* status.h */
    const char *(*strerror)(pyrt_status status);
    const char *(*version)(void);
    void (*set_report_hook)(void (*hook)(const char *message, void *arg), void *arg);
    /* block.h */
    void (*set_block_hooks)(const pyrt_block_hooks *hooks_or_null);
    /* thread.h */
    pyrt_status (*runtime_init)(void);
    pyrt_status (*runtime_fini)(void);
    bool (*runtime_is_initialized)(void);
    pyrt_interp *(*interp_main)(void);
    pyrt_interp *(*interp_new)(const pyrt_interp_config *or_null);
    pyrt_status (*interp_delete)(pyrt_interp *interp);
    int64_t (*interp_id)(const pyrt_interp *interp);
    const char *(*interp_name)(const pyrt_interp *interp);
    int (*interp_whence)(const pyrt_interp *interp);
    pyrt_interp *(*interp_pin)(int64_t id);
    void (*interp_unpin)(pyrt_interp *interp);
    size_t (*interp_list)(int64_t *ids, size_t capacity);
    pyrt_thread *(*thread_new)(pyrt_interp *interp);
    void (*thread_delete)(pyrt_thread *thread);
    pyrt_thread *(*thread_ensure)(pyrt_interp *interp);
    void (*thread_release)(pyrt_thread *thread);
    pyrt_thread *(*thread_find)(pyrt_interp *interp);
    void (*thread_set_name)(pyrt_thread *thread, const char *name);
    size_t (*thread_list)(pyrt_interp *interp, pyrt_thread_info *out, size_t capacity);
    void (*attach_slow)(pyrt_thread *thread);
    void (*detach_slow)(pyrt_thread *thread);
    void (*detach_answer)(pyrt_thread *thread);
    void (*safepoint_slow)(pyrt_thread *thread);
    int (*thread_slot_new)(pyrt_status (*init)(void *), void (*exit)(void *), int order);
    void *(*thread_slot)(pyrt_thread *thread, int slot);
    /* qsbr.h */
    uint64_t (*qsbr_advance)(pyrt_interp *interp);
    bool (*qsbr_poll)(pyrt_thread *thread, uint64_t goal);
    pyrt_status (*qsbr_synchronize)(pyrt_thread *or_null);
    pyrt_status (*qsbr_synchronize_timed)(pyrt_thread *or_null, int64_t timeout_ns);
    void (*qsbr_quiescent_slow)(pyrt_thread *thread);
    void (*read_begin_counted)(pyrt_thread *thread);
    void (*read_end_counted)(pyrt_thread *thread);
    pyrt_status (*qsbr_stall_report)(pyrt_interp *interp, pyrt_stall_report *out);
    size_t (*qsbr_stats_read)(pyrt_interp *interp, uint64_t *values, size_t capacity);
    const char *(*qsbr_stats_name)(size_t n);
    /* retire.h */
    pyrt_status (*retire_slow)(pyrt_thread *or_null, void *p, size_t bytes, void (*dispose)(void *));
    pyrt_status (*retire_call)(pyrt_thread *or_null, void (*fn)(void *p, void *arg), void *p, void *arg, size_t bytes);
    pyrt_status (*retire_global)(void *p, size_t bytes, void (*dispose)(void *));
    void (*retire_embedded)(pyrt_thread *or_null, pyrt_retire_node *embedded, size_t bytes,
                            void (*dispose)(pyrt_retire_node *));
    size_t (*process_delayed)(pyrt_thread *thread);
    pyrt_status (*qsbr_barrier)(pyrt_thread *or_null);
    pyrt_status (*qsbr_barrier_timed)(pyrt_thread *or_null, int64_t timeout_ns);
    pyrt_status (*retire_set_bound)(pyrt_interp *interp, size_t items, size_t bytes);
    /* stop_the_world.h */
    pyrt_status (*stop_the_world)(pyrt_interp *or_null);
    pyrt_status (*stop_the_world_timed)(pyrt_interp *or_null, int64_t timeout_ns, pyrt_stop_report *report_or_null);
    void (*start_the_world)(pyrt_interp *or_null);
    bool (*world_is_stopped)(pyrt_interp *or_null);
    pyrt_status (*stop_the_world_stats)(pyrt_interp *or_null, pyrt_pause_stats *out);
    /* fork.h */
    pid_t (*fork)(void);
    /* parking_lot.h */
    uint32_t *parking_cells; /* PYRT_PARKING_CELLS of them */
    pyrt_status (*park)(const void *address, bool (*validate)(void *arg), bool (*before_sleep)(void *arg), void *arg,
                        int64_t timeout_ns, unsigned flags, uintptr_t *token);
    bool (*unpark_one)(const void *address, uintptr_t (*callback)(const pyrt_unparked *, void *arg), void *arg);
    size_t (*unpark_all)(const void *address, uintptr_t token);
    pyrt_requeued (*requeue)(const void *from, const void *to, size_t wake, size_t move, uintptr_t token,
                             bool (*validate)(void *arg), void *arg);
    size_t (*parked_count)(const void *address);
    bool (*park_is_reading)(const char *function);
    /* mutex.h */
    void (*mutex_lock_slow)(pyrt_mutex *mutex);
    bool (*mutex_trylock_slow)(pyrt_mutex *mutex);
    void (*mutex_unlock_slow)(pyrt_mutex *mutex);
    void (*mutex_wake)(const pyrt_mutex *address_only);
    pyrt_status (*mutex_lock_timed)(pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags);
    void (*mutex_at_fork_reinit)(pyrt_mutex *mutex);
    /* striped_lock.h */
    pyrt_status (*striped_lock_init)(pyrt_striped_lock *lock, size_t stripes);
    pyrt_status (*striped_lock_init_config)(pyrt_striped_lock *lock, const pyrt_striped_lock_config *config);
    size_t (*striped_lock_bytes)(size_t stripes, uint32_t flags);
    void (*striped_lock_fini)(pyrt_striped_lock *lock);
    void (*striped_lock_at_fork_reinit)(pyrt_striped_lock *lock);
    pyrt_status (*striped_lock_name)(pyrt_striped_lock *lock, const char *name);
    pyrt_status (*striped_lock_keys)(pyrt_striped_lock *lock, const void *const *keys, size_t n);
    pyrt_status (*striped_lock_hashes)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n);
    pyrt_status (*striped_lock_keys_timed)(pyrt_striped_lock *lock, const void *const *keys, size_t n, int64_t timeout_ns,
                                           unsigned flags);
    pyrt_status (*striped_lock_hashes_timed)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n, int64_t timeout_ns,
                                             unsigned flags);
    bool (*striped_trylock_keys)(pyrt_striped_lock *lock, const void *const *keys, size_t n);
    bool (*striped_trylock_hashes)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n);
    void (*striped_unlock_keys)(pyrt_striped_lock *lock, const void *const *keys, size_t n);
    void (*striped_unlock_hashes)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n);
    pyrt_status (*striped_lock_all)(pyrt_striped_lock *lock);
    pyrt_status (*striped_lock_all_timed)(pyrt_striped_lock *lock, int64_t timeout_ns, unsigned flags);
    bool (*striped_trylock_all)(pyrt_striped_lock *lock);
    void (*striped_unlock_all)(pyrt_striped_lock *lock);
    uint64_t (*striped_lock_waits)(const pyrt_striped_lock *lock, size_t stripe);
    pyrt_status (*striped_lock_stats_read)(const pyrt_striped_lock *lock, pyrt_striped_lock_stats *out);
    void (*striped_lock_slow)(pyrt_striped_lock *lock, size_t stripe);
    /* lock_debug.h */
    pyrt_status (*lock_debug)(bool on);
    pyrt_status (*lock_name)(pyrt_mutex *mutex, const char *name);
    pyrt_status (*lock_name_class)(pyrt_mutex *mutex, const char *name);
    pyrt_status (*lock_name_array)(pyrt_mutex *first, size_t count, size_t stride, const char *name);
    void (*lock_forget)(const void *memory, size_t bytes);
    size_t (*lock_holds)(pyrt_lock_hold *out, size_t capacity);
    pyrt_status (*lock_holder)(const void *lock, pyrt_lock_hold *out);
    size_t (*lock_report)(void);
    void (*lock_debug_set_bound)(int64_t attached_wait_ns);
    pyrt_status (*lock_debug_stats_read)(pyrt_lock_debug_stats *out);
    /* event.h */
    void (*event_wait_slow)(pyrt_event *event);
    void (*event_set)(pyrt_event *event);
    void (*event_clear)(pyrt_event *event);
    pyrt_status (*event_wait_timed)(pyrt_event *event, int64_t timeout_ns, unsigned flags);
    void (*event_at_fork_reinit)(pyrt_event *event);
    /* once.h */
    pyrt_status (*once_call_slow)(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg);
    pyrt_status (*once_call_timed)(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg, int64_t timeout_ns,
                                   unsigned flags);
    void (*once_at_fork_reinit)(pyrt_once *once);
    /* recursive_mutex.h */
    void (*recursive_mutex_unlock_slow)(pyrt_recursive_mutex *mutex);
    pyrt_status (*recursive_mutex_lock_timed)(pyrt_recursive_mutex *mutex, int64_t timeout_ns, unsigned flags);
    void (*recursive_mutex_at_fork_reinit)(pyrt_recursive_mutex *mutex);
    /* rwlock.h */
    pyrt_status (*rwlock_read_lock_slow)(pyrt_rwlock *lock);
    bool (*rwlock_read_trylock_slow)(pyrt_rwlock *lock);
    void (*rwlock_read_unlock_slow)(pyrt_rwlock *lock);
    void (*rwlock_wake)(const pyrt_rwlock *address_only);
    pyrt_status (*rwlock_write_lock)(pyrt_rwlock *lock);
    bool (*rwlock_write_trylock)(pyrt_rwlock *lock);
    void (*rwlock_write_unlock)(pyrt_rwlock *lock);
    pyrt_status (*rwlock_read_lock_timed)(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags);
    pyrt_status (*rwlock_write_lock_timed)(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags);
    size_t (*rwlock_readers)(const pyrt_rwlock *lock);
    size_t (*rwlock_waiters)(const pyrt_rwlock *lock);
    void (*rwlock_at_fork_reinit)(pyrt_rwlock *lock);
    /* seqlock.h */
    uint64_t (*seqlock_read_begin_slow)(pyrt_seqlock *lock);
    void (*seqlock_write_unlock_slow)(pyrt_seqlock *lock);
    pyrt_status (*seqlock_write_lock_timed)(pyrt_seqlock *lock, int64_t timeout_ns, unsigned flags);
    bool (*seqlock_at_fork_reinit)(pyrt_seqlock *lock);
    /* condition.h */
    size_t (*condition_notify_slow)(pyrt_condition *condition, size_t count);
    pyrt_status (*condition_wait)(pyrt_condition *condition, pyrt_mutex *mutex);
    pyrt_status (*condition_wait_timed)(pyrt_condition *condition, pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags);
    pyrt_status (*condition_wait_recursive)(pyrt_condition *condition, pyrt_recursive_mutex *mutex, int64_t timeout_ns,
                                            unsigned flags);
    void (*condition_at_fork_reinit)(pyrt_condition *condition);
    /* critical_section.h */
    void (*critical_sections_resume)(pyrt_thread *thread);
    void (*critical_section_begin_slow)(pyrt_critical_section *section, pyrt_mutex *mutex);
    void (*critical_section_end_slow)(pyrt_critical_section *section);
    void (*critical_section2_begin_slow)(pyrt_critical_section2 *section, pyrt_mutex *a, pyrt_mutex *b);
    void (*critical_section2_end_slow)(pyrt_critical_section2 *section);
    bool (*critical_section_holds)(const pyrt_mutex *mutex);
    /* heap.h */
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t n, size_t size);
    void *(*realloc)(void *block, size_t size);
    void *(*aligned_alloc)(size_t align, size_t size);
    void (*free)(void *block);
    size_t (*usable_size)(const void *block);
    size_t (*good_size)(size_t size);
    int64_t (*address_owner)(const void *address);
    pyrt_heap *(*heap_new)(pyrt_interp *interp, const pyrt_heap_config *or_null);
    void (*heap_delete)(pyrt_heap *heap);
    void (*heap_destroy)(pyrt_heap *heap);
    void *(*heap_alloc_slow)(pyrt_thread *thread, pyrt_heap *heap, size_t size, bool zero);
    void *(*heap_aligned_alloc)(pyrt_thread *thread, pyrt_heap *heap, size_t align, size_t size);
    void *(*heap_realloc)(pyrt_thread *thread, pyrt_heap *heap, void *block, size_t size);
    pyrt_status (*heap_visit)(pyrt_interp *interp, unsigned tags,
                              bool (*visit)(void *block, size_t size, uint8_t tag, void *arg), void *arg);
    void (*interp_memory_stats)(pyrt_interp *or_null, pyrt_memory_stats *out);
    pyrt_status (*heap_debug)(unsigned flags);
    /* current.h */
    const void *(*os_thread_identity_new)(void);
    /* thread.h */
    pyrt_status (*attach_timed)(pyrt_thread *thread, int64_t timeout_ns, unsigned flags);
    pyrt_status (*thread_ensure_timed)(pyrt_interp *interp, int64_t timeout_ns, unsigned flags, pyrt_thread **out);
    /* object.h */
    pyrt_type *(*type_new)(pyrt_interp *interp, const pyrt_type_spec *spec);
    const char *(*type_name)(const pyrt_type *type);
    pyrt_object *(*object_new)(pyrt_thread *thread, pyrt_type *type);
    pyrt_object *(*object_new_var)(pyrt_thread *thread, pyrt_type *type, size_t n);
    void (*set_immortal)(pyrt_object *object);
    void (*set_deferred)(pyrt_object *object);
    void (*clear_deferred)(pyrt_object *object);
    void (*merge_refcounts)(pyrt_thread *thread);
    int64_t (*refcount)(const pyrt_object *object);
    void (*object_look)(const pyrt_object *object, pyrt_object_info *out);
    void (*object_trace)(pyrt_object *object, bool on);
    void (*object_stats_read)(pyrt_interp *interp, pyrt_object_stats *out);
    /* refcount.h */
    void (*incref_slow)(pyrt_object *object);
    void (*decref_slow)(pyrt_object *object);
    void (*decref_last_local)(pyrt_object *object);
    bool (*try_incref_slow)(pyrt_object *object);
    void (*enable_try_incref_slow)(pyrt_object *object);
    /* unique_id.h */
    void (*count_by_id_slow)(pyrt_thread *thread, pyrt_object *object, uint32_t id, int32_t n);
    pyrt_status (*unique_id_new)(pyrt_interp *interp, pyrt_object *object, uint32_t *field);
    int64_t (*merge_unique_counts)(pyrt_interp *interp);
    /* weakref.h */
    pyrt_weakref *(*weakref_new)(pyrt_thread *thread, pyrt_object *object, int (*callback)(pyrt_weakref *, void *arg),
                                 void *arg);
    pyrt_object *(*weakref_get_slow)(pyrt_weakref *weak);
    size_t (*weakref_count)(const pyrt_object *object);
    pyrt_status (*weakref_hash)(pyrt_weakref *weak, int64_t (*hash)(pyrt_object *), int64_t *out);
    /* heap.h */
    pyrt_status (*ended_memory_next)(uint64_t *place, pyrt_ended_memory *out);
} pyrt_capi;

#if defined(PYRT_USE_CAPI)
/* One pointer for each shared object: weak, so that its source files share it; hidden, so that two objects do not. */
__attribute__((weak, visibility("hidden"))) const pyrt_capi *pyrt_capi_pointer;
#endif

PYRT_END_DECLS
#endif /* PYRUNTIME_CAPI_TABLE_H */

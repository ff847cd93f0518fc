/* SPDX-License-Identifier: MIT
 *
 * capi_table.h -- the layout of the function table. Included by config.h when <pyruntime/capi.h> came first; do not
 * include it by itself in code that is compiled together with the core, except to fill the table.
 *
 * Members are only ever appended, and each append raises PYRT_ABI_MINOR. What a member does is said where the function of the
 * same name is declared; behind it stands here what it has to do with Python's GIL:
 *
 *   no GIL              it may be called with the GIL and without it, and comes back at once
 *   no GIL; shortly     the same, but it may wait for a lock of the library that is held for some instructions at a time
 *   no GIL; may block   the same, but it may sleep, for which the block hooks (block.h) let go of the GIL
 *
 * None needs the GIL.
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

/* What inline code relies on, by a name for people (layout.h). */
typedef struct pyrt_layout_item {
    const char *what;
    uint64_t value;
} pyrt_layout_item;

typedef struct pyrt_capi {
    uint32_t abi_major;
    uint32_t abi_minor;
    size_t struct_size;
    ptrdiff_t tls_offset; /* of the thread-local block (current.h) from the thread pointer, the same in every thread */
    /* status.h */
    const char *(*strerror)(pyrt_status status); /* no GIL */
    const char *(*version)(void); /* no GIL */
    void (*set_report_hook)(void (*hook)(const char *message, void *arg), void *arg); /* no GIL */
    /* block.h */
    void (*set_block_hooks)(const pyrt_block_hooks *hooks_or_null); /* no GIL */
    /* thread.h */
    pyrt_status (*runtime_init)(void); /* no GIL; shortly */
    pyrt_status (*runtime_fini)(void); /* no GIL */
    bool (*runtime_is_initialized)(void); /* no GIL */
    pyrt_interp *(*interp_main)(void); /* no GIL */
    pyrt_interp *(*interp_new)(const pyrt_interp_config *or_null); /* no GIL; shortly */
    pyrt_status (*interp_delete)(pyrt_interp *interp); /* no GIL; shortly */
    int64_t (*interp_id)(const pyrt_interp *interp); /* no GIL */
    const char *(*interp_name)(const pyrt_interp *interp); /* no GIL */
    int (*interp_whence)(const pyrt_interp *interp); /* no GIL */
    pyrt_interp *(*interp_pin)(int64_t id); /* no GIL; shortly */
    void (*interp_unpin)(pyrt_interp *interp); /* no GIL; shortly */
    size_t (*interp_list)(int64_t *ids, size_t capacity); /* no GIL; shortly */
    pyrt_thread *(*thread_new)(pyrt_interp *interp); /* no GIL; shortly */
    void (*thread_delete)(pyrt_thread *thread); /* no GIL; may block */
    pyrt_thread *(*thread_ensure)(pyrt_interp *interp); /* no GIL; may block */
    void (*thread_release)(pyrt_thread *thread); /* no GIL; may block */
    pyrt_thread *(*thread_find)(pyrt_interp *interp); /* no GIL */
    void (*thread_set_name)(pyrt_thread *thread, const char *name); /* no GIL; shortly */
    size_t (*thread_list)(pyrt_interp *interp, pyrt_thread_info *out, size_t capacity); /* no GIL; shortly */
    void (*attach_slow)(pyrt_thread *thread); /* no GIL; may block */
    void (*detach_slow)(pyrt_thread *thread); /* no GIL */
    void (*detach_answer)(pyrt_thread *thread); /* no GIL */
    void (*safepoint_slow)(pyrt_thread *thread); /* no GIL; may block */
    int (*thread_slot_new)(pyrt_status (*init)(void *), void (*exit)(void *), int order); /* no GIL; shortly */
    void *(*thread_slot)(pyrt_thread *thread, int slot); /* no GIL */
    /* qsbr.h */
    uint64_t (*qsbr_advance)(pyrt_interp *interp); /* no GIL */
    bool (*qsbr_poll)(pyrt_thread *thread, uint64_t goal); /* no GIL */
    pyrt_status (*qsbr_synchronize)(pyrt_thread *or_null); /* no GIL; may block */
    pyrt_status (*qsbr_synchronize_timed)(pyrt_thread *or_null, int64_t timeout_ns); /* no GIL; may block */
    void (*qsbr_quiescent_slow)(pyrt_thread *thread); /* no GIL */
    void (*read_begin_counted)(pyrt_thread *thread); /* no GIL */
    void (*read_end_counted)(pyrt_thread *thread); /* no GIL */
    pyrt_status (*qsbr_stall_report)(pyrt_interp *interp, pyrt_stall_report *out); /* no GIL; shortly */
    size_t (*qsbr_stats_read)(pyrt_interp *interp, uint64_t *values, size_t capacity); /* no GIL; shortly */
    const char *(*qsbr_stats_name)(size_t n); /* no GIL */
    /* retire.h */
    pyrt_status (*retire_slow)(pyrt_thread *or_null, void *p, size_t bytes, void (*dispose)(void *)); /* no GIL; shortly */
    pyrt_status (*retire_call)(pyrt_thread *or_null, void (*fn)(void *p, void *arg), void *p, void *arg,
                               size_t bytes); /* no GIL; shortly */
    pyrt_status (*retire_global)(void *p, size_t bytes, void (*dispose)(void *)); /* no GIL; shortly */
    void (*retire_embedded)(pyrt_thread *or_null, pyrt_retire_node *embedded, size_t bytes,
                            void (*dispose)(pyrt_retire_node *)); /* no GIL; shortly */
    size_t (*process_delayed)(pyrt_thread *thread); /* no GIL; may block */
    pyrt_status (*qsbr_barrier)(pyrt_thread *or_null); /* no GIL; may block */
    pyrt_status (*qsbr_barrier_timed)(pyrt_thread *or_null, int64_t timeout_ns); /* no GIL; may block */
    pyrt_status (*retire_set_bound)(pyrt_interp *interp, size_t items, size_t bytes); /* no GIL */
    /* stop_the_world.h */
    pyrt_status (*stop_the_world)(pyrt_interp *or_null); /* no GIL; may block */
    pyrt_status (*stop_the_world_timed)(pyrt_interp *or_null, int64_t timeout_ns,
                                        pyrt_stop_report *report_or_null); /* no GIL; may block */
    void (*start_the_world)(pyrt_interp *or_null); /* no GIL; may block */
    bool (*world_is_stopped)(pyrt_interp *or_null); /* no GIL; shortly */
    pyrt_status (*stop_the_world_stats)(pyrt_interp *or_null, pyrt_pause_stats *out); /* no GIL */
    /* fork.h */
    pid_t (*fork)(void); /* no GIL; may block */
    /* parking_lot.h */
    uint32_t *parking_cells; /* PYRT_PARKING_CELLS of them */
    pyrt_status (*park)(const void *address, bool (*validate)(void *arg), bool (*before_sleep)(void *arg), void *arg,
                        int64_t timeout_ns, unsigned flags, uintptr_t *token); /* no GIL; may block */
    bool (*unpark_one)(const void *address, uintptr_t (*callback)(const pyrt_unparked *, void *arg),
                       void *arg); /* no GIL; shortly */
    size_t (*unpark_all)(const void *address, uintptr_t token); /* no GIL; shortly */
    pyrt_requeued (*requeue)(const void *from, const void *to, size_t wake, size_t move, uintptr_t token,
                             bool (*validate)(void *arg), void *arg); /* no GIL; shortly */
    size_t (*parked_count)(const void *address); /* no GIL; shortly */
    bool (*park_is_reading)(const char *function); /* no GIL */
    /* mutex.h */
    void (*mutex_lock_slow)(pyrt_mutex *mutex); /* no GIL; may block */
    bool (*mutex_trylock_slow)(pyrt_mutex *mutex); /* no GIL */
    void (*mutex_unlock_slow)(pyrt_mutex *mutex); /* no GIL; shortly */
    void (*mutex_wake)(const pyrt_mutex *address_only); /* no GIL; shortly */
    pyrt_status (*mutex_lock_timed)(pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags); /* no GIL; may block */
    void (*mutex_at_fork_reinit)(pyrt_mutex *mutex); /* no GIL */
    /* striped_lock.h */
    pyrt_status (*striped_lock_init)(pyrt_striped_lock *lock, size_t stripes); /* no GIL */
    pyrt_status (*striped_lock_init_config)(pyrt_striped_lock *lock, const pyrt_striped_lock_config *config); /* no GIL */
    size_t (*striped_lock_bytes)(size_t stripes, uint32_t flags); /* no GIL */
    void (*striped_lock_fini)(pyrt_striped_lock *lock); /* no GIL */
    void (*striped_lock_at_fork_reinit)(pyrt_striped_lock *lock); /* no GIL */
    pyrt_status (*striped_lock_name)(pyrt_striped_lock *lock, const char *name); /* no GIL; shortly */
    pyrt_status (*striped_lock_keys)(pyrt_striped_lock *lock, const void *const *keys, size_t n); /* no GIL; may block */
    pyrt_status (*striped_lock_hashes)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n); /* no GIL; may block */
    pyrt_status (*striped_lock_keys_timed)(pyrt_striped_lock *lock, const void *const *keys, size_t n, int64_t timeout_ns,
                                           unsigned flags); /* no GIL; may block */
    pyrt_status (*striped_lock_hashes_timed)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n, int64_t timeout_ns,
                                             unsigned flags); /* no GIL; may block */
    bool (*striped_trylock_keys)(pyrt_striped_lock *lock, const void *const *keys, size_t n); /* no GIL */
    bool (*striped_trylock_hashes)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n); /* no GIL */
    void (*striped_unlock_keys)(pyrt_striped_lock *lock, const void *const *keys, size_t n); /* no GIL; shortly */
    void (*striped_unlock_hashes)(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n); /* no GIL; shortly */
    pyrt_status (*striped_lock_all)(pyrt_striped_lock *lock); /* no GIL; may block */
    pyrt_status (*striped_lock_all_timed)(pyrt_striped_lock *lock, int64_t timeout_ns,
                                          unsigned flags); /* no GIL; may block */
    bool (*striped_trylock_all)(pyrt_striped_lock *lock); /* no GIL */
    void (*striped_unlock_all)(pyrt_striped_lock *lock); /* no GIL; shortly */
    uint64_t (*striped_lock_waits)(const pyrt_striped_lock *lock, size_t stripe); /* no GIL */
    pyrt_status (*striped_lock_stats_read)(const pyrt_striped_lock *lock, pyrt_striped_lock_stats *out); /* no GIL */
    void (*striped_lock_slow)(pyrt_striped_lock *lock, size_t stripe); /* no GIL; may block */
    /* lock_debug.h */
    pyrt_status (*lock_debug)(bool on); /* no GIL; shortly */
    pyrt_status (*lock_name)(pyrt_mutex *mutex, const char *name); /* no GIL; shortly */
    pyrt_status (*lock_name_class)(pyrt_mutex *mutex, const char *name); /* no GIL; shortly */
    pyrt_status (*lock_name_array)(pyrt_mutex *first, size_t count, size_t stride, const char *name); /* no GIL; shortly */
    void (*lock_forget)(const void *memory, size_t bytes); /* no GIL; shortly */
    size_t (*lock_holds)(pyrt_lock_hold *out, size_t capacity); /* no GIL; shortly */
    pyrt_status (*lock_holder)(const void *lock, pyrt_lock_hold *out); /* no GIL; shortly */
    size_t (*lock_report)(void); /* no GIL; shortly */
    void (*lock_debug_set_bound)(int64_t attached_wait_ns); /* no GIL */
    pyrt_status (*lock_debug_stats_read)(pyrt_lock_debug_stats *out); /* no GIL; shortly */
    /* event.h */
    void (*event_wait_slow)(pyrt_event *event); /* no GIL; may block */
    void (*event_set)(pyrt_event *event); /* no GIL; shortly */
    void (*event_clear)(pyrt_event *event); /* no GIL */
    pyrt_status (*event_wait_timed)(pyrt_event *event, int64_t timeout_ns, unsigned flags); /* no GIL; may block */
    void (*event_at_fork_reinit)(pyrt_event *event); /* no GIL */
    /* once.h */
    pyrt_status (*once_call_slow)(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg); /* no GIL; may block */
    pyrt_status (*once_call_timed)(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg, int64_t timeout_ns,
                                   unsigned flags); /* no GIL; may block */
    void (*once_at_fork_reinit)(pyrt_once *once); /* no GIL */
    /* recursive_mutex.h */
    void (*recursive_mutex_unlock_slow)(pyrt_recursive_mutex *mutex); /* no GIL; shortly */
    pyrt_status (*recursive_mutex_lock_timed)(pyrt_recursive_mutex *mutex, int64_t timeout_ns,
                                              unsigned flags); /* no GIL; may block */
    void (*recursive_mutex_at_fork_reinit)(pyrt_recursive_mutex *mutex); /* no GIL */
    /* rwlock.h */
    pyrt_status (*rwlock_read_lock_slow)(pyrt_rwlock *lock); /* no GIL; may block */
    bool (*rwlock_read_trylock_slow)(pyrt_rwlock *lock); /* no GIL */
    void (*rwlock_read_unlock_slow)(pyrt_rwlock *lock); /* no GIL; shortly */
    void (*rwlock_wake)(const pyrt_rwlock *address_only); /* no GIL; shortly */
    pyrt_status (*rwlock_write_lock)(pyrt_rwlock *lock); /* no GIL; may block */
    bool (*rwlock_write_trylock)(pyrt_rwlock *lock); /* no GIL */
    void (*rwlock_write_unlock)(pyrt_rwlock *lock); /* no GIL; shortly */
    pyrt_status (*rwlock_read_lock_timed)(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags); /* no GIL; may block */
    pyrt_status (*rwlock_write_lock_timed)(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags); /* no GIL; may block */
    size_t (*rwlock_readers)(const pyrt_rwlock *lock); /* no GIL */
    size_t (*rwlock_waiters)(const pyrt_rwlock *lock); /* no GIL; shortly */
    void (*rwlock_at_fork_reinit)(pyrt_rwlock *lock); /* no GIL */
    /* seqlock.h */
    uint64_t (*seqlock_read_begin_slow)(pyrt_seqlock *lock); /* no GIL; may block */
    void (*seqlock_write_unlock_slow)(pyrt_seqlock *lock); /* no GIL; shortly */
    pyrt_status (*seqlock_write_lock_timed)(pyrt_seqlock *lock, int64_t timeout_ns, unsigned flags); /* no GIL; may block */
    bool (*seqlock_at_fork_reinit)(pyrt_seqlock *lock); /* no GIL */
    /* condition.h */
    size_t (*condition_notify_slow)(pyrt_condition *condition, size_t count); /* no GIL; shortly */
    pyrt_status (*condition_wait)(pyrt_condition *condition, pyrt_mutex *mutex); /* no GIL; may block */
    pyrt_status (*condition_wait_timed)(pyrt_condition *condition, pyrt_mutex *mutex, int64_t timeout_ns,
                                        unsigned flags); /* no GIL; may block */
    pyrt_status (*condition_wait_recursive)(pyrt_condition *condition, pyrt_recursive_mutex *mutex, int64_t timeout_ns,
                                            unsigned flags); /* no GIL; may block */
    void (*condition_at_fork_reinit)(pyrt_condition *condition); /* no GIL */
    /* critical_section.h */
    void (*critical_sections_resume)(pyrt_thread *thread); /* no GIL; may block */
    void (*critical_section_begin_slow)(pyrt_critical_section *section, pyrt_mutex *mutex); /* no GIL; may block */
    void (*critical_section_end_slow)(pyrt_critical_section *section); /* no GIL; may block */
    void (*critical_section2_begin_slow)(pyrt_critical_section2 *section, pyrt_mutex *a,
                                         pyrt_mutex *b); /* no GIL; may block */
    void (*critical_section2_end_slow)(pyrt_critical_section2 *section); /* no GIL; may block */
    bool (*critical_section_holds)(const pyrt_mutex *mutex); /* no GIL */
    /* heap.h */
    void *(*malloc)(size_t size); /* no GIL; shortly */
    void *(*calloc)(size_t n, size_t size); /* no GIL; shortly */
    void *(*realloc)(void *block, size_t size); /* no GIL; shortly */
    void *(*aligned_alloc)(size_t align, size_t size); /* no GIL; shortly */
    void (*free)(void *block); /* no GIL; shortly */
    size_t (*usable_size)(const void *block); /* no GIL */
    size_t (*good_size)(size_t size); /* no GIL */
    int64_t (*address_owner)(const void *address); /* no GIL */
    pyrt_heap *(*heap_new)(pyrt_interp *interp, const pyrt_heap_config *or_null); /* no GIL; shortly */
    void (*heap_delete)(pyrt_heap *heap); /* no GIL; shortly */
    void (*heap_destroy)(pyrt_heap *heap); /* no GIL; shortly */
    void *(*heap_alloc_slow)(pyrt_thread *thread, pyrt_heap *heap, size_t size, bool zero); /* no GIL; shortly */
    void *(*heap_aligned_alloc)(pyrt_thread *thread, pyrt_heap *heap, size_t align, size_t size); /* no GIL; shortly */
    void *(*heap_realloc)(pyrt_thread *thread, pyrt_heap *heap, void *block, size_t size); /* no GIL; shortly */
    pyrt_status (*heap_visit)(pyrt_interp *interp, unsigned tags,
                              bool (*visit)(void *block, size_t size, uint8_t tag, void *arg), void *arg); /* no GIL */
    void (*interp_memory_stats)(pyrt_interp *or_null, pyrt_memory_stats *out); /* no GIL; shortly */
    pyrt_status (*heap_debug)(unsigned flags); /* no GIL */
    /* current.h */
    const void *(*os_thread_identity_new)(void); /* no GIL; may block */
    /* thread.h */
    pyrt_status (*attach_timed)(pyrt_thread *thread, int64_t timeout_ns, unsigned flags); /* no GIL; may block */
    pyrt_status (*thread_ensure_timed)(pyrt_interp *interp, int64_t timeout_ns, unsigned flags,
                                       pyrt_thread **out); /* no GIL; may block */
    /* object.h */
    pyrt_type *(*type_new)(pyrt_interp *interp, const pyrt_type_spec *spec); /* no GIL; may block */
    const char *(*type_name)(const pyrt_type *type); /* no GIL */
    pyrt_object *(*object_new)(pyrt_thread *thread, pyrt_type *type); /* no GIL; shortly */
    pyrt_object *(*object_new_var)(pyrt_thread *thread, pyrt_type *type, size_t n); /* no GIL; shortly */
    void (*set_immortal)(pyrt_object *object); /* no GIL; shortly */
    void (*set_deferred)(pyrt_object *object); /* no GIL; shortly */
    void (*clear_deferred)(pyrt_object *object); /* no GIL; shortly */
    void (*merge_refcounts)(pyrt_thread *thread); /* no GIL */
    int64_t (*refcount)(const pyrt_object *object); /* no GIL */
    void (*object_look)(const pyrt_object *object, pyrt_object_info *out); /* no GIL */
    void (*object_trace)(pyrt_object *object, bool on); /* no GIL; shortly */
    void (*object_stats_read)(pyrt_interp *interp, pyrt_object_stats *out); /* no GIL; shortly */
    /* refcount.h */
    void (*incref_slow)(pyrt_object *object); /* no GIL */
    void (*decref_slow)(pyrt_object *object); /* no GIL; shortly */
    void (*decref_last_local)(pyrt_object *object); /* no GIL; shortly */
    bool (*try_incref_slow)(pyrt_object *object); /* no GIL */
    void (*enable_try_incref_slow)(pyrt_object *object); /* no GIL */
    /* unique_id.h */
    void (*count_by_id_slow)(pyrt_thread *thread, pyrt_object *object, uint32_t id, int32_t n); /* no GIL */
    pyrt_status (*unique_id_new)(pyrt_interp *interp, pyrt_object *object, uint32_t *field); /* no GIL; shortly */
    int64_t (*merge_unique_counts)(pyrt_interp *interp); /* no GIL; may block */
    /* weakref.h */
    pyrt_weakref *(*weakref_new)(pyrt_thread *thread, pyrt_object *object, int (*callback)(pyrt_weakref *, void *arg),
                                 void *arg); /* no GIL; shortly */
    pyrt_object *(*weakref_get_slow)(pyrt_weakref *weak); /* no GIL; shortly */
    size_t (*weakref_count)(const pyrt_object *object); /* no GIL; shortly */
    pyrt_status (*weakref_hash)(pyrt_weakref *weak, int64_t (*hash)(pyrt_object *), int64_t *out); /* no GIL; shortly */
    /* heap.h */
    pyrt_status (*ended_memory_next)(uint64_t *place, pyrt_ended_memory *out); /* no GIL; shortly */
    /* layout.h */
    size_t layout_items;
    const pyrt_layout_item *layout;
    /* refcount.h */
    void (*decref_taken)(pyrt_object *object, bool last); /* no GIL; shortly */
} pyrt_capi;

/* How long the table is in a minor version of this major one, for each that there has been. */
#define PYRT_CAPI_SIZE(minor)                           \
    ((minor) >= 3   ? sizeof(pyrt_capi)                 \
     : (minor) == 2 ? offsetof(pyrt_capi, decref_taken) \
                    : offsetof(pyrt_capi, ended_memory_next))

/* The table of the core that is compiled into the calling object. Nothing has to be initialised; never NULL, never freed.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
const pyrt_capi *pyrt_capi_own(void);

#if defined(PYRT_USE_CAPI)
/* One of each for each shared object: weak, so that its source files share them; hidden, so that two objects do not. The second is
 * that of the table, which every inline function would have to look up there; until there is one it leads nowhere, so that who has
 * forgotten to import fails at once. pyrt_capi_use (capi.h) sets both. */
#    define PYRT_CAPI_NO_TLS ((intptr_t)1 << 62)
__attribute__((weak, visibility("hidden"))) const pyrt_capi *pyrt_capi_pointer;
__attribute__((weak, visibility("hidden"))) intptr_t pyrt_capi_tls_offset = PYRT_CAPI_NO_TLS;
#endif

PYRT_END_DECLS
#endif /* PYRUNTIME_CAPI_TABLE_H */

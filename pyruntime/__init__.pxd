"""What the C headers declare, for Cython. Written by csrc/build_pxd.py: do not edit.

    from pyruntime cimport pyruntime_import, pyrt_mutex, pyrt_mutex_lock, pyrt_mutex_unlock

    pyruntime_import()          # once, before anything else

The headers say what each function does. All can be called without the GIL. A function that is handed over is
`noexcept nogil`, or `noexcept with gil`. Compile with include_dirs=[pyruntime.get_include()].
"""

from libc.stdint cimport (int8_t, int16_t, int32_t, int64_t, intptr_t,
                          uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t)

cdef extern from "pyruntime/capi.h":
    int pyruntime_import() except -1

cdef extern from "pyruntime/capi.h" nogil:
    ctypedef bint pyrt_bool "bool"
    ctypedef int pyrt_pid "pid_t"

    # atomic.h: macros for words of any type, here for pointers. Cast the address of yours.
    void *pyrt_load_acquire(void **p) noexcept
    void pyrt_store_release(void **p, void *value) noexcept
    void *pyrt_exchange_seq_cst(void **p, void *value) noexcept

    ctypedef struct pyrt_interp:
        pass

    ctypedef struct pyrt_thread:
        pass

    ctypedef struct pyrt_backoff_counter:
        uint16_t word

    enum:
        PYRT_BACKOFF_MAX
        PYRT_BACKOFF_UNREACHABLE
        PYRT_BACKOFF_VALUE_MAX

    enum:
        PYRT_BACKOFF_WARMUP_VALUE
        PYRT_BACKOFF_WARMUP_BACKOFF
        PYRT_BACKOFF_COOLDOWN_VALUE
        PYRT_BACKOFF_COOLDOWN_BACKOFF
        PYRT_BACKOFF_JUMP_VALUE
        PYRT_BACKOFF_JUMP_BACKOFF
        PYRT_BACKOFF_EXIT_VALUE
        PYRT_BACKOFF_EXIT_BACKOFF

    pyrt_backoff_counter pyrt_backoff_make(unsigned value, unsigned backoff) noexcept
    unsigned pyrt_backoff_value(pyrt_backoff_counter counter) noexcept
    unsigned pyrt_backoff_backoff(pyrt_backoff_counter counter) noexcept
    pyrt_backoff_counter pyrt_backoff_unreachable() noexcept
    pyrt_bool pyrt_backoff_is_unreachable(pyrt_backoff_counter counter) noexcept
    pyrt_bool pyrt_backoff_triggers(pyrt_backoff_counter counter) noexcept
    pyrt_backoff_counter pyrt_backoff_advance(pyrt_backoff_counter counter) noexcept
    pyrt_backoff_counter pyrt_backoff_pause(pyrt_backoff_counter counter) noexcept
    pyrt_backoff_counter pyrt_backoff_restart(pyrt_backoff_counter counter) noexcept
    pyrt_backoff_counter pyrt_backoff_trigger() noexcept
    pyrt_backoff_counter pyrt_backoff_load(const pyrt_backoff_counter *counter) noexcept
    void pyrt_backoff_store(pyrt_backoff_counter *counter, pyrt_backoff_counter value) noexcept

    ctypedef struct pyrt_block_hooks:
        void *(*before)() noexcept nogil
        void (*after)(void *saved) noexcept nogil

    void pyrt_set_block_hooks(const pyrt_block_hooks *hooks_or_null) noexcept
    const void *pyrt_os_thread_identity() noexcept

    ctypedef enum pyrt_status:
        PYRT_OK
        PYRT_ENOMEM
        PYRT_EINVAL
        PYRT_ESTATE
        PYRT_ETIMEDOUT
        PYRT_EBUSY
        PYRT_ENOTFOUND
        PYRT_EOVERFLOW
        PYRT_ENOTSHAREABLE
        PYRT_EEXIST
        PYRT_EINTR
        PYRT_EDEADLK
        PYRT_ENOTSUP
        PYRT_EVERSION

    const char *pyrt_strerror(pyrt_status status) noexcept
    const char *pyrt_version() noexcept
    void pyrt_set_report_hook(void (*hook)(const char *message, void *arg) noexcept nogil, void *arg) noexcept

    enum:
        PYRT_LOCK_DETACH
        PYRT_LOCK_NO_DETACH
        PYRT_LOCK_INTERRUPTIBLE
        PYRT_PARK_FRONT

    pyrt_status pyrt_park(const void *address, pyrt_bool (*validate)(void *arg) noexcept nogil, pyrt_bool (*before_sleep)(void *arg) noexcept nogil, void *arg, int64_t timeout_ns, unsigned flags, uintptr_t *token) noexcept

    ctypedef struct pyrt_unparked:
        pyrt_bool found
        pyrt_bool more
        void *waiter
        int64_t since

    pyrt_bool pyrt_unpark_one(const void *address, uintptr_t (*callback)(const pyrt_unparked *, void *arg) noexcept nogil, void *arg) noexcept
    size_t pyrt_unpark_all(const void *address, uintptr_t token) noexcept

    ctypedef struct pyrt_requeued:
        size_t woken
        size_t moved

    pyrt_requeued pyrt_requeue(const void *from_, const void *to, size_t wake, size_t move, uintptr_t token, pyrt_bool (*validate)(void *arg) noexcept nogil, void *arg) noexcept
    size_t pyrt_parked_count(const void *address) noexcept
    uint32_t pyrt_parked_near(const void *address) noexcept

    ctypedef struct pyrt_mutex:
        uint8_t state

    pyrt_status pyrt_mutex_lock_timed(pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags) noexcept
    void pyrt_mutex_at_fork_reinit(pyrt_mutex *mutex) noexcept
    void pyrt_mutex_lock(pyrt_mutex *mutex) noexcept
    pyrt_bool pyrt_mutex_trylock(pyrt_mutex *mutex) noexcept
    void pyrt_mutex_unlock(pyrt_mutex *mutex) noexcept
    pyrt_bool pyrt_mutex_is_locked(const pyrt_mutex *mutex) noexcept

    ctypedef struct pyrt_recursive_mutex:
        const void *owner
        size_t depth
        pyrt_mutex mutex

    pyrt_status pyrt_recursive_mutex_lock_timed(pyrt_recursive_mutex *mutex, int64_t timeout_ns, unsigned flags) noexcept
    void pyrt_recursive_mutex_at_fork_reinit(pyrt_recursive_mutex *mutex) noexcept
    pyrt_bool pyrt_recursive_mutex_is_owned(const pyrt_recursive_mutex *mutex) noexcept
    size_t pyrt_recursive_mutex_depth(const pyrt_recursive_mutex *mutex) noexcept
    pyrt_bool pyrt_recursive_mutex_is_locked(const pyrt_recursive_mutex *mutex) noexcept
    void pyrt_recursive_mutex_lock(pyrt_recursive_mutex *mutex) noexcept
    pyrt_bool pyrt_recursive_mutex_trylock(pyrt_recursive_mutex *mutex) noexcept
    void pyrt_recursive_mutex_unlock(pyrt_recursive_mutex *mutex) noexcept

    ctypedef struct pyrt_condition:
        pyrt_mutex *mutex

    pyrt_status pyrt_condition_wait(pyrt_condition *condition, pyrt_mutex *mutex) noexcept
    pyrt_status pyrt_condition_wait_timed(pyrt_condition *condition, pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags) noexcept
    pyrt_status pyrt_condition_wait_recursive(pyrt_condition *condition, pyrt_recursive_mutex *mutex, int64_t timeout_ns, unsigned flags) noexcept
    void pyrt_condition_at_fork_reinit(pyrt_condition *condition) noexcept
    size_t pyrt_condition_notify(pyrt_condition *condition, size_t count) noexcept
    size_t pyrt_condition_notify_one(pyrt_condition *condition) noexcept
    size_t pyrt_condition_notify_all(pyrt_condition *condition) noexcept

    enum:
        PYRT_STATE_DETACHED
        PYRT_STATE_ATTACHED
        PYRT_STATE_SUSPENDED
        PYRT_STATE_SHUTTING_DOWN

    pyrt_status pyrt_runtime_init() noexcept
    pyrt_status pyrt_runtime_fini() noexcept
    pyrt_bool pyrt_runtime_is_initialized() noexcept

    enum:
        PYRT_WHENCE_UNKNOWN
        PYRT_WHENCE_RUNTIME
        PYRT_WHENCE_CAPI
        PYRT_WHENCE_STDLIB

    ctypedef struct pyrt_interp_config:
        uint32_t struct_size
        int use_main_allocator
        int whence
        const char *name
        int free_leaked_blocks

    pyrt_interp *pyrt_interp_main() noexcept
    pyrt_interp *pyrt_interp_new(const pyrt_interp_config *or_null) noexcept
    pyrt_status pyrt_interp_delete(pyrt_interp *interp) noexcept
    int64_t pyrt_interp_id(const pyrt_interp *interp) noexcept
    const char *pyrt_interp_name(const pyrt_interp *interp) noexcept
    int pyrt_interp_whence(const pyrt_interp *interp) noexcept
    pyrt_interp *pyrt_interp_pin(int64_t id) noexcept
    void pyrt_interp_unpin(pyrt_interp *interp) noexcept
    size_t pyrt_interp_list(int64_t *ids, size_t capacity) noexcept
    pyrt_thread *pyrt_thread_new(pyrt_interp *interp) noexcept
    void pyrt_thread_delete(pyrt_thread *thread) noexcept
    pyrt_thread *pyrt_thread_ensure(pyrt_interp *interp) noexcept
    pyrt_status pyrt_thread_ensure_timed(pyrt_interp *interp, int64_t timeout_ns, unsigned flags, pyrt_thread **out) noexcept
    void pyrt_thread_release(pyrt_thread *thread) noexcept
    pyrt_thread *pyrt_thread_find(pyrt_interp *interp) noexcept
    void pyrt_thread_set_name(pyrt_thread *thread, const char *name) noexcept

    ctypedef struct pyrt_thread_info:
        uint64_t id
        int64_t interp_id
        int32_t index
        int32_t os_tid
        int32_t state
        char name[32]

    size_t pyrt_thread_list(pyrt_interp *interp, pyrt_thread_info *out, size_t capacity) noexcept
    pyrt_status pyrt_attach_timed(pyrt_thread *thread, int64_t timeout_ns, unsigned flags) noexcept

    enum:
        PYRT_THREAD_SLOT_MAX
        PYRT_THREAD_SLOT_SIZE

    int pyrt_thread_slot_new(pyrt_status (*init)(void *) noexcept nogil, void (*exit)(void *) noexcept nogil, int order) noexcept
    void *pyrt_thread_slot(pyrt_thread *thread, int slot) noexcept
    pyrt_thread *pyrt_thread_current() noexcept
    pyrt_bool pyrt_tryattach(pyrt_thread *thread) noexcept
    void pyrt_attach(pyrt_thread *thread) noexcept
    void pyrt_detach(pyrt_thread *thread) noexcept
    void pyrt_safepoint(pyrt_thread *thread) noexcept

    ctypedef struct pyrt_critical_section:
        pyrt_thread *thread
        uintptr_t previous
        pyrt_mutex *mutex

    ctypedef struct pyrt_critical_section2:
        pyrt_critical_section base
        pyrt_mutex *second

    pyrt_bool pyrt_critical_section_holds(const pyrt_mutex *mutex) noexcept
    void pyrt_critical_section_begin(pyrt_critical_section *section, pyrt_mutex *mutex) noexcept
    void pyrt_critical_section_end(pyrt_critical_section *section) noexcept
    void pyrt_critical_section2_begin(pyrt_critical_section2 *section, pyrt_mutex *a, pyrt_mutex *b) noexcept
    void pyrt_critical_section2_end(pyrt_critical_section2 *section) noexcept

    ctypedef struct pyrt_event:
        uint8_t state

    void pyrt_event_set(pyrt_event *event) noexcept
    void pyrt_event_clear(pyrt_event *event) noexcept
    pyrt_status pyrt_event_wait_timed(pyrt_event *event, int64_t timeout_ns, unsigned flags) noexcept
    void pyrt_event_at_fork_reinit(pyrt_event *event) noexcept
    pyrt_bool pyrt_event_is_set(const pyrt_event *event) noexcept
    void pyrt_event_wait(pyrt_event *event) noexcept
    pyrt_pid pyrt_fork() noexcept
    uint64_t pyrt_qsbr_advance(pyrt_interp *interp) noexcept
    pyrt_bool pyrt_qsbr_poll(pyrt_thread *thread, uint64_t goal) noexcept
    pyrt_status pyrt_qsbr_synchronize(pyrt_thread *or_null) noexcept
    pyrt_status pyrt_qsbr_synchronize_timed(pyrt_thread *or_null, int64_t timeout_ns) noexcept

    ctypedef struct pyrt_stall_report:
        uint32_t struct_size
        int32_t os_tid
        uint64_t thread_id
        int64_t interp_id
        uint64_t goal
        int64_t held_ns
        uint64_t pending_items
        uint64_t pending_bytes
        char thread_name[32]

    pyrt_status pyrt_qsbr_stall_report(pyrt_interp *interp, pyrt_stall_report *out) noexcept
    size_t pyrt_qsbr_stats_read(pyrt_interp *interp, uint64_t *values, size_t capacity) noexcept
    const char *pyrt_qsbr_stats_name(size_t n) noexcept
    void pyrt_qsbr_quiescent_state(pyrt_thread *thread) noexcept
    void pyrt_read_begin(pyrt_thread *thread) noexcept
    void pyrt_read_end(pyrt_thread *thread) noexcept
    pyrt_status pyrt_retire_call(pyrt_thread *or_null, void (*fn)(void *p, void *arg) noexcept nogil, void *p, void *arg, size_t bytes) noexcept
    pyrt_status pyrt_retire_global(void *p, size_t bytes, void (*dispose)(void *) noexcept nogil) noexcept

    ctypedef struct pyrt_retire_node:
        pyrt_retire_node *next
        void (*dispose)(pyrt_retire_node *) noexcept nogil

    void pyrt_retire_embedded(pyrt_thread *or_null, pyrt_retire_node *embedded, size_t bytes, void (*dispose)(pyrt_retire_node *) noexcept nogil) noexcept
    size_t pyrt_process_delayed(pyrt_thread *thread) noexcept
    pyrt_status pyrt_qsbr_barrier(pyrt_thread *or_null) noexcept
    pyrt_status pyrt_qsbr_barrier_timed(pyrt_thread *or_null, int64_t timeout_ns) noexcept
    pyrt_status pyrt_retire_set_bound(pyrt_interp *interp, size_t items, size_t bytes) noexcept
    pyrt_status pyrt_retire(pyrt_thread *or_null, void *p, size_t bytes, void (*dispose)(void *) noexcept nogil) noexcept
    void *pyrt_malloc(size_t size) noexcept
    void *pyrt_calloc(size_t n, size_t size) noexcept
    void *pyrt_realloc(void *block, size_t size) noexcept
    void *pyrt_aligned_alloc(size_t align, size_t size) noexcept
    void pyrt_free(void *block) noexcept
    size_t pyrt_usable_size(const void *block) noexcept
    size_t pyrt_good_size(size_t size) noexcept

    enum:
        PYRT_OWNER_NONE
        PYRT_OWNER_PROCESS

    int64_t pyrt_address_owner(const void *address) noexcept

    ctypedef struct pyrt_heap:
        pass

    ctypedef struct pyrt_heap_config:
        uint32_t struct_size
        uint8_t tag
        pyrt_bool type_stable
        uint16_t stable_prefix

    pyrt_heap *pyrt_heap_new(pyrt_interp *interp, const pyrt_heap_config *or_null) noexcept
    void pyrt_heap_delete(pyrt_heap *heap) noexcept
    void pyrt_heap_destroy(pyrt_heap *heap) noexcept
    void *pyrt_heap_aligned_alloc(pyrt_thread *thread, pyrt_heap *heap, size_t align, size_t size) noexcept
    void *pyrt_heap_realloc(pyrt_thread *thread, pyrt_heap *heap, void *block, size_t size) noexcept

    enum:
        PYRT_HEAP_DEBUG_CHECK
        PYRT_HEAP_DEBUG_FILL
        PYRT_HEAP_DEBUG_POISON

    pyrt_status pyrt_heap_debug(unsigned flags) noexcept
    ctypedef pyrt_bool pyrt_block_visitor(void *block, size_t size, uint8_t tag, void *arg) noexcept
    pyrt_status pyrt_heap_visit(pyrt_interp *interp, unsigned tags, pyrt_block_visitor *visit, void *arg) noexcept

    ctypedef struct pyrt_memory_stats:
        uint32_t struct_size
        uint32_t heaps
        uint64_t reserved_bytes
        uint64_t page_bytes
        uint64_t pages
        uint64_t huge_bytes
        uint64_t held_bytes
        uint64_t abandoned_segments
        uint64_t adopted_segments

    void pyrt_interp_memory_stats(pyrt_interp *or_null, pyrt_memory_stats *out) noexcept

    enum:
        PYRT_HEAP_CLASSES
        PYRT_HEAP_TAGS

    ctypedef struct pyrt_block_count:
        uint64_t block_size
        uint64_t blocks
        uint64_t bytes

    ctypedef struct pyrt_ended_memory:
        uint32_t struct_size
        int64_t interp_id
        char name[32]
        uint64_t blocks
        uint64_t bytes
        uint64_t reserved_bytes
        uint64_t page_bytes
        uint64_t pages
        uint64_t huge_bytes
        pyrt_block_count by_class[PYRT_HEAP_CLASSES]
        uint64_t by_tag[PYRT_HEAP_TAGS]

    pyrt_status pyrt_ended_memory_next(uint64_t *place, pyrt_ended_memory *out) noexcept
    pyrt_bool pyrt_page_link_is_sound(const void *block, const void *next) noexcept
    void *pyrt_heap_malloc(pyrt_thread *thread, pyrt_heap *heap, size_t size) noexcept
    void *pyrt_heap_calloc(pyrt_thread *thread, pyrt_heap *heap, size_t n, size_t size) noexcept
    pyrt_status pyrt_free_delayed(pyrt_thread *thread, void *block) noexcept

    enum:
        PYRT_LOCK_NAME
        PYRT_LOCK_DEBUG_NAMES
        PYRT_LOCK_DEBUG_LOCKS
        PYRT_LOCK_DEBUG_ORDERS
        PYRT_LOCK_DEBUG_HOLDS
        PYRT_LOCK_DEBUG_THREADS

    ctypedef struct pyrt_lock_hold:
        const void *lock
        int64_t since_ns
        int32_t os_tid
        uint8_t waits
        uint8_t attached
        char name[48]
        char thread_name[32]

    ctypedef struct pyrt_lock_debug_stats:
        uint32_t struct_size
        uint32_t on
        uint64_t taken
        uint64_t released
        uint64_t lost
        uint64_t held
        uint64_t orders
        uint64_t cycles
        uint64_t attached_sleeps
        uint64_t forgotten
        int64_t longest_ns
        int32_t longest_tid
        char longest_name[48]
        char longest_thread[32]

    pyrt_status pyrt_lock_debug(pyrt_bool on) noexcept
    pyrt_status pyrt_lock_name(pyrt_mutex *mutex, const char *name) noexcept
    pyrt_status pyrt_lock_name_class(pyrt_mutex *mutex, const char *name) noexcept
    pyrt_status pyrt_lock_name_array(pyrt_mutex *first, size_t count, size_t stride, const char *name) noexcept
    void pyrt_lock_forget(const void *memory, size_t bytes) noexcept
    size_t pyrt_lock_holds(pyrt_lock_hold *out, size_t capacity) noexcept
    pyrt_status pyrt_lock_holder(const void *lock, pyrt_lock_hold *out) noexcept
    size_t pyrt_lock_report() noexcept
    void pyrt_lock_debug_set_bound(int64_t attached_wait_ns) noexcept
    pyrt_status pyrt_lock_debug_stats_read(pyrt_lock_debug_stats *out) noexcept

    ctypedef struct pyrt_type:
        pass

    ctypedef struct pyrt_object:
        uint64_t owner
        uint16_t flags
        pyrt_mutex mutex
        uint8_t collector
        uint32_t local
        int64_t shared
        pyrt_type *type

    ctypedef struct pyrt_type_spec:
        uint32_t struct_size
        const char *name
        size_t basic_size
        size_t item_size
        size_t weaklist_offset
        void (*dealloc)(pyrt_object *dying) noexcept nogil
        void (*finalize)(pyrt_object *dying) noexcept nogil
        int (*traverse)(pyrt_object *, int (*visit)(pyrt_object *, void *) noexcept nogil, void *) noexcept nogil
        int (*clear)(pyrt_object *) noexcept nogil

    pyrt_type *pyrt_type_new(pyrt_interp *interp, const pyrt_type_spec *spec) noexcept
    const char *pyrt_type_name(const pyrt_type *type) noexcept
    pyrt_object *pyrt_object_new(pyrt_thread *thread, pyrt_type *type) noexcept
    pyrt_object *pyrt_object_new_var(pyrt_thread *thread, pyrt_type *type, size_t n) noexcept
    void pyrt_set_immortal(pyrt_object *object) noexcept
    void pyrt_set_deferred(pyrt_object *object) noexcept
    void pyrt_clear_deferred(pyrt_object *object) noexcept
    void pyrt_merge_refcounts(pyrt_thread *thread) noexcept
    int64_t pyrt_refcount(const pyrt_object *object) noexcept

    ctypedef struct pyrt_object_info:
        uint32_t struct_size
        uint32_t local
        int64_t shared
        uint64_t owner
        uint8_t state
        pyrt_bool immortal
        pyrt_bool deferred
        pyrt_bool traced

    void pyrt_object_look(const pyrt_object *object, pyrt_object_info *out) noexcept
    void pyrt_object_trace(pyrt_object *object, pyrt_bool on) noexcept

    ctypedef struct pyrt_object_stats:
        uint32_t struct_size
        uint32_t unique_ids
        uint64_t merges_asked
        uint64_t merges_done
        uint64_t merges_for_ended
        uint64_t queues_borrowed
        uint64_t longest_queue
        uint64_t longest_wait_ns
        uint64_t immortal

    void pyrt_object_stats_read(pyrt_interp *interp, pyrt_object_stats *out) noexcept

    ctypedef struct pyrt_once:
        const void *runner
        uint8_t state

    pyrt_status pyrt_once_call_timed(pyrt_once *once, pyrt_status (*fn)(void *arg) noexcept nogil, void *arg, int64_t timeout_ns, unsigned flags) noexcept
    void pyrt_once_at_fork_reinit(pyrt_once *once) noexcept
    pyrt_bool pyrt_once_is_done(const pyrt_once *once) noexcept
    pyrt_status pyrt_once_call(pyrt_once *once, pyrt_status (*fn)(void *arg) noexcept nogil, void *arg) noexcept
    pyrt_object *pyrt_incref(pyrt_object *object) noexcept
    void pyrt_decref(pyrt_object *object) noexcept
    pyrt_object *pyrt_incref_as(pyrt_thread *thread, pyrt_object *object) noexcept
    void pyrt_decref_as(pyrt_thread *thread, pyrt_object *object) noexcept
    pyrt_object *pyrt_xincref(pyrt_object *or_null) noexcept
    void pyrt_xdecref(pyrt_object *or_null) noexcept
    pyrt_bool pyrt_is_uniquely_referenced(const pyrt_object *object) noexcept
    pyrt_bool pyrt_is_immortal(const pyrt_object *object) noexcept
    void pyrt_enable_try_incref(pyrt_object *object) noexcept
    pyrt_bool pyrt_try_incref(pyrt_object *object) noexcept
    pyrt_object *pyrt_load_ref(pyrt_object *const *slot) noexcept
    pyrt_object *pyrt_exchange_ref(pyrt_object **slot, pyrt_object *or_null) noexcept
    void pyrt_store_ref(pyrt_object **slot, pyrt_object *or_null) noexcept
    pyrt_bool pyrt_compare_exchange_ref(pyrt_object **slot, pyrt_object *expected, pyrt_object *desired) noexcept

    ctypedef struct pyrt_rwlock:
        uint32_t state
        pyrt_mutex gate
        uint8_t unbiased_reads
        const void *writer

    pyrt_status pyrt_rwlock_write_lock(pyrt_rwlock *lock) noexcept
    pyrt_bool pyrt_rwlock_write_trylock(pyrt_rwlock *lock) noexcept
    void pyrt_rwlock_write_unlock(pyrt_rwlock *lock) noexcept
    pyrt_status pyrt_rwlock_read_lock_timed(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags) noexcept
    pyrt_status pyrt_rwlock_write_lock_timed(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags) noexcept
    size_t pyrt_rwlock_readers(const pyrt_rwlock *lock) noexcept
    size_t pyrt_rwlock_waiters(const pyrt_rwlock *lock) noexcept
    void pyrt_rwlock_at_fork_reinit(pyrt_rwlock *lock) noexcept
    pyrt_status pyrt_rwlock_read_lock(pyrt_rwlock *lock) noexcept
    pyrt_bool pyrt_rwlock_read_trylock(pyrt_rwlock *lock) noexcept
    void pyrt_rwlock_read_unlock(pyrt_rwlock *lock) noexcept
    pyrt_bool pyrt_rwlock_is_owned(const pyrt_rwlock *lock) noexcept
    pyrt_bool pyrt_rwlock_is_write_locked(const pyrt_rwlock *lock) noexcept

    ctypedef struct pyrt_seqlock:
        uint64_t sequence
        pyrt_mutex writers

    pyrt_status pyrt_seqlock_write_lock_timed(pyrt_seqlock *lock, int64_t timeout_ns, unsigned flags) noexcept
    pyrt_bool pyrt_seqlock_at_fork_reinit(pyrt_seqlock *lock) noexcept
    uint64_t pyrt_seqlock_read_begin(pyrt_seqlock *lock) noexcept
    pyrt_bool pyrt_seqlock_read_retry(const pyrt_seqlock *lock, uint64_t begun) noexcept
    void pyrt_seqlock_write_lock(pyrt_seqlock *lock) noexcept
    pyrt_bool pyrt_seqlock_write_trylock(pyrt_seqlock *lock) noexcept
    void pyrt_seqlock_write_unlock(pyrt_seqlock *lock) noexcept

    ctypedef struct pyrt_stop_report:
        uint32_t struct_size
        uint32_t stopped
        uint32_t missing
        int32_t os_tid
        uint64_t thread_id
        int64_t interp_id
        int64_t time_to_stop_ns
        char thread_name[32]

    pyrt_status pyrt_stop_the_world(pyrt_interp *or_null) noexcept
    pyrt_status pyrt_stop_the_world_timed(pyrt_interp *or_null, int64_t timeout_ns, pyrt_stop_report *report_or_null) noexcept
    void pyrt_start_the_world(pyrt_interp *or_null) noexcept
    pyrt_bool pyrt_world_is_stopped(pyrt_interp *or_null) noexcept

    ctypedef struct pyrt_pause_stats:
        uint32_t struct_size
        uint64_t pauses
        uint64_t timed_out
        uint64_t turns_lost
        int64_t to_stop_p50_ns
        int64_t to_stop_p99_ns
        int64_t to_stop_max_ns
        int64_t stopped_p50_ns
        int64_t stopped_p99_ns
        int64_t stopped_max_ns
        int64_t stopped_total_ns

    pyrt_status pyrt_stop_the_world_stats(pyrt_interp *or_null, pyrt_pause_stats *out) noexcept

    enum:
        PYRT_STRIPES_APART
        PYRT_STRIPES_MAX
        PYRT_STRIPE_LINE

    ctypedef struct pyrt_striped_lock:
        void *mutexes
        void *waits
        size_t own_bytes
        uint32_t mask
        uint8_t hash_shift
        uint8_t mutex_shift
        uint8_t waits_shift

    ctypedef struct pyrt_striped_lock_config:
        uint32_t struct_size
        uint32_t flags
        size_t stripes
        void *memory
        size_t memory_bytes

    ctypedef struct pyrt_striped_lock_stats:
        uint32_t struct_size
        uint32_t stripes
        uint32_t locked
        uint32_t worst
        uint64_t worst_waits
        uint64_t waits

    pyrt_status pyrt_striped_lock_init(pyrt_striped_lock *lock, size_t stripes) noexcept
    pyrt_status pyrt_striped_lock_init_config(pyrt_striped_lock *lock, const pyrt_striped_lock_config *config) noexcept
    size_t pyrt_striped_lock_bytes(size_t stripes, uint32_t flags) noexcept
    void pyrt_striped_lock_fini(pyrt_striped_lock *lock) noexcept
    void pyrt_striped_lock_at_fork_reinit(pyrt_striped_lock *lock) noexcept
    pyrt_status pyrt_striped_lock_name(pyrt_striped_lock *lock, const char *name) noexcept
    pyrt_status pyrt_striped_lock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n) noexcept
    pyrt_status pyrt_striped_lock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n) noexcept
    pyrt_status pyrt_striped_lock_keys_timed(pyrt_striped_lock *lock, const void *const *keys, size_t n, int64_t timeout_ns, unsigned flags) noexcept
    pyrt_status pyrt_striped_lock_hashes_timed(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n, int64_t timeout_ns, unsigned flags) noexcept
    pyrt_bool pyrt_striped_trylock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n) noexcept
    pyrt_bool pyrt_striped_trylock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n) noexcept
    void pyrt_striped_unlock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n) noexcept
    void pyrt_striped_unlock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n) noexcept
    pyrt_status pyrt_striped_lock_all(pyrt_striped_lock *lock) noexcept
    pyrt_status pyrt_striped_lock_all_timed(pyrt_striped_lock *lock, int64_t timeout_ns, unsigned flags) noexcept
    pyrt_bool pyrt_striped_trylock_all(pyrt_striped_lock *lock) noexcept
    void pyrt_striped_unlock_all(pyrt_striped_lock *lock) noexcept
    uint64_t pyrt_striped_lock_waits(const pyrt_striped_lock *lock, size_t stripe) noexcept
    pyrt_status pyrt_striped_lock_stats_read(const pyrt_striped_lock *lock, pyrt_striped_lock_stats *out) noexcept
    size_t pyrt_striped_lock_stripes(const pyrt_striped_lock *lock) noexcept
    size_t pyrt_striped_lock_stripe(const pyrt_striped_lock *lock, uint64_t hash) noexcept
    pyrt_mutex *pyrt_striped_lock_mutex(const pyrt_striped_lock *lock, size_t stripe) noexcept
    pyrt_mutex *pyrt_striped_lock_for_hash(pyrt_striped_lock *lock, uint64_t hash) noexcept
    pyrt_mutex *pyrt_striped_lock_for(pyrt_striped_lock *lock, const void *key) noexcept
    void pyrt_striped_lock_hash(pyrt_striped_lock *lock, uint64_t hash) noexcept
    void pyrt_striped_lock_key(pyrt_striped_lock *lock, const void *key) noexcept
    pyrt_bool pyrt_striped_trylock_hash(pyrt_striped_lock *lock, uint64_t hash) noexcept
    pyrt_bool pyrt_striped_trylock_key(pyrt_striped_lock *lock, const void *key) noexcept
    void pyrt_striped_unlock_hash(pyrt_striped_lock *lock, uint64_t hash) noexcept
    void pyrt_striped_unlock_key(pyrt_striped_lock *lock, const void *key) noexcept
    pyrt_status pyrt_unique_id_new(pyrt_interp *interp, pyrt_object *object, uint32_t *field) noexcept
    int64_t pyrt_merge_unique_counts(pyrt_interp *interp) noexcept
    void pyrt_incref_by_id(pyrt_thread *thread, pyrt_object *object, uint32_t id) noexcept
    void pyrt_decref_by_id(pyrt_thread *thread, pyrt_object *object, uint32_t id) noexcept

    ctypedef struct pyrt_weakref:
        pyrt_object base
        pyrt_object *referent
        pyrt_interp *interp
        pyrt_object *key
        int (*callback)(pyrt_weakref *, void *arg) noexcept nogil
        void *arg
        pyrt_weakref *next
        pyrt_weakref *previous
        pyrt_weakref *chain
        int64_t hash
        uint32_t is_hashed

    pyrt_weakref *pyrt_weakref_new(pyrt_thread *thread, pyrt_object *object, int (*callback)(pyrt_weakref *, void *arg) noexcept nogil, void *arg) noexcept
    size_t pyrt_weakref_count(const pyrt_object *object) noexcept
    pyrt_status pyrt_weakref_hash(pyrt_weakref *weak, int64_t (*hash)(pyrt_object *) noexcept nogil, int64_t *out) noexcept
    pyrt_object *pyrt_weakref_get(pyrt_weakref *weak) noexcept
    pyrt_bool pyrt_weakref_is_dead(const pyrt_weakref *weak) noexcept

/* capi.c -- fills the function table. One line for each member, in the order of capi_table.h.
 *
 * The table is static and its shared object is never unloaded, so that a pointer to it stays good when the capsule, the
 * package and the interpreter that made them are gone.
 */
#include "binding/capi.h"

#include <pyruntime/capi_table.h>

static pyrt_capi table = {
    .abi_major = PYRT_ABI_MAJOR,
    .abi_minor = PYRT_ABI_MINOR,
    .struct_size = sizeof(pyrt_capi),
    .strerror = pyrt_strerror,
    .version = pyrt_version,
    .set_report_hook = pyrt_set_report_hook,
    .set_block_hooks = pyrt_set_block_hooks,
    .runtime_init = pyrt_runtime_init,
    .runtime_fini = pyrt_runtime_fini,
    .runtime_is_initialized = pyrt_runtime_is_initialized,
    .interp_main = pyrt_interp_main,
    .interp_new = pyrt_interp_new,
    .interp_delete = pyrt_interp_delete,
    .interp_id = pyrt_interp_id,
    .interp_name = pyrt_interp_name,
    .interp_whence = pyrt_interp_whence,
    .interp_pin = pyrt_interp_pin,
    .interp_unpin = pyrt_interp_unpin,
    .interp_list = pyrt_interp_list,
    .thread_new = pyrt_thread_new,
    .thread_delete = pyrt_thread_delete,
    .thread_ensure = pyrt_thread_ensure,
    .thread_release = pyrt_thread_release,
    .thread_find = pyrt_thread_find,
    .thread_set_name = pyrt_thread_set_name,
    .thread_list = pyrt_thread_list,
    .attach_slow = pyrt_attach_slow,
    .detach_slow = pyrt_detach_slow,
    .detach_answer = pyrt_detach_answer,
    .safepoint_slow = pyrt_safepoint_slow,
    .thread_slot_new = pyrt_thread_slot_new,
    .thread_slot = pyrt_thread_slot,
    .qsbr_advance = pyrt_qsbr_advance,
    .qsbr_poll = pyrt_qsbr_poll,
    .qsbr_synchronize = pyrt_qsbr_synchronize,
    .qsbr_synchronize_timed = pyrt_qsbr_synchronize_timed,
    .qsbr_quiescent_slow = pyrt_qsbr_quiescent_slow,
    .read_begin_counted = pyrt_read_begin_counted,
    .read_end_counted = pyrt_read_end_counted,
    .qsbr_stall_report = pyrt_qsbr_stall_report,
    .qsbr_stats_read = pyrt_qsbr_stats_read,
    .qsbr_stats_name = pyrt_qsbr_stats_name,
    .retire_slow = pyrt_retire_slow,
    .retire_call = pyrt_retire_call,
    .retire_global = pyrt_retire_global,
    .retire_embedded = pyrt_retire_embedded,
    .process_delayed = pyrt_process_delayed,
    .qsbr_barrier = pyrt_qsbr_barrier,
    .qsbr_barrier_timed = pyrt_qsbr_barrier_timed,
    .retire_set_bound = pyrt_retire_set_bound,
    .stop_the_world = pyrt_stop_the_world,
    .stop_the_world_timed = pyrt_stop_the_world_timed,
    .start_the_world = pyrt_start_the_world,
    .world_is_stopped = pyrt_world_is_stopped,
    .stop_the_world_stats = pyrt_stop_the_world_stats,
    .fork = pyrt_fork,
    .parking_cells = pyrt_parking_cells,
    .park = pyrt_park,
    .unpark_one = pyrt_unpark_one,
    .unpark_all = pyrt_unpark_all,
    .requeue = pyrt_requeue,
    .parked_count = pyrt_parked_count,
    .mutex_lock_slow = pyrt_mutex_lock_slow,
    .mutex_trylock_slow = pyrt_mutex_trylock_slow,
    .mutex_unlock_slow = pyrt_mutex_unlock_slow,
    .mutex_wake = pyrt_mutex_wake,
    .mutex_lock_timed = pyrt_mutex_lock_timed,
    .mutex_at_fork_reinit = pyrt_mutex_at_fork_reinit,
    .striped_lock_init = pyrt_striped_lock_init,
    .striped_lock_init_config = pyrt_striped_lock_init_config,
    .striped_lock_bytes = pyrt_striped_lock_bytes,
    .striped_lock_fini = pyrt_striped_lock_fini,
    .striped_lock_at_fork_reinit = pyrt_striped_lock_at_fork_reinit,
    .striped_lock_name = pyrt_striped_lock_name,
    .striped_lock_keys = pyrt_striped_lock_keys,
    .striped_lock_hashes = pyrt_striped_lock_hashes,
    .striped_lock_keys_timed = pyrt_striped_lock_keys_timed,
    .striped_lock_hashes_timed = pyrt_striped_lock_hashes_timed,
    .striped_trylock_keys = pyrt_striped_trylock_keys,
    .striped_trylock_hashes = pyrt_striped_trylock_hashes,
    .striped_unlock_keys = pyrt_striped_unlock_keys,
    .striped_unlock_hashes = pyrt_striped_unlock_hashes,
    .striped_lock_all = pyrt_striped_lock_all,
    .striped_lock_all_timed = pyrt_striped_lock_all_timed,
    .striped_trylock_all = pyrt_striped_trylock_all,
    .striped_unlock_all = pyrt_striped_unlock_all,
    .striped_lock_waits = pyrt_striped_lock_waits,
    .striped_lock_stats_read = pyrt_striped_lock_stats_read,
    .striped_lock_slow = pyrt_striped_lock_slow,
    .lock_debug = pyrt_lock_debug,
    .lock_name = pyrt_lock_name,
    .lock_name_class = pyrt_lock_name_class,
    .lock_name_array = pyrt_lock_name_array,
    .lock_forget = pyrt_lock_forget,
    .lock_holds = pyrt_lock_holds,
    .lock_holder = pyrt_lock_holder,
    .lock_report = pyrt_lock_report,
    .lock_debug_set_bound = pyrt_lock_debug_set_bound,
    .lock_debug_stats_read = pyrt_lock_debug_stats_read,
};

/* The block has the initial-exec model, so that its distance is the same in every thread. */
static ptrdiff_t
offset_of_tls_block(void)
{
    const char *thread_pointer = __builtin_thread_pointer();
    return (const char *)&pyrt_tls_storage - thread_pointer;
}

PyObject *
pyrt_py_capi_capsule(void)
{
    table.tls_offset = offset_of_tls_block();
    return PyCapsule_New(&table, "pyruntime._C_API", NULL);
}

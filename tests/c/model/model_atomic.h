/* model_atomic.h -- the operations of pyruntime/atomic.h, on the machine of machine.h.
 *
 * Only what x86 makes of an order is left of it: every load is a plain load, every store a plain store that goes through
 * the store buffer, and every read-modify-write a locked instruction, whatever order its name asks for.
 */
#ifndef TESTS_C_MODEL_MODEL_ATOMIC_H
#define TESTS_C_MODEL_MODEL_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The thread-local block of the thread that runs; current.h takes it from -DPYRT_TLS_BLOCK=model_tls. */
extern struct pyrt_tls_block *model_tls;

uint64_t model_load(const volatile void *address, size_t size, const char *text, const char *function);
void model_store(volatile void *address, size_t size, uint64_t value, const char *text, const char *function);
uint64_t model_exchange(volatile void *address, size_t size, uint64_t value, const char *text, const char *function);
uint64_t model_fetch_add(volatile void *address, size_t size, uint64_t value, const char *text, const char *function);
uint64_t model_fetch_or(volatile void *address, size_t size, uint64_t value, const char *text, const char *function);
uint64_t model_fetch_and(volatile void *address, size_t size, uint64_t value, const char *text, const char *function);
bool model_cas(volatile void *address, size_t size, void *expected, uint64_t value, const char *text, const char *function);
void model_relax(void);

/* The same, but --break can take the lock prefix off: the core uses the 64-bit forms for the sequence and for the state words
 * of threads only. */
uint64_t model_fetch_add_seq_cst(volatile void *address, size_t size, uint64_t value, const char *text,
                                 const char *function);
bool model_cas_seq_cst(volatile void *address, size_t size, void *expected, uint64_t value, const char *text,
                       const char *function);

/* The statistics are left out: nothing may depend on them, each would be a step or two more, and a locked addition among them
 * could hide that a barrier is missing elsewhere. NULL instead of a text says so; the compiler finds it out. */
#define MODEL_TEXT(name, p) \
    (__builtin_strstr(#p, "stats.") != NULL || __builtin_strstr(#p, "times->") != NULL ? NULL : name " " #p)

/* The type of *p without qualifiers: the comma makes a value of it. */
#define MODEL_TYPE(p) __typeof__(((void)0, *(p)))
#define MODEL_WORD(p, v) ((uint64_t)(uintptr_t)(MODEL_TYPE(p))(v))

#define MODEL_LOAD(name, p) ((MODEL_TYPE(p))(uintptr_t)model_load((p), sizeof(*(p)), MODEL_TEXT(name, p), __func__))
#define MODEL_STORE(name, p, v) model_store((p), sizeof(*(p)), MODEL_WORD(p, v), MODEL_TEXT(name, p), __func__)
/* A statement expression: its value may go unused. */
#define MODEL_CHANGE(name, p, v)                                                                                  \
    ({                                                                                                            \
        uint64_t model_found = model_##name((p), sizeof(*(p)), MODEL_WORD(p, v), MODEL_TEXT(#name, p), __func__); \
        (MODEL_TYPE(p))(uintptr_t) model_found;                                                                   \
    })
#define MODEL_CAS(name, p, expected, v) \
    model_##name((p), sizeof(*(p)), (expected), MODEL_WORD(p, v), MODEL_TEXT(#name, p), __func__)

#define pyrt_load_relaxed(p) MODEL_LOAD("load", p)
#define pyrt_load_acquire(p) MODEL_LOAD("load", p)
#define pyrt_load_seq_cst(p) MODEL_LOAD("load", p)

#define pyrt_store_relaxed(p, v) MODEL_STORE("store", p, v)
#define pyrt_store_release(p, v) MODEL_STORE("store", p, v)

#define pyrt_exchange_seq_cst(p, v) MODEL_CHANGE(exchange, p, v)
#define pyrt_exchange_acquire(p, v) MODEL_CHANGE(exchange, p, v)
#define pyrt_exchange_release(p, v) MODEL_CHANGE(exchange, p, v)
#define pyrt_fetch_add_relaxed(p, v) MODEL_CHANGE(fetch_add, p, v)
#define pyrt_fetch_add_seq_cst(p, v) MODEL_CHANGE(fetch_add_seq_cst, p, v)
#define pyrt_fetch_sub_acq_rel(p, v) MODEL_CHANGE(fetch_add, p, -(v))
#define pyrt_fetch_or_seq_cst(p, v) MODEL_CHANGE(fetch_or, p, v)
#define pyrt_fetch_and_seq_cst(p, v) MODEL_CHANGE(fetch_and, p, v)

#define pyrt_cas_seq_cst(p, expected, v) MODEL_CAS(cas_seq_cst, p, expected, v)
#define pyrt_cas_acquire(p, expected, v) MODEL_CAS(cas, p, expected, v)
#define pyrt_cas_release(p, expected, v) MODEL_CAS(cas, p, expected, v)
#define pyrt_cas_acq_rel(p, expected, v) MODEL_CAS(cas, p, expected, v)

/* A locked instruction has been one already; and the compiler moves nothing across the calls above. */
#define pyrt_fence_after_rmw() ((void)0)
#define pyrt_light_barrier() ((void)0)
#define pyrt_cpu_relax() model_relax()

#endif

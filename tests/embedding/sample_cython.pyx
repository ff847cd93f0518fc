# cython: language_level=3, freethreading_compatible=True
"""An extension in Cython: it uses the runtime that the process already has, through ``from pyruntime cimport ...``.

It keeps sums under locks, and a number that is read without one and whose old memory is retired.
"""

from libc.stdlib cimport free, malloc

from pyruntime cimport (
    PYRT_EBUSY, PYRT_OK, pyrt_critical_section2, pyrt_critical_section2_begin, pyrt_critical_section2_end,
    pyrt_decref, pyrt_exchange_seq_cst, pyrt_interp_main, pyrt_load_acquire, pyrt_mutex, pyrt_mutex_lock, pyrt_mutex_unlock,
    pyrt_object, pyrt_qsbr_synchronize, pyrt_retire, pyrt_safepoint, pyrt_start_the_world, pyrt_status, pyrt_stop_the_world,
    pyrt_store_release, pyrt_strerror, pyrt_thread, pyrt_thread_ensure, pyrt_thread_release, pyruntime_import,
)

cdef extern from "sched.h" nogil:
    int sched_yield()

pyruntime_import()

cdef long *current = NULL
cdef pyrt_mutex disposed_mutex
cdef long disposed_count = 0


def runtime_address():
    return <size_t>pyrt_interp_main()


cdef class Account:
    """A sum under a lock of one byte, which is unlocked because it is zero."""

    cdef pyrt_mutex mutex
    cdef readonly long total

    def add(self, long n, long times):
        """Without the GIL, so that threads are at it at once."""
        cdef long i
        with nogil:
            for i in range(times):
                pyrt_mutex_lock(&self.mutex)
                self.total += n
                pyrt_mutex_unlock(&self.mutex)

    def move_to(self, Account other not None, long n, long times):
        """Two accounts at once, in whatever order."""
        cdef long i
        cdef pyrt_critical_section2 section
        cdef pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main())
        if thread == NULL:
            raise MemoryError()
        with nogil:
            for i in range(times):
                pyrt_critical_section2_begin(&section, &self.mutex, &other.mutex)
                self.total -= n
                other.total += n
                pyrt_critical_section2_end(&section)
                pyrt_safepoint(thread)
        pyrt_thread_release(thread)


cdef void dispose(void *p) noexcept nogil:
    global disposed_count
    free(p)
    pyrt_mutex_lock(&disposed_mutex)
    disposed_count += 1
    pyrt_mutex_unlock(&disposed_mutex)


def replace(long value):
    """Publishes a new number; the old one is freed when nobody can be reading it."""
    cdef long *fresh = <long *>malloc(sizeof(long))
    if fresh == NULL:
        raise MemoryError()
    fresh[0] = value
    cdef void *old = pyrt_exchange_seq_cst(<void **>&current, fresh)
    if old == NULL:
        return
    status = pyrt_retire(NULL, old, sizeof(long), dispose)
    if status != PYRT_OK and status != PYRT_EBUSY:
        pyrt_qsbr_synchronize(NULL)
        dispose(old)


def look():
    cdef pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main())
    if thread == NULL:
        raise MemoryError()
    cdef long *found = <long *>pyrt_load_acquire(<void **>&current)
    cdef long value = -1 if found == NULL else found[0]
    pyrt_thread_release(thread)
    return value


def disposed():
    return disposed_count


def words(int status):
    """The library's own for a status."""
    return pyrt_strerror(<pyrt_status>status).decode()


def drop(size_t address):
    """Gives up a reference to an object of any extension."""
    cdef pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main())
    if thread == NULL:
        raise MemoryError()
    pyrt_decref(<pyrt_object *>address)
    pyrt_thread_release(thread)


def count(size_t address):
    """Counts in the first of two words, attached and without the GIL, until the second is 0."""
    cdef size_t number = 0
    cdef void **words = <void **>address
    cdef pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main())
    if thread == NULL:
        raise MemoryError()
    with nogil:
        while pyrt_load_acquire(&words[1]) != NULL:
            number += 1
            pyrt_store_release(&words[0], <void *>number)
            pyrt_safepoint(thread)
    pyrt_thread_release(thread)


def stands_still(size_t address):
    """Whether nobody counts in the word while this one has stopped the world."""
    cdef void **word = <void **>address
    if pyrt_stop_the_world(NULL) != PYRT_OK:
        raise MemoryError()
    cdef void *before = pyrt_load_acquire(word)
    still = True
    for _ in range(1000):
        sched_yield()
        still = still and pyrt_load_acquire(word) == before
    pyrt_start_the_world(NULL)
    return still

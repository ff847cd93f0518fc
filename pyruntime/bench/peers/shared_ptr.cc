/* shared_ptr.cc -- std::shared_ptr under the loops of ../loops/refcount.c, with our allocator, so that what differs is the counting.
 */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif

#include <pyruntime/capi.h>
#include <pyruntime/pyruntime.h>

#include "ring.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace {

template <typename T> struct our_allocator {
    using value_type = T;

    our_allocator() = default;
    template <typename U> our_allocator(const our_allocator<U> &)
    {
    }

    T *
    allocate(std::size_t n)
    {
        void *block = pyrt_malloc(n * sizeof(T));
        if (block == nullptr) {
            std::abort(); /* the harness has no way to say so in the middle of a loop in C++ */
        }
        return static_cast<T *>(block);
    }

    void
    deallocate(T *block, std::size_t)
    {
        pyrt_free(block);
    }
};

struct thing {
    uint64_t room[4];
};

using pointer = std::shared_ptr<thing>;

bench_ring ring;
pointer places[BENCH_RING];

int
enter(bench_thread *self)
{
    return bench_enter_ring(self, &ring);
}

/* Pointers travel in places of their own; the ring says which are filled. */
void
loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        if (self->number == 0) {
            pointer made = std::allocate_shared<thing>(our_allocator<thing>());
            if (i >= BENCH_RING) {
                bench_ring_wait(&ring.read, i - BENCH_RING + 1);
            }
            places[i % BENCH_RING] = std::move(made);
            pyrt_store_release(&ring.written, i + 1);
        }
        else {
            bench_ring_wait(&ring.written, i + 1);
            pointer taken = std::move(places[i % BENCH_RING]);
            pyrt_store_release(&ring.read, i + 1);
        }
    }
}

void
owner_loop(bench_thread *self)
{
    pointer first = std::allocate_shared<thing>(our_allocator<thing>());
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        pointer copy = first;
        bench_work();
    }
}

} // namespace

extern "C" __attribute__((visibility("default"))) void
pyrt_bench_peer_table(const void *table)
{
    pyrt_capi_pointer = static_cast<const pyrt_capi *>(table);
}

extern "C" __attribute__((visibility("default"))) const pyrt_bench_loop *
pyrt_bench_peer(size_t *count)
{
    static bench_body handover_body, owner_body;
    static pyrt_bench_loop loops[3];
    handover_body.enter = enter;
    handover_body.loop = loop;
    owner_body.loop = owner_loop;
    const char *names[] = {"refcount.handover", "refcount.owner", "refcount.other"};
    for (int i = 0; i < 3; i++) {
        loops[i].bench = names[i];
        loops[i].impl = "shared_ptr";
        loops[i].run = bench_run;
        loops[i].body = i == 0 ? &handover_body : &owner_body;
    }
    *count = 3;
    return loops;
}

/* pause_stats.c -- how long it took to stop the world, and how long it stood still.
 *
 * Times go into a histogram whose spans grow with the time: eight to each power of two, so that a percentile is told at
 * most an eighth too long. Nothing is locked: a pause counts while it has the gate, readers add up what they find.
 *
 *      nanoseconds    0 to 7   8 to 15   16 to 31   32 to 63   ...   2^42 to 2^43 (and all longer)
 *      width of span     1        1         2          4               2^39
 */
#include "platform/futex.h"
#include "state/pause.h"

#include <pyruntime/stop_the_world.h>

enum { LONGEST = 42 };

PYRT_STATIC_ASSERT((LONGEST - 2) * 8 + 7 == PYRT_PAUSE_SPANS - 1, "the last span is that of the longest times");

static int
span_of(uint64_t ns)
{
    if (ns < 8) {
        return (int)ns;
    }
    int log2 = 63 - __builtin_clzll(ns);
    return log2 > LONGEST ? PYRT_PAUSE_SPANS - 1 : (log2 - 2) * 8 + (int)((ns >> (log2 - 3)) & 7);
}

static uint64_t
longest_of_span(int span)
{
    if (span == PYRT_PAUSE_SPANS - 1) {
        return UINT64_MAX;
    }
    return span < 8 ? (uint64_t)span : ((uint64_t)(8 + span % 8 + 1) << (span / 8 - 1)) - 1;
}

/* relaxed: the numbers are independent of each other. */
static void
count_time(pyrt_pause_times *times, int64_t ns)
{
    uint64_t time = ns > 0 ? (uint64_t)ns : 0;
    (void)pyrt_fetch_add_relaxed(&times->spans[span_of(time)], (uint64_t)1);
    (void)pyrt_fetch_add_relaxed(&times->total, time);
    if (pyrt_load_relaxed(&times->max) < time) {
        pyrt_store_relaxed(&times->max, time);
    }
}

void
pyrt_pause_count_stop(pyrt_pause *pause, int64_t now)
{
    pause->stopped_at = now;
    count_time(&pause->stats.to_stop, now - pause->asked_at);
}

void
pyrt_pause_count_start(pyrt_pause *pause, int64_t now)
{
    count_time(&pause->stats.stopped, now - pause->stopped_at);
    pause->stopped_at = 0;
}

static uint64_t
number_of(const pyrt_pause_times *times)
{
    uint64_t number = 0;
    for (int span = 0; span < PYRT_PAUSE_SPANS; span++) {
        number += pyrt_load_relaxed(&times->spans[span]);
    }
    return number;
}

/* The time that `percent` of all did not pass. */
static int64_t
percentile(const pyrt_pause_times *times, unsigned percent)
{
    uint64_t number = number_of(times);
    uint64_t max = pyrt_load_relaxed(&times->max);
    uint64_t wanted = number - number * (100 - percent) / 100;
    uint64_t seen = 0;
    for (int span = 0; span < PYRT_PAUSE_SPANS && number != 0; span++) {
        seen += pyrt_load_relaxed(&times->spans[span]);
        if (seen >= wanted) {
            uint64_t longest = longest_of_span(span);
            return (int64_t)(longest < max ? longest : max);
        }
    }
    return (int64_t)max;
}

pyrt_status
pyrt_stop_the_world_stats(pyrt_interp *or_null, pyrt_pause_stats *out)
{
    if (out == NULL || out->struct_size != sizeof(*out)) {
        return PYRT_EINVAL;
    }
    if (!pyrt_runtime_is_initialized()) {
        return PYRT_ESTATE;
    }
    const pyrt_pause *pause = or_null != NULL ? &or_null->own_pause : &pyrt_the_registry.global_pause;
    const pyrt_pause_times *to_stop = &pause->stats.to_stop;
    const pyrt_pause_times *stopped = &pause->stats.stopped;
    *out = (pyrt_pause_stats){
        .struct_size = sizeof(*out),
        .pauses = number_of(to_stop),
        .timed_out = pyrt_load_relaxed(&pause->stats.timed_out),
        .turns_lost = pyrt_load_relaxed(&pause->stats.turns_lost),
        .to_stop_p50_ns = percentile(to_stop, 50),
        .to_stop_p99_ns = percentile(to_stop, 99),
        .to_stop_max_ns = (int64_t)pyrt_load_relaxed(&pause->stats.to_stop.max),
        .stopped_p50_ns = percentile(stopped, 50),
        .stopped_p99_ns = percentile(stopped, 99),
        .stopped_max_ns = (int64_t)pyrt_load_relaxed(&pause->stats.stopped.max),
        .stopped_total_ns = (int64_t)pyrt_load_relaxed(&pause->stats.stopped.total),
    };
    return PYRT_OK;
}

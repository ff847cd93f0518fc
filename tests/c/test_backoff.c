/* test_backoff.c -- the backoff counter, rule by rule, over every one of its 65536 words (backoff.h). */
#include "support.h"

#include <stdlib.h>

#define FOR_EACH_WORD(counter)                             \
    for (uint32_t word_ = 0; word_ <= UINT16_MAX; word_++) \
        for (pyrt_backoff_counter counter = {(uint16_t)word_}, *once_ = &counter; once_ != NULL; once_ = NULL)

static unsigned
steps_to_trigger(pyrt_backoff_counter counter)
{
    unsigned steps = 0;
    while (!pyrt_backoff_triggers(counter)) {
        counter = pyrt_backoff_advance(counter);
        steps++;
        CHECK(steps <= PYRT_BACKOFF_VALUE_MAX);
    }
    return steps;
}

static bool
is_prime(unsigned n)
{
    for (unsigned divisor = 2; divisor * divisor <= n; divisor++) {
        if (n % divisor == 0) {
            return false;
        }
    }
    return n > 1;
}

TEST(it_is_sixteen_bits_and_they_come_apart_as_they_were_put_together)
{
    CHECK_UINT(sizeof(pyrt_backoff_counter), 2);
    for (unsigned value = 0; value <= PYRT_BACKOFF_VALUE_MAX; value++) {
        for (unsigned backoff = 0; backoff <= PYRT_BACKOFF_UNREACHABLE; backoff++) {
            pyrt_backoff_counter counter = pyrt_backoff_make(value, backoff);
            CHECK_UINT(counter.word, value << 3 | backoff);
            CHECK_UINT(pyrt_backoff_value(counter), value);
            CHECK_UINT(pyrt_backoff_backoff(counter), backoff);
        }
    }
    CHECK_UINT(pyrt_backoff_make(PYRT_BACKOFF_VALUE_MAX + 1 + 5, 8 + 3).word, 5 << 3 | 3);
}

TEST(it_triggers_when_the_value_is_zero_and_it_is_not_unreachable)
{
    FOR_EACH_WORD(counter)
    {
        bool due = pyrt_backoff_value(counter) == 0 && pyrt_backoff_backoff(counter) != PYRT_BACKOFF_UNREACHABLE;
        CHECK_INT(pyrt_backoff_triggers(counter), due);
        CHECK_INT(pyrt_backoff_is_unreachable(counter), pyrt_backoff_backoff(counter) == PYRT_BACKOFF_UNREACHABLE);
    }
    CHECK_UINT(pyrt_backoff_trigger().word, 0);
    CHECK(pyrt_backoff_triggers(pyrt_backoff_trigger()));
}

TEST(advance_takes_one_off_the_value_and_leaves_the_backoff)
{
    FOR_EACH_WORD(counter)
    {
        pyrt_backoff_counter next = pyrt_backoff_advance(counter);
        unsigned value = pyrt_backoff_value(counter);
        CHECK_UINT(pyrt_backoff_value(next), value == 0 ? PYRT_BACKOFF_VALUE_MAX : value - 1);
        CHECK_UINT(pyrt_backoff_backoff(next), pyrt_backoff_backoff(counter));
    }
}

TEST(pause_never_triggers_and_costs_at_most_one_step)
{
    FOR_EACH_WORD(counter)
    {
        pyrt_backoff_counter paused = pyrt_backoff_pause(counter);
        CHECK(!pyrt_backoff_triggers(paused));
        CHECK_UINT(pyrt_backoff_value(paused), pyrt_backoff_value(counter) | 1);
        CHECK_UINT(pyrt_backoff_backoff(paused), pyrt_backoff_backoff(counter));
        CHECK(!pyrt_backoff_triggers(counter) || pyrt_backoff_triggers(pyrt_backoff_advance(paused)));
    }
}

TEST(restart_goes_by_the_backoff_alone)
{
    static const unsigned wanted[][2] = {{1, 1}, {6, 2}, {30, 3}, {126, 4}, {508, 5}, {2052, 6}, {8190, 6}, {0, 7}};
    FOR_EACH_WORD(counter)
    {
        pyrt_backoff_counter next = pyrt_backoff_restart(counter);
        CHECK_UINT(pyrt_backoff_value(next), wanted[pyrt_backoff_backoff(counter)][0]);
        CHECK_UINT(pyrt_backoff_backoff(next), wanted[pyrt_backoff_backoff(counter)][1]);
    }
}

TEST(the_steps_of_a_restart_are_primes_and_grow_fourfold)
{
    pyrt_backoff_counter counter = pyrt_backoff_trigger();
    for (unsigned backoff = 0; backoff <= PYRT_BACKOFF_MAX; backoff++) {
        counter = pyrt_backoff_restart(counter);
        unsigned period = steps_to_trigger(counter) + 1;
        int64_t power = INT64_C(1) << (2 * backoff + 1);
        CHECK(is_prime(period));
        CHECK(llabs((int64_t)period - power) * 100 <= power * 13);
    }
    CHECK_UINT(counter.word, pyrt_backoff_restart(counter).word);
}

TEST(what_is_unreachable_stays_unreachable)
{
    pyrt_backoff_counter counter = pyrt_backoff_unreachable();
    CHECK_UINT(counter.word, 7);
    for (uint32_t step = 0; step < 3 * (PYRT_BACKOFF_VALUE_MAX + 1); step++) {
        counter = pyrt_backoff_advance(counter);
        CHECK(pyrt_backoff_is_unreachable(counter));
        CHECK(!pyrt_backoff_triggers(counter));
        CHECK(pyrt_backoff_is_unreachable(pyrt_backoff_pause(counter)));
        CHECK(pyrt_backoff_is_unreachable(pyrt_backoff_restart(counter)));
    }
    CHECK_UINT(counter.word, 7);
}

TEST(where_counters_begin)
{
    pyrt_backoff_counter warmup = pyrt_backoff_make(PYRT_BACKOFF_WARMUP_VALUE, PYRT_BACKOFF_WARMUP_BACKOFF);
    pyrt_backoff_counter cooldown = pyrt_backoff_make(PYRT_BACKOFF_COOLDOWN_VALUE, PYRT_BACKOFF_COOLDOWN_BACKOFF);
    pyrt_backoff_counter jump = pyrt_backoff_make(PYRT_BACKOFF_JUMP_VALUE, PYRT_BACKOFF_JUMP_BACKOFF);
    CHECK_UINT(steps_to_trigger(warmup), 1);
    CHECK_UINT(steps_to_trigger(cooldown), 52);
    CHECK(is_prime(PYRT_BACKOFF_COOLDOWN_VALUE + 1));
    /* After the cool-down it starts as if it had never been tried. */
    CHECK_UINT(pyrt_backoff_restart(cooldown).word, warmup.word);
    CHECK_UINT(steps_to_trigger(jump), 4000);
    CHECK(is_prime(PYRT_BACKOFF_JUMP_VALUE + 1));
    CHECK(is_prime(PYRT_BACKOFF_EXIT_VALUE + 1));
}

TEST(a_shared_counter_is_loaded_and_stored_whole)
{
    pyrt_backoff_counter shared = pyrt_backoff_trigger();
    FOR_EACH_WORD(counter)
    {
        pyrt_backoff_store(&shared, counter);
        CHECK_UINT(pyrt_backoff_load(&shared).word, counter.word);
    }
}

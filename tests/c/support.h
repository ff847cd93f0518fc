/* support.h -- what every C test starts from: tests by name, checks that say what they saw, reports that must be expected,
 * and random numbers that can be had again.
 *
 * A test is a function behind TEST(name). Each starts and must end with the runtime not initialised, no byte of the
 * library's own memory live, and no report that it did not ask for; the runner checks the three. The first failed check
 * prints where, what and the seed, and ends the process: what a failure leaves behind is not worth running on.
 */
#ifndef TESTS_C_SUPPORT_H
#define TESTS_C_SUPPORT_H

#include <pyruntime/pyruntime.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- tests ------------------------------------------------------------------------------------------------------- */

typedef struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
} test_case;

void test_register(test_case *test);

#define TEST(name_)                                                 \
    static void name_(void);                                        \
    static test_case case_##name_ = {#name_, name_, NULL};          \
    __attribute__((constructor)) static void register_##name_(void) \
    {                                                               \
        test_register(&case_##name_);                               \
    }                                                               \
    static void name_(void)

/* How much longer than usual a stress is to run (--scale, 1 by default), and what it is to break (--break, NULL by
 * default): the sabotage by which a stress shows that it can fail. */
unsigned test_scale(void);
const char *test_sabotage(void);

/* ---- checks ------------------------------------------------------------------------------------------------------ */

__attribute__((noreturn, format(printf, 3, 4))) void test_fail(const char *file, int line, const char *format, ...);

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)

#define CHECK(condition)                      \
    do {                                      \
        if (!(condition)) {                   \
            FAIL("not true: %s", #condition); \
        }                                     \
    } while (0)

void check_int(const char *file, int line, const char *text, int64_t found, int64_t wanted);
void check_uint(const char *file, int line, const char *text, uint64_t found, uint64_t wanted);
void check_pointer(const char *file, int line, const char *text, const void *found, const void *wanted);
void check_string(const char *file, int line, const char *text, const char *found, const char *wanted);
void check_status(const char *file, int line, const char *text, pyrt_status found, pyrt_status wanted);

#define CHECK_INT(found, wanted) check_int(__FILE__, __LINE__, #found, (int64_t)(found), (int64_t)(wanted))
#define CHECK_UINT(found, wanted) check_uint(__FILE__, __LINE__, #found, (uint64_t)(found), (uint64_t)(wanted))
#define CHECK_PTR(found, wanted) check_pointer(__FILE__, __LINE__, #found, (found), (wanted))
#define CHECK_STR(found, wanted) check_string(__FILE__, __LINE__, #found, (found), (wanted))
#define CHECK_STATUS(found, wanted) check_status(__FILE__, __LINE__, #found, (found), (wanted))
#define CHECK_OK(call) CHECK_STATUS((call), PYRT_OK)

/* ---- reports ----------------------------------------------------------------------------------------------------- */

/* How many reports wait to be expected. */
size_t reports_pending(void);

/* Makes room for more: of those that were expected nothing is kept. None may be pending. */
void reports_forget(void);

/* Takes the oldest pending report, which must contain each of the texts: usually the function that was misused, and the
 * thread. With one that begins with '^' it must begin. */
void expect_report(const char *file, int line, const char *const *parts, size_t count);

#define EXPECT_REPORT(...)                                                \
    expect_report(__FILE__, __LINE__, (const char *const[]){__VA_ARGS__}, \
                  sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

/* "thread <id> ", as it stands in reports; the text is valid until the next call on the same OS thread. */
const char *named(const pyrt_thread *thread);

/* ---- the runtime under test -------------------------------------------------------------------------------------- */

/* Init and fini that must succeed. runtime_down also checks that no byte is left. */
void runtime_up(void);
void runtime_down(void);

/* The state of a thread as its interpreter lists it; PYRT_STATE_SHUTTING_DOWN if it does not. */
int32_t state_of(const pyrt_thread *thread);

/* One statistic of an interpreter by its name. */
uint64_t stat_of(pyrt_interp *interp, const char *name);

/* ---- random choices ---------------------------------------------------------------------------------------------- */

/* Each user of random numbers has a stream of its own, so that the choices of one thread do not depend on the timing of
 * another. Streams of the same seed and number are equal in every run. */
typedef struct random_stream {
    uint64_t state;
} random_stream;

uint64_t test_seed(void);
random_stream random_for(uint64_t number);
uint64_t random_next(random_stream *stream);

/* 0 <= result < below. */
uint32_t random_below(random_stream *stream, uint32_t below);

#endif

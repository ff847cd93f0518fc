/* faults.c -- see faults.h. */
#include "faults.h"

#include "platform/meta_alloc.h"
#include "platform/os_memory.h"
#include "support.h"

#include <limits.h>

/* Used by one thread at a time: that of the test. */
static struct {
    int skip;  /* so many still succeed */
    int fail;  /* so many then fail */
    int hit;
} armed;

static bool
should_fail(void *unused)
{
    (void)unused;
    if (armed.skip > 0) {
        armed.skip--;
        return false;
    }
    if (armed.fail == 0) {
        return false;
    }
    armed.fail -= armed.fail != INT_MAX;
    armed.hit++;
    return true;
}

void
fault_arm(int nth, int count)
{
    pyrt_meta_set_fault(NULL, NULL);
    pyrt_os_set_fault(NULL, NULL);
    armed.skip = nth - 1;
    armed.fail = count;
    armed.hit = 0;
    pyrt_meta_set_fault(should_fail, NULL);
    pyrt_os_set_fault(should_fail, NULL);
}

void
fault_disarm(void)
{
    pyrt_meta_set_fault(NULL, NULL);
    pyrt_os_set_fault(NULL, NULL);
}

int
faults_hit(void)
{
    return armed.hit;
}

int
fault_everywhere(const fault_plan *plan, fault_kind kind)
{
    int points = 0;
    for (;;) {
        (plan->prepare != NULL ? plan->prepare : runtime_up)();
        size_t before = pyrt_meta_live_bytes();
        fault_arm(points + 1, kind == FAULT_ONCE ? 1 : INT_MAX);
        bool succeeded = plan->operation();
        bool hit = faults_hit() > 0;
        fault_disarm();
        if (!succeeded) {
            CHECK_UINT(pyrt_meta_live_bytes(), before);
        }
        if (plan->finish != NULL) {
            plan->finish(succeeded);
        }
        else {
            runtime_down();
        }
        CHECK_UINT(pyrt_meta_live_bytes(), 0);
        if (!hit) {
            CHECK(succeeded);
            return points;
        }
        points++;
    }
}

/* SPDX-License-Identifier: MIT
 *
 * pyruntime.h -- all of the public headers.
 */
#ifndef PYRUNTIME_PYRUNTIME_H
#define PYRUNTIME_PYRUNTIME_H

#include "atomic.h"
#include "backoff.h"
#include "block.h"
#include "condition.h"
#include "critical_section.h"
#include "current.h"
#include "event.h"
#include "fork.h"
#include "heap.h"
#include "lock_debug.h"
#include "mutex.h"
#include "object.h"
#include "once.h"
#include "parking_lot.h"
#include "qsbr.h"
#include "recursive_mutex.h"
#include "refcount.h"
#include "retire.h"
#include "rwlock.h"
#include "seqlock.h"
#include "status.h"
#include "stop_the_world.h"
#include "striped_lock.h"
#include "thread.h"
#include "unique_id.h"
#include "weakref.h"

#endif /* PYRUNTIME_PYRUNTIME_H */

/* shared_box.h -- what SharedRefs (shared_ref.h) refer to: a counted object of the core around a Python object.
 *
 * The value is in the box's node, of which the core's destructor makes an ending (endings.h). All boxes of one Python interpreter
 * are of one type, in memory of its default domain.
 *
 * Python's collector does not see the box, but its anchor: a Python object without a name that every SharedRef of the box has a
 * reference to, and that shows what the node holds. So a circle through any number of SharedRefs is one to it.
 */
#ifndef PYRT_BINDING_SHARED_BOX_H
#define PYRT_BINDING_SHARED_BOX_H

#include "binding/domain.h"
#include "binding/endings.h"

typedef struct pyrt_py_box {
    pyrt_object base;
    pyrt_py_callable *node;
    pyrt_py_home *counting; /* the home whose `boxes` it is in, or NULL */
} pyrt_py_box;

/* A box with one reference around the node, which is its own from then on. NULL with an exception. */
pyrt_py_box *pyrt_py_box_new(pyrt_py_home *home, pyrt_py_domain *domain, pyrt_py_callable *node);

/* An anchor that nobody has joined. NULL with an exception. May run the collector. */
PyObject *pyrt_py_anchor_new(const pyrt_py_home *home);

/* For a SharedRef that has a reference to the box with this node, and still has when it leaves. The first answers a new
 * reference to the anchor, the second takes it. */
PyObject *pyrt_py_anchor_join(PyObject *anchor, pyrt_py_callable *node);
void pyrt_py_anchor_leave(PyObject *anchor);

PyTypeObject *pyrt_py_shared_anchor_type_new(void);

/* Around counting, in a call from Python: attached for the moment if that can be. Between the two no Python code runs; the end
 * merges what others have asked this thread for, and may run finalizers. */
typedef struct pyrt_py_moment {
    pyrt_py_home *home, *outer;
    PyThreadState *inside;
    pyrt_thread *attached; /* by this moment, or NULL */
} pyrt_py_moment;

pyrt_py_moment pyrt_py_moment_begin(pyrt_py_home *home);
void pyrt_py_moment_end(const pyrt_py_moment *moment);

#endif

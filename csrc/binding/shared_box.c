/* shared_box.c -- see shared_box.h.
 *
 * Python threads are detached from the core. For the moment of counting a thread attaches the state that it keeps, if it has one
 * and that is free; so the owner counts as an owner, without an atomic operation on the box. Others count as strangers.
 */
#include "binding/shared_box.h"

#include "binding/gil.h"
#include "binding/states.h"
#include "binding/sync.h"
#include "binding/uses.h"

static const char WHAT[] = "SharedRef()";

/* ---- the type ------------------------------------------------------------------------------------------------------ */

/* Called by the core, on any thread. */
static void
box_dealloc(pyrt_object *dying)
{
    pyrt_py_box *ended = (pyrt_py_box *)dying;
    if (ended->counting != NULL) {
        pyrt_fetch_add_seq_cst(&ended->counting->boxes, (uint64_t)-1);
    }
    pyrt_py_ending_dispose(ended->node);
}

/* The type of the home's boxes; NULL when memory is short. A use of its default domain is under way. */
static pyrt_type *
box_type(pyrt_py_home *home, pyrt_interp *interp)
{
    static const pyrt_type_spec spec = {
        .struct_size = sizeof(spec), .name = "SharedRef", .basic_size = sizeof(pyrt_py_box), .dealloc = box_dealloc};
    /* acquire: pairs with the swap below. */
    pyrt_type *type = pyrt_load_acquire(&home->box_type);
    if (type != NULL) {
        return type;
    }
    PyThreadState *outer = pyrt_py_enter();
    pyrt_type *made = pyrt_type_new(interp, &spec);
    pyrt_py_leave(outer);
    if (made != NULL && !pyrt_cas_acq_rel(&home->box_type, &type, made)) {
        pyrt_decref((pyrt_object *)made);
        return type;
    }
    return made;
}

/* ---- attached for a moment --------------------------------------------------------------------------------------- */

pyrt_py_moment
pyrt_py_moment_begin(pyrt_py_home *home)
{
    pyrt_py_moment now = {home, pyrt_py_endings_begin(home), pyrt_py_enter(), pyrt_py_state_at_hand()};
    if (now.attached != NULL && !pyrt_tryattach(now.attached)) {
        /* The world is stopped. */
        now.attached = NULL;
    }
    return now;
}

void
pyrt_py_moment_end(const pyrt_py_moment *now)
{
    if (now->attached != NULL) {
        pyrt_safepoint(now->attached);
        pyrt_detach(now->attached);
    }
    pyrt_py_leave(now->inside);
    pyrt_py_endings_end(now->home, now->outer);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* Being in another domain's block is refused: attaching would end what that protects. */
static bool
refuse_elsewhere(const pyrt_py_domain *domain)
{
    const pyrt_thread *current = pyrt_thread_current();
    if (current == NULL || current->interp == pyrt_load_relaxed(&domain->interp) || pyrt_py_domain_is_closed(domain)) {
        return false;
    }
    pyrt_py_raise(PYRT_ESTATE, "%s inside a block of domain '%s' would end the protection of that block: leave it first",
                  WHAT, pyrt_interp_name(current->interp));
    return true;
}

/* With a state of the domain attached. */
static pyrt_py_box *
make(pyrt_py_home *home, pyrt_thread *thread, pyrt_type *type, pyrt_py_callable *node)
{
    pyrt_py_box *made = (pyrt_py_box *)pyrt_object_new(thread, type);
    if (made == NULL) {
        return NULL;
    }
    made->node = node;
    if (!home->is_main) {
        made->counting = home;
        pyrt_fetch_add_seq_cst(&home->boxes, (uint64_t)1);
    }
    return made;
}

pyrt_py_box *
pyrt_py_box_new(pyrt_py_home *home, pyrt_py_domain *domain, pyrt_py_callable *node)
{
    pyrt_py_lease lease;
    if (refuse_elsewhere(domain) || !pyrt_py_lease_begin(domain, WHAT, &lease)) {
        return NULL;
    }
    pyrt_type *type = box_type(home, domain->interp);
    bool attaches = type != NULL && pyrt_thread_current() != lease.thread;
    if (attaches && !pyrt_py_state_attach(lease.thread)) {
        pyrt_py_lease_end(&lease);
        return NULL;
    }
    pyrt_py_moment now = {home, pyrt_py_endings_begin(home), pyrt_py_enter(), attaches ? lease.thread : NULL};
    pyrt_py_box *made = type == NULL ? NULL : make(home, lease.thread, type, node);
    pyrt_py_moment_end(&now);
    pyrt_py_lease_end(&lease);
    return made != NULL ? made : (void *)pyrt_py_raise(PYRT_ENOMEM, "no memory for a SharedRef");
}

/* ---- what the collector sees ------------------------------------------------------------------------------------- */

typedef struct anchor {
    PyObject_HEAD
    pyrt_py_callable *node; /* of the box; NULL where nobody has joined */
    uint64_t joined;        /* atomic: not Python's count, which without a GIL may come to 0 some time before the end */
} anchor;

static anchor *
anchor_of(PyObject *self)
{
    return (anchor *)self;
}

PyObject *
pyrt_py_anchor_new(const pyrt_py_home *home)
{
    PyTypeObject *type = pyrt_py_sync_type(home, PYRT_PY_SYNC_SHARED_ANCHOR);
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    return alloc(type, 0);
}

PyObject *
pyrt_py_anchor_join(PyObject *self, pyrt_py_callable *node)
{
    /* The first is alone. For the others it is there. */
    if (pyrt_fetch_add_relaxed(&anchor_of(self)->joined, (uint64_t)1) == 0) {
        anchor_of(self)->node = node;
    }
    return Py_NewRef(self);
}

void
pyrt_py_anchor_leave(PyObject *self)
{
    /* relaxed: the node is looked at while all Python threads stand still. */
    if (pyrt_fetch_add_relaxed(&anchor_of(self)->joined, (uint64_t)-1) == 1) {
        anchor_of(self)->node = NULL;
    }
    Py_DECREF(self);
}

/* Who has joined keeps the box, so the node is there, and nobody else shows what it holds. */
static int
anchor_traverse(PyObject *self, visitproc visit, void *arg)
{
    const pyrt_py_callable *node = anchor_of(self)->node;
    Py_VISIT(Py_TYPE(self));
    if (node != NULL) {
        Py_VISIT(node->argument);
        Py_VISIT(node->object);
    }
    return 0;
}

static void
anchor_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    pyrt_py_sync_free(self, NULL);
}

static PyType_Slot anchor_slots[] = {
    {Py_tp_dealloc, anchor_dealloc},
    {Py_tp_traverse, anchor_traverse},
    {0, NULL},
};

static PyType_Spec anchor_spec = {
    .name = "pyruntime._core.SharedAnchor",
    .basicsize = sizeof(anchor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = anchor_slots,
};

PyTypeObject *
pyrt_py_shared_anchor_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&anchor_spec);
}
